"""``docs/validation.md``: every published figure beside the emulator's, and where the model is weak."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

from cluster.fusion_page import fusion_section
from cluster.published import Row, headline, predicted
from cluster.reproduce import OVERALL
from cluster.show import published

WIDTH = 118
_GROUPS = {
    "system": "System results of the paper",
    "calls": "Whole calls of one model",
    "derived": "Arithmetic from published figures",
    "placement": "Placement",
}


def validation_page(
    rows: Sequence[Row], per_gpu: Sequence[Row], effect: dict[str, dict[tuple[int, str], float]]
) -> str:
    """The page as Markdown; ``per_gpu`` are the rows with one host link per GPU."""
    before = [*_head(rows), *_tables(rows), *_overhead(effect), *_links(rows, per_gpu)]
    return "\n".join([*before, *fusion_section(rows), *_inputs(rows), *_weak(rows), ""])


def _head(rows: Sequence[Row]) -> list[str]:
    found = predicted(rows)
    worst = max(found, key=lambda row: abs(row.error))
    return [
        "# Validation",
        "",
        "Written by `coe reproduce --write docs/validation.md`; a test does so again and compares. Each row is a run.",
        "",
        _paragraph(
            "Roles: **fitted**: parameters were fitted to this figure. **same_source**: follows from a figure that was "
            "fitted to, or that a spec number was derived from. **predicted**: the emulator was told nothing of it."
        ),
        "",
        f"**Headline error: {headline(rows):.1%}**, the mean over the {len(found)} predicted figures;",
        f"the worst of them is {worst.error:+.1%} ({worst.metric}).",
        "",
    ]


def _paragraph(text: str) -> str:
    return fill(text, WIDTH, break_on_hyphens=False)


def _tables(rows: Sequence[Row]) -> list[str]:
    lines = []
    for group, title in _GROUPS.items():
        lines += [f"## {title}", "", "| result | published | emulated | error | tolerance | role |"]
        lines += ["|---|---:|---:|---:|---:|---|"]
        for row in rows:
            if row.group == group:
                error = f"{row.error:+.1%}" if row.within else f"**{row.error:+.1%}**"
                cells = (row.metric, published(row), f"{row.emulated:.4g}", error, f"{row.tolerance:.0%}", row.role)
                lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return lines


def _overhead(effect: dict[str, dict[tuple[int, str], float]]) -> list[str]:
    lines = [
        "## What the call overhead does to the results",
        "",
        _paragraph(
            "`host.call_overhead` is fitted, and of the size of an expert's whole run: how it is charged decides the "
            "overall ratios. The published formula charges it with every expert's call (`per_request`); the DGX times "
            "are of whole calls: their overhead is inside the cost per launch and does not change with the mode."
        ),
        "",
        "| `runtime.call_overhead` | " + " | ".join(f"batch {b}, {d}" for b, d in OVERALL) + " |",
        "|---|" + "---:|" * len(OVERALL),
    ]
    lines += [
        f"| {mode} | " + " | ".join(f"{found[key]:.2f}x" for key in OVERALL) + " |" for mode, found in effect.items()
    ]
    return [*lines, "| published | " + " | ".join(f"{value:.1f}x" for value in OVERALL.values()) + " |", ""]


def _links(rows: Sequence[Row], per_gpu: Sequence[Row]) -> list[str]:
    lines = [
        "## What one host link per GPU does to the comparison",
        "",
        _paragraph(
            "The paper gives the eight GPUs one host link between them, which flatters the SN40L; a DGX has more. With "
            "`machine.host_link.sharing=per_socket` each GPU copies its shard over a link of its own:"
        ),
        "",
        "| result | published | one link | link per GPU |",
        "|---|---:|---:|---:|",
    ]
    for row, other in zip(rows, per_gpu, strict=True):
        if row.group == "system" and "dgx" in row.id:
            lines.append(f"| {row.metric} | {published(row)} | {row.emulated:.4g} | {other.emulated:.4g} |")
    return [*lines, ""]


def _inputs(rows: Sequence[Row]) -> list[str]:
    lines = ["## Inputs that nobody published", ""]
    for kind in ("derived", "assumed"):
        names = sorted({name for row in rows for name in getattr(row.inputs, kind)})
        by_machine: dict[str, list[str]] = {}
        for name in names:
            machine, _, path = name.partition(":")
            by_machine.setdefault(machine, []).append(f"`{path}`")
        lines += [f"{kind.capitalize()}:", ""]
        lines += [f"- {machine}: {', '.join(found)}" for machine, found in by_machine.items()] + [""]
    return [*lines, "`coe machines NAME` prints each with its value and source.", ""]


def _weak(rows: Sequence[Row]) -> list[str]:
    h100 = next(row for row in rows if row.id == "call-dgx-h100-2")
    points = (
        f"**H100 between batch 1 and 8.** Two parameters meet the ends; batch 2 is {h100.error:+.1%} off. The "
        "published times jump from batch 1 to 2 in a way that neither bandwidth nor compute explains.",
        "**GPUs at large batch.** The fitted `compute.efficiency` of the DGX machines is what short prompts at tensor "
        "parallelism 8 reach. It is far below what large GEMMs reach: long prompts and large batches come out too slow "
        "on the DGX, in favour of the SN40L. Take comparisons at 128 tokens in as validated, others as not.",
        "**Footprint of the DGX.** 19 machines follow from HBM that holds 45 to 47 experts beside router and KV cache: "
        "a `runtime.kv_reserve` up to 18 GiB gives 19, a larger one more.",
        "**Host memory of the DGX.** Read as 2 TB decimal it would hold 148 experts, not the 150 of Samba-CoE; the "
        "spec reads it as 32 modules of 64 GiB.",
        "**Peer links, launch times and stage latency of the SN40L** are assumed. Decode hardly depends on them, since "
        "the fitted `kernel.sync` takes up what they leave; prefill at tensor parallelism 16 is bound by the link.",
        "**Fusion.** Prefill of 7B models comes out above the published range; the section on fusion works out why. "
        "What a PCU does per cycle, the least work worth a PCU, and that stages hand over whole tiles are assumptions.",
        "**Nothing overlaps with a copy**: activation, call overhead and kernels of a group follow one another, as in "
        "the published formula. Energy is average power times makespan.",
    )
    wrapped = [fill(f"- {point}", WIDTH, subsequent_indent="  ", break_on_hyphens=False) for point in points]
    return ["## Where the model is weak", "", *wrapped]

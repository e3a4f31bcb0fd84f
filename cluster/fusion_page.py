"""The part of the validation page on fusion and operational intensity, with the account of what is off."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

from cluster.fusion_study import BENCHMARKS, FFT_BATCHES, MONARCH_BATCH, TRAINED, fft_speedup
from cluster.published import Row
from cluster.show import published
from node.dataflow.kernel import BOUNDS
from node.dataflow.program import compile_graph
from node.estimate import FIXED, Call, prefill_step
from node.models.decoder import decoder
from node.models.hugging_face import load_shape
from node.spec import Machine
from node.spec_file import load_machine

WIDTH = 118
FFT_ORDERS = ((64, 128, 128), (1024, 1024), (32, 32, 32, 32))


def fusion_section(rows: Sequence[Row]) -> list[str]:
    """The section as lines of Markdown."""
    return [*_study(rows), *_account(), *_fft(), *_monarch(rows)]


def _paragraph(text: str) -> list[str]:
    return [fill(text, WIDTH, break_on_hyphens=False), ""]


def _study(rows: Sequence[Row]) -> list[str]:
    times = {row.id: row for row in rows if row.group == "fusion"}
    lines = ["## Fused over unfused", ""]
    lines += _paragraph(
        "Eight sockets, batch 1 (the paper's batches are unpublished), without call overhead; unfused kernels are "
        "launched by the host (SO), fused ones by the host or by the hardware (HO). In bold what is outside the range "
        "of its kind (prefill and train 1.5x to 3x, decode 1x to 13x); the headline is 2x to 13x for all."
    )
    lines += ["| benchmark | SO | HO | by kind | headline |", "|---|---:|---:|---|---|"]
    asked = [(model, tokens, phase) for model, tokens in BENCHMARKS for phase in ("prefill", "decode")]
    for model, tokens, phase in [*asked, *((model, tokens, "train") for model, tokens in TRAINED)]:
        key = f"fusion-{model}-{tokens}-{phase}"
        found = [times[f"{key}-{how}-by-kind"] for how in ("so", "ho")]
        cells = [f"{r.emulated:.2f}x" if r.error == 0 else f"**{r.emulated:.2f}x**" for r in found]
        met = [_met([times[f"{key}-{how}-{label}"] for how in ("so", "ho")]) for label in ("by-kind", "headline")]
        lines.append(f"| {model}, {tokens} tokens, {phase} | {' | '.join([*cells, *met])} |")
    return [*lines, ""]


def _met(rows: Sequence[Row]) -> str:
    """Whether rows are in their range, or by how much they miss it."""
    worst = max(rows, key=lambda row: abs(row.error))
    return f"{published(worst)}: met" if worst.error == 0 else f"{published(worst)}: {worst.error:+.1%}"


def _account() -> list[str]:
    """Where the time of an unfused and of a fused prefill goes, and what follows for the ratio."""
    machine = load_machine("sn40l-node")
    model, tokens = BENCHMARKS[0]
    slow, quick = (_shares(machine, model, tokens, level) for level in ("unfused", "fused"))
    lines = ["### Why prefill of 7B models is above its range", ""]
    heads = (*BOUNDS[:-1], FIXED)
    lines += [f"| {model}, {tokens} tokens, ms of a prefill bound by | {' | '.join(heads)} | in all |"]
    lines += ["|---|" + "---:|" * (len(heads) + 1)]
    for level, found in (("unfused", slow), ("fused", quick)):
        cells = " | ".join(f"{found[bound] * 1e3:.2f}" for bound in heads)
        lines.append(f"| {level} | {cells} | {sum(found.values()) * 1e3:.2f} |")
    total, fused = sum(slow.values()), sum(quick.values())
    hidden = (total - slow["link"]) / fused
    bare = (total - slow[FIXED]) / (fused - quick[FIXED])
    lines += [""]
    return lines + _paragraph(
        f"Unfused, nothing hides the {slow['link'] * 1e3:.1f} ms of all-reduces on the assumed peer links, and "
        f"{slow[FIXED] * 1e3:.1f} ms are assumed host launches and fitted synchronisation; fused, both vanish behind "
        f"the pipeline. A baseline whose all-reduces overlap with compute would give {hidden:.2f}x, one with free "
        f"launches on both sides {bare:.2f}x. A published set-up with a batch above 1, with framework operators that "
        "are tuned to do several of our operators, or with quicker links than the assumed ones, gets below 3x by these "
        "ways; which of them it contains is unpublished, so nothing here is adapted to it. Bloom has the most work per "
        "byte: unfused it is already near its compute bound, which is why it stays below the headline's 2x. "
        "Sparse training assumes that systolic arrays reach their peak on the non-zeros; nobody published that, and an "
        "unfused baseline that multiplies sparse matrices more slowly than it reads them would have a lower ratio."
    )


def _shares(machine: Machine, model: str, tokens: int, level: str) -> dict[str, float]:
    program = compile_graph(decoder(load_shape(model), machine.sockets), machine, machine.sockets, level, "so")
    step = prefill_step(Call(tokens, 1), None)
    found = dict.fromkeys((*BOUNDS, FIXED), 0.0)
    for kernel in program.prefill_kernels(step):
        cost = kernel.cost(step)
        found[cost.bound_by] += kernel.repeat * cost.bound
        found[FIXED] += kernel.repeat * cost.fixed
    return found


def _fft() -> list[str]:
    machine = load_machine("sn40l-socket")
    lines = ["### FlashFFTConv", ""]
    lines += _paragraph(
        "Published: 13x on one socket, as one kernel. Batch, decomposition and data types are unpublished. Ours: order "
        "3 (64 x 128 x 128), real BF16 signals, complex FP32 between operators. The ratio depends on both choices, so "
        "the row counts as fitted:"
    )
    lines += ["| decomposition | " + " | ".join(f"{batch} sequences" for batch in FFT_BATCHES) + " |"]
    lines += ["|---|" + "---:|" * len(FFT_BATCHES)]
    for factors in FFT_ORDERS:
        cells = " | ".join(f"{fft_speedup(machine, batch, 'ho', factors):.1f}x" for batch in FFT_BATCHES)
        lines.append(f"| {' x '.join(map(str, factors))} | {cells} |")
    return [*lines, ""]


def _monarch(rows: Sequence[Row]) -> list[str]:
    lines = ["### Operational intensity of Gemm0-Mul-Transpose-Gemm1", ""]
    lines += _paragraph(
        "The paper's shapes are unpublished. With tensors of equal size the three figures would be as 1 : 2 : 4; they "
        "are as 1 : 2.6 : 10.4, so what lies between the operators must be about 1.5 times what enters and leaves the "
        "chain. Complex FP32 between real BF16 ends gives that, with DFT matrices and twiddles that are read once for "
        "the batch. Searched were factors of 16 to 1024 (powers of two), real or complex ends, BF16 or FP32 for each, "
        f"batches of 1 to 4096: 256 x 256 points at a batch of {MONARCH_BATCH} is the square transform that meets all "
        "three best. BF16 throughout meets no better than 22 %: it moves too little between operators."
    )
    lines += ["| FLOPs per byte | published | emulated | error |", "|---|---:|---:|---:|"]
    for row in rows:
        if row.group == "monarch":
            name = row.metric.rpartition(", ")[2]
            lines.append(f"| {name} | {published(row)} | {row.emulated:.1f} | {row.error:+.1%} |")
    return [*lines, ""]

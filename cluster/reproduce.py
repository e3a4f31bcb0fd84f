"""The published results beside the emulator's. Nothing is looked up: each row is a run."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.calibration import FITS
from cluster.deploy import deployment_of
from cluster.footprint import capacity, row
from cluster.fusion_study import fusion_rows, monarch_rows, placement_rows
from cluster.published import Published, Row, Runs, call_s, call_settings, makespan_s, samba_settings
from node.runtime.settings import CALL_OVERHEADS
from node.units import parse

FOOTPRINT_EXPERTS = 850
BATCHES = (1, 2, 4, 8)
# NeMo, Llama-2-7B, TP8, 128 tokens in, 20 out: ms for the whole call by batch
NEMO_MS = {"dgx-a100": (136.5, 143.3, 158.6, 181.9), "dgx-h100": (97.6, 109.1, 116.2, 129.1)}
# P: how many times faster than the DGX
SWITCHING = {"dgx-a100": 31.0, "dgx-h100": 15.0}
OVERALL = {(8, "dgx-a100"): 6.6, (8, "dgx-h100"): 3.7, (1, "dgx-a100"): 4.8, (1, "dgx-h100"): 2.8}


def rows(runs: Runs) -> list[Row]:
    """All rows."""
    return [
        *_system(runs),
        *_calls(runs),
        *_derived(runs),
        *placement_rows(runs),
        *fusion_rows(runs),
        *monarch_rows(runs),
    ]


def _system(runs: Runs) -> Iterator[Row]:
    for dgx, published in SWITCHING.items():
        inputs = runs.inputs("coe run", ("sn40l-node", dgx), samba_settings(8))
        ratio = runs.switch_s(dgx) / runs.switch_s("sn40l-node")
        metric = f"model switching, times quicker than {dgx}"
        yield Row(f"switching-{dgx}", "system", metric, published, ratio, 0.05, "same_source", inputs)
    for (batch, dgx), published in OVERALL.items():
        ours, theirs = (makespan_s(runs.samba_coe(machine, batch)) for machine in ("sn40l-node", dgx))
        inputs = runs.inputs("coe run", ("sn40l-node", dgx), samba_settings(batch))
        metric = f"overall, batch {batch}, 20 output tokens, times quicker than {dgx}"
        yield Row(f"overall-{batch}-{dgx}", "system", metric, published, theirs / ours, 0.05, "same_source", inputs)
    for machine, nodes in (("sn40l-node", 1.0), ("dgx-a100", 19.0), ("dgx-h100", 19.0)):
        config = runs.config(machine)
        limit = parse(config.footprint.activation_limit, "s", "footprint.activation_limit")
        needed = row(machine, capacity(deployment_of(config)), FOOTPRINT_EXPERTS, limit).nodes
        inputs = runs.inputs(f"coe footprint --experts {FOOTPRINT_EXPERTS}", (machine,))
        metric = f"machines that hold {FOOTPRINT_EXPERTS} experts, {machine}"
        yield Row(f"footprint-{machine}", "system", metric, nodes, float(needed), 0.05, "predicted", inputs)


def _calls(runs: Runs) -> Iterator[Row]:
    for point in FITS[0].points:
        tokens, batch = (point.call.input_tokens, point.call.output_tokens), point.call.batch
        emulated = call_s(runs.call("sn40l-node", point.model, tokens, batch))
        inputs = runs.inputs("coe run", ("sn40l-node",), call_settings(point.model, tokens, batch))
        metric = f"s for a call, {point.model}, {tokens[0]} in, {tokens[1]} out, batch {batch}, sn40l-node"
        yield Row(f"call-sn40l-{point.model}", "calls", metric, point.published_s, emulated, 0.03, "fitted", inputs)
    for dgx, times in NEMO_MS.items():
        for batch, published in zip(BATCHES, times, strict=True):
            emulated = call_s(runs.call(dgx, "llama-2-7b", (128, 20), batch))
            inputs = runs.inputs("coe run", (dgx,), call_settings("llama-2-7b", (128, 20), batch))
            fitted = batch in (BATCHES[0], BATCHES[-1])
            metric = f"s for a call, llama-2-7b, 128 in, 20 out, batch {batch}, {dgx}"
            role, tolerance = ("fitted", 0.03) if fitted else ("predicted", 0.10)
            yield Row(f"call-{dgx}-{batch}", "calls", metric, published / 1000, emulated, tolerance, role, inputs)


def _derived(runs: Runs) -> Iterator[Row]:
    copies: dict[str, Published] = {"sn40l-node": (0.0136, 0.0140), "dgx-a100": 0.421, "dgx-h100": 0.211}
    for machine, published in copies.items():
        inputs = runs.inputs("coe run", (machine,), samba_settings(8))
        metric = f"s to copy one expert, {machine}"
        yield Row(f"copy-{machine}", "derived", metric, published, runs.switch_s(machine), 0.05, "same_source", inputs)
    copied = runs.samba_coe("sn40l-node", 8).summary["bytes_ddr_to_hbm"]
    assert isinstance(copied, int)
    rate = copied / 8 / runs.switch_s("sn40l-node") / 1e12
    inputs = runs.inputs("coe run", ("sn40l-node",), samba_settings(8))
    yield Row("ddr-rate", "derived", "TB/s from DDR to HBM, sn40l-node", (1.0, 1.6), rate, 0.05, "same_source", inputs)
    for batch, total in ((1, 0.145), (8, 0.702)):
        emulated = makespan_s(runs.samba_coe("sn40l-node", batch))
        inputs = runs.inputs("coe run", ("sn40l-node",), samba_settings(batch))
        metric = f"s for a batch of {batch}, 20 output tokens, sn40l-node"
        yield Row(f"total-sn40l-{batch}", "derived", metric, total, emulated, 0.05, "same_source", inputs)


def overhead_effect(runs: Runs) -> dict[str, dict[tuple[int, str], float]]:
    """By how the call overhead is charged: the overall ratio of each (batch, DGX)."""

    def ratio(mode: str, batch: int, dgx: str) -> float:
        return makespan_s(runs.samba_coe(dgx, batch, mode)) / makespan_s(runs.samba_coe("sn40l-node", batch, mode))

    return {mode: {(batch, dgx): ratio(mode, batch, dgx) for batch, dgx in OVERALL} for mode in CALL_OVERHEADS}

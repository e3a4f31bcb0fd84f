"""The published results beside the emulator's. Nothing is looked up: each row is a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from cluster.backends import LocalBackend
from cluster.calibration import FITS
from cluster.config import Config
from cluster.config_file import read_config
from cluster.deploy import deployment_of, machine_of, machines_of
from cluster.footprint import capacity, row
from cluster.runner import Run, prepare, run
from node.runtime.orders import CALL_OVERHEADS
from node.spec_file import load_machine
from node.units import PS_PER_S, parse

Published = float | tuple[float, float]
FOOTPRINT_EXPERTS = 850
MACHINES = ("sn40l-node", "dgx-a100", "dgx-h100")
BATCHES = (1, 2, 4, 8)
# NeMo, Llama-2-7B, TP8, 128 tokens in, 20 out: ms for the whole call by batch
NEMO_MS = {"dgx-a100": (136.5, 143.3, 158.6, 181.9), "dgx-h100": (97.6, 109.1, 116.2, 129.1)}
# P: how many times faster than the DGX
SWITCHING = {"dgx-a100": 31.0, "dgx-h100": 15.0}
OVERALL = {(8, "dgx-a100"): 6.6, (8, "dgx-h100"): 3.7, (1, "dgx-a100"): 4.8, (1, "dgx-h100"): 2.8}


@dataclass(frozen=True)
class Inputs:
    """What a row rests on: the command, run on each of ``machines``, and their numbers that are not published."""

    run: str
    machines: tuple[str, ...]
    derived: tuple[str, ...]
    assumed: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One published figure; ``tolerance`` is relative; ``role`` says what the emulator was told of it."""

    id: str
    group: str
    metric: str
    published: Published
    emulated: float
    tolerance: float
    role: str
    inputs: Inputs

    @property
    def error(self) -> float:
        """Relative distance from the figure, or from the nearer end of its range."""
        low, high = self.published if isinstance(self.published, tuple) else (self.published, self.published)
        nearest = min(max(self.emulated, low), high)
        return (self.emulated - nearest) / nearest

    @property
    def within(self) -> bool:
        """Whether the row is within its tolerance."""
        return abs(self.error) <= self.tolerance


class Runs:
    """The runs behind the rows, each done once; ``numbers`` are set on every machine that has them."""

    def __init__(self, numbers: Mapping[str, object]) -> None:
        machines_of(MACHINES, numbers)
        self._numbers = numbers
        self._done: dict[tuple[str, tuple[str, ...]], Run] = {}

    def samba_coe(self, machine: str, batch: int, call_overhead: str = "per_request") -> Run:
        """The paper's experiment: a batch of prompts, 128 tokens in, 20 out, every one for another absent expert."""
        return self._run(machine, samba_settings(batch, call_overhead))

    def call(self, machine: str, model: str, tokens: tuple[int, int], batch: int) -> Run:
        """One call of one model: a batch that arrives together, no router."""
        return self._run(machine, call_settings(model, tokens, batch))

    def switch_s(self, machine: str) -> float:
        """Seconds of an activation, mean over a batch."""
        value = self.samba_coe(machine, 8).summary["switch_s_mean"]
        assert isinstance(value, float)
        return value

    def config(self, machine: str, settings: tuple[str, ...] = ()) -> Config:
        """The config of a run on ``machine``."""
        pairs = [(key, int(v) if v.isdecimal() else v) for key, _, v in (text.partition("=") for text in settings)]
        known = {figure.path for figure in load_machine(machine).figures}
        numbers = [(f"machine.{path}", value) for path, value in self._numbers.items() if path in known]
        return read_config(None, [*pairs, *numbers, ("machine.name", machine), ("cluster.backend", "local")])

    def inputs(self, command: str, machines: tuple[str, ...], settings: tuple[str, ...] = ()) -> Inputs:
        """What a row from runs with ``settings`` on ``machines`` rests on."""
        kinds: dict[str, list[str]] = {"derived": [], "assumed": []}
        for machine in machines:
            for figure in machine_of(self.config(machine)).figures:
                if figure.kind in kinds:
                    kinds[figure.kind].append(f"{machine}:{figure.path}")
        text = " ".join([command, *(f"--set {s}" for s in settings)])
        return Inputs(text, machines, tuple(kinds["derived"]), tuple(kinds["assumed"]))

    def _run(self, machine: str, settings: tuple[str, ...]) -> Run:
        if (machine, settings) not in self._done:
            config = self.config(machine, settings)
            self._done[machine, settings] = run(config, LocalBackend(), prepare(config))
        return self._done[machine, settings]


def samba_settings(batch: int, call_overhead: str = "per_request") -> tuple[str, ...]:
    """Settings of the paper's experiment."""
    return (
        "runtime.scheduler=paper",
        f"runtime.batch={batch}",
        f"runtime.call_overhead={call_overhead}",
        f"workload.requests={batch}",
        "workload.arrivals=at_once",
        "workload.popularity=distinct",
        "workload.input_tokens=128",
        "workload.output_tokens=20",
    )


def call_settings(model: str, tokens: tuple[int, int], batch: int) -> tuple[str, ...]:
    """Settings of a single call."""
    return (
        "experts.count=1",
        f"experts.model={model}",
        "experts.router=none",
        "runtime.call_overhead=per_batch",
        f"runtime.batch={batch}",
        f"workload.requests={batch}",
        "workload.arrivals=at_once",
        f"workload.input_tokens={tokens[0]}",
        f"workload.output_tokens={tokens[1]}",
    )


def makespan_s(result: Run) -> float:
    """Seconds from time 0 to the last answer."""
    value = result.summary["makespan_s"]
    assert isinstance(value, float)
    return value


def call_s(result: Run) -> float:
    """Seconds of a call from its start, its expert being in HBM already."""
    spent = result.columns["e2e"] - result.columns["switch"] - result.columns["queue"]
    return float(spent.max()) / PS_PER_S


def rows(runs: Runs) -> list[Row]:
    """All rows."""
    return [*_system(runs), *_calls(runs), *_derived(runs)]


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


def headline(found: Sequence[Row]) -> float:
    """Mean absolute relative error over the predicted rows."""
    errors = [abs(one.error) for one in found if one.role == "predicted"]
    return sum(errors) / len(errors)


def as_json(found: Sequence[Row]) -> dict[str, object]:
    """``{"rows": [...]}`` and the headline error."""
    return {"rows": [asdict(one) for one in found], "headline_error": headline(found)}


def overhead_effect(runs: Runs) -> dict[str, dict[tuple[int, str], float]]:
    """By how the call overhead is charged: the overall ratio of each (batch, DGX)."""

    def ratio(mode: str, batch: int, dgx: str) -> float:
        return makespan_s(runs.samba_coe(dgx, batch, mode)) / makespan_s(runs.samba_coe("sn40l-node", batch, mode))

    return {mode: {(batch, dgx): ratio(mode, batch, dgx) for batch, dgx in OVERALL} for mode in CALL_OVERHEADS}

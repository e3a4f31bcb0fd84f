"""What a published result is compared by: a row, what it rests on, and the runs behind it, each done once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from cluster.backends import LocalBackend
from cluster.config import Config
from cluster.config_file import read_config
from cluster.deploy import machine_of, machines_of
from cluster.runner import Run, prepare, run
from node.spec import Machine
from node.spec_file import load_machine
from node.units import PS_PER_S

Published = float | tuple[float, float]
MACHINES = ("sn40l-node", "dgx-a100", "dgx-h100")


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

    def machine(self, name: str) -> Machine:
        """The machine ``name`` with what is set."""
        return machine_of(self.config(name))

    def inputs(self, command: str, machines: tuple[str, ...], settings: tuple[str, ...] = ()) -> Inputs:
        """What a row from runs with ``settings`` on ``machines`` rests on."""
        kinds: dict[str, list[str]] = {"derived": [], "assumed": []}
        for machine in machines:
            for figure in self.machine(machine).figures:
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


def predicted(found: Sequence[Row]) -> list[Row]:
    """The rows with a figure, not a range, of which the emulator was told nothing."""
    return [one for one in found if one.role == "predicted" and not isinstance(one.published, tuple)]


def headline(found: Sequence[Row]) -> float:
    """Mean absolute relative error over the predicted figures; ranges do not count: they are easily met."""
    errors = [abs(one.error) for one in predicted(found)]
    return sum(errors) / len(errors)


def as_json(found: Sequence[Row]) -> dict[str, object]:
    """``{"rows": [...]}`` and the headline error."""
    return {"rows": [asdict(one) for one in found], "headline_error": headline(found)}

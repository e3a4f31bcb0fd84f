"""What tests of simulations share: deployments, and runs after which every invariant is checked."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("COE_ENGINE", "python")  # tests look into it, and have parts of it replaced

from cluster.checkpoints.smollm2 import cached
from node.conservation import verify
from node.deployment import Deployment
from node.events import Command, Kind
from node.expert import Catalogue, ExpertGroup
from node.hardware.tiers import Completion
from node.models.decoder import decoder
from node.models.hugging_face import load_shape
from node.models.shape import Shape
from node.options import RuntimeOptions
from node.planned import Planned
from node.request import Request
from node.runtime.homes import Sharding
from node.runtime.ledger import CHARGES
from node.simulation import Simulation
from node.spec_file import load_machine
from node.units import MS, Picoseconds

settings.register_profile("patient", deadline=None)  # a machine may have other things to do
settings.load_profile("patient")
# A shell has what it starts in the background ignore Ctrl-C, and so would all that tests start and send it to.
signal.signal(signal.SIGINT, signal.default_int_handler)
FOREVER = 10**19
CLOCK = Shape("clock", layers=8, hidden=64, heads=8, kv_heads=8, head_dim=8, ffn=64, vocabulary=64, context=4096)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-golden", action="store_true", help="write the golden traces anew")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The file of SmolLM2-135M-Instruct."""
    path = cached()
    if not path.exists():
        pytest.skip(f"no {path}: make model fetches it")
    return path


@dataclass(frozen=True)
class Row:
    """A request that ended: its times in ps."""

    request: Request
    group: int
    end: Picoseconds
    ttft: Picoseconds
    charges: Mapping[str, Picoseconds]

    @property
    def e2e(self) -> Picoseconds:
        return self.end - self.request.arrival


@dataclass(frozen=True)
class Plan:
    """A command as planned, and what each kind of socket in the group answered."""

    command: Command
    completions: list[Completion]


@dataclass
class Outcome:
    """A simulation that was run to its end, checked; ``rows`` are those who were served."""

    deployment: Deployment
    simulation: Simulation
    rows: list[Row] = field(default_factory=list)  # in the order in which they ended
    windows: list[dict[int, Planned]] = field(default_factory=list)
    planned: dict[int, list[Plan]] = field(default_factory=dict)
    counters: dict[int, dict[str, int]] = field(default_factory=dict)

    def row(self, request: int) -> Row:
        return next(row for row in self.rows if row.request.id == request)

    def ms(self, request: int) -> dict[str, float]:
        """What a request was charged, in ms, without zeros."""
        return {what: time / MS for what, time in self.row(request).charges.items() if time}

    def kinds(self, group: int = 0) -> list[str]:
        """The names of a group's commands after deployment."""
        names = [Kind(plan.command.kind).name for plan in self.planned[group]]
        return [name for name in names if name != "LOAD"]

    def of_kind(self, kind: Kind, group: int = 0) -> list[Plan]:
        return [plan for plan in self.planned[group] if plan.command.kind == kind]

    def trace(self) -> list[tuple[int, ...]]:
        """Every command of every group with what each kind of socket answered."""
        commands = [plan for group in sorted(self.planned) for plan in self.planned[group]]
        return [(*plan.command, *(value for done in plan.completions for value in done)) for plan in commands]


@pytest.fixture(scope="session")
def simulate() -> Callable[..., Outcome]:
    """``simulate(deployment, requests, until)``: in windows that end at the times ``until``, then to the end.

    Every socket of the machine, newly made, replays each window; it must answer as planned. Everybody is served
    once, every request's charges add up, and every conservation law holds, or there is no outcome.
    """
    return _simulate


def _simulate(deployment: Deployment, requests: Sequence[Request], until: Iterable[Picoseconds] = ()) -> Outcome:
    simulation = deployment.simulation(requests)
    outcome = Outcome(deployment, simulation, planned={group: [] for group in range(deployment.groups)})
    sockets = [deployment.socket(index) for index in range(deployment.machine.sockets)]
    kinds = sorted(set(deployment.rank_kinds))
    for time in (*until, FOREVER):
        simulation.advance(time)
        outcome.windows.append({group: simulation.take(group) for group in range(deployment.groups)})
        for group, window in outcome.windows[-1].items():
            outcome.planned[group] += plans_of(window)
            for rank, kind in enumerate(deployment.rank_kinds):
                socket = sockets[group * deployment.degree + rank]
                found = socket.replay(window.columns)
                assert found.tolist() == window.expected[kinds.index(kind)].tolist(), socket.name
    assert simulation.over and simulation.next_event() is None
    columns = simulation.columns()
    for place, number in enumerate(simulation.served().tolist()):
        request = requests[number]
        times = {name: int(column[place]) for name, column in columns.items()}
        charges = {what: times[what] for what in CHARGES}
        row = Row(request, times["group"], request.arrival + times["e2e"], times["ttft"], charges)
        assert sum(charges.values()) == row.e2e and min(charges.values()) >= 0, row
        assert 0 < row.ttft <= row.e2e, row
        outcome.rows.append(row)
    outcome.rows.sort(key=lambda row: row.end)
    outcome.counters = {index: socket.counters() for index, socket in enumerate(sockets)}
    for index, counters in outcome.counters.items():
        group, rank = divmod(index, deployment.degree)
        assert counters == simulation.kinds[group][kinds.index(deployment.rank_kinds[rank])].counters()
    verify(deployment, simulation, outcome.counters, columns)
    return outcome


def plans_of(window: Planned) -> list[Plan]:
    """Command by command."""
    answers = [[Completion(*column) for column in found.T.tolist()] for found in window.expected]
    commands = map(Command._make, window.columns.T.tolist())
    return [Plan(command, list(of)) for command, *of in zip(commands, *answers, strict=True)]


@pytest.fixture(scope="session")
def deploy() -> Callable[..., Deployment]:
    """``deploy(machine, experts, router, degree, shapes, numbers, slots, sharding, **options)``: a deployment.

    ``experts``: (model, count) pairs; ``shapes``: models that are not built in; ``slots``: HBM is made to hold the
    router, the KV cache and so many experts of the largest model.
    """
    return _deploy


def _deploy(
    machine: str = "sn40l-node",
    experts: Sequence[tuple[str, int]] = (("llama-2-7b", 4),),
    router: str | None = None,
    degree: int = 8,
    shapes: Iterable[Shape] = (),
    numbers: Mapping[str, object] | None = None,
    slots: int | None = None,
    *,
    sharding: Sharding | None = None,
    **options: object,
) -> Deployment:
    catalogue = Catalogue(tuple(ExpertGroup(model, count) for model, count in experts), router)
    given = {shape.name: shape for shape in shapes}
    known = {model: given.get(model) or load_shape(model) for model, _ in catalogue.kinds()}
    made = RuntimeOptions(**options)  # type: ignore[arg-type]
    numbers = dict(numbers or {})
    parts = (catalogue, known, degree, made, sharding or Sharding())
    deployment = Deployment(load_machine(machine, numbers), *parts)
    if slots is None:
        return deployment
    sizes = deployment.settings.sizes
    router_size = sizes[-1].weights if router else 0
    largest = max(size.weights for size in sizes[: catalogue.count])
    programs = made.program_reserve if made.switching == "program" else 0
    numbers["hbm.capacity"] = f"{router_size + made.kv_reserve + slots * largest + programs} B"
    return Deployment(load_machine(machine, numbers), *parts)


@pytest.fixture(scope="session")
def clockwork() -> Callable[..., Deployment]:
    """A deployment in round numbers: copying an expert takes 10 ms, a call 2 ms, any pass over a model 1 ms.

    ``slots`` experts fit HBM, and the KV cache of ``kv_tokens``. The router, if one runs, generates 3 tokens: 3 ms.
    """

    def make(
        *,
        experts: int = 3,
        slots: int = 2,
        sockets: int = 1,
        degree: int = 1,
        kv_tokens: int = 1000,
        router: bool = False,
        shape: Shape = CLOCK,
        numbers: Mapping[str, object] | None = None,
        **options: object,
    ) -> Deployment:
        graph = decoder(shape, degree)
        at_once = dict.fromkeys(("hbm.bandwidth", "peer.bandwidth"), "1e15 TB/s") | {"compute.clock": "1e15 GHz"}
        nothing = dict.fromkeys(("peer.latency", "kernel.launch_ho", "pipeline.stage_latency"), "0 s")
        costs = {"kernel.sync": "100 us", "host.call_overhead": "2 ms"}  # 10 kernels a pass: the layers and 2
        copying = {"ddr.bandwidth": f"{100 * graph.weight_bytes} B/s", "ddr.efficiency": 1}
        return _deploy(
            experts=((shape.name, experts),),
            router=shape.name if router else None,
            degree=degree,
            shapes=(shape,),
            numbers={"sockets": sockets, **at_once, **nothing, **costs, **copying, **(numbers or {})},
            slots=slots,
            kv_reserve=kv_tokens * graph.kv_bytes_per_token,
            **{"router_tokens": 3, **options},
        )

    return make


@pytest.fixture(scope="session")
def requests() -> Callable[..., list[Request]]:
    """``requests((ms, input tokens, output tokens, expert), ...)``: arrivals in ms, in order."""

    def make(*rows: tuple[float, int, int, int]) -> list[Request]:
        return [Request(number, round(at * MS), *rest) for number, (at, *rest) in enumerate(rows)]

    return make

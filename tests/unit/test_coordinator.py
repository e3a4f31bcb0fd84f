"""Does a run end the same whoever dies on the way, and is what is kept for that bounded?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.backends import Deployments, LocalBackend, SocketLostError
from cluster.config import Config
from cluster.config_file import read_config
from cluster.coordinator import Coordinator
from cluster.deploy import window_of
from cluster.execution import CHECKPOINT_WINDOWS, MAX_RECOVERIES, Execution
from cluster.runner import Run, prepare, run
from cluster.socket_actor import share_out
from cluster.wire import pack, unpack
from node.errors import InvariantError
from node.events import ROW, Kind
from node.lane import NEVER

Step = tuple[str, int, int]  # an operation on an actor, the how-manieth of its kind: start, submit, collect


def config(**settings: object) -> Config:
    named = {key.replace("__", "."): value for key, value in settings.items()}
    own = {"cluster.backend": "local", "cluster.window": "1 s", "cluster.sockets_per_actor": 1, "experts.count": 60}
    return read_config(None, {**own, "workload.requests": 60, "workload.rate": 1.0, **named}.items())


class MortalBackend(LocalBackend):
    """Shells that die at the steps of ``deaths``, with all they held; ``log`` has every step and what it was given."""

    def __init__(self, deaths: Collection[Step] = ()) -> None:
        super().__init__()
        self.deaths, self.done = deaths, Counter[tuple[str, int]]()
        self.log: list[tuple[Step, Any]] = []
        self.stopped = 0

    def _step(self, operation: str, actor: int, given: object = None) -> None:
        self.done[operation, actor] += 1
        step = (operation, actor, self.done[operation, actor])
        self.log.append((step, given))
        if step in self.deaths:
            self._shells.pop(actor, None)
        elif operation == "start" or actor in self._shells:
            return
        raise SocketLostError(f"actor {actor} died at {step}")

    def start(self, actor: int, deployments: Deployments, checkpoint: bytes | None) -> None:
        self._step("start", actor, checkpoint)
        super().start(actor, deployments, checkpoint)

    def submit(self, actor: int, message: bytes) -> None:
        self._step("submit", actor, message)
        super().submit(actor, message)

    def collect(self, actor: int) -> bytes:
        self._step("collect", actor)
        return super().collect(actor)

    def stop(self) -> None:
        self.stopped += 1


def outcome(found: Run, folder: Path) -> tuple[object, ...]:
    """Everything that is written of a run."""
    found.timeline.write(folder / "timeline.json")
    columns = {name: column.tobytes() for name, column in found.columns.items()}
    return found.summary, columns, (folder / "timeline.json").read_bytes()


@pytest.fixture(scope="module")
def undisturbed() -> Run:
    settings = config()
    return run(settings, LocalBackend(), prepare(settings), timeline_limit=100_000)


@pytest.fixture
def coordinate() -> Iterator[Callable[..., tuple[Coordinator, Execution, list[int]]]]:
    """A coordinator of its own, not yet run; after each window the length of actor 3's journal is noted."""

    def make(backend: MortalBackend, settings: Config) -> tuple[Coordinator, Execution, list[int]]:
        deployment, workload = prepare(settings)
        simulation = deployment.simulation(workload.requests)
        lengths: list[int] = []
        made = Execution(
            deployment, simulation.kinds, backend, 1,
            lambda _planned, _mark: lengths.append(len(made.actors[3].journal)),
        )  # fmt: skip
        return Coordinator(simulation, window_of(settings), made.do), made, lengths

    yield make


def to_the_end(coordinator: Coordinator, execution: Execution) -> None:
    execution.start()
    while not coordinator.advance(NEVER):
        pass
    coordinator.finish()
    execution.finish()


# Recovery

LAST = CHECKPOINT_WINDOWS  # the window that ends with a checkpoint
DEATHS: dict[str, list[Step]] = {
    "with the first window": [("submit", 3, 1)],
    "before the first reply": [("collect", 3, 1)],
    "in the middle": [("collect", 3, 7)],
    "with the checkpoint": [("collect", 3, LAST)],
    "right after the checkpoint": [("submit", 3, LAST + 1)],
    "right after the second checkpoint": [("submit", 3, 2 * LAST + 1)],
    "twice": [("collect", 3, 5), ("collect", 3, 25)],
    "twice at one window": [("collect", 3, 5), ("collect", 3, 6)],
    "two at once": [("collect", 2, 9), ("collect", 3, 9)],
    "all at once": [("submit", actor, 20) for actor in range(8)],
    "when started again": [("collect", 3, 5), ("start", 3, 2)],
    "when sent the journal again": [("collect", 3, 5), ("submit", 3, 8)],
    "while doing the journal again": [("collect", 3, 5), ("collect", 3, 8)],
    "every time but the last": [("collect", 3, 5), *(("start", 3, 2 + n) for n in range(MAX_RECOVERIES - 1))],
}


@pytest.mark.parametrize("name", DEATHS)
def test_a_run_ends_the_same_whoever_dies(name: str, undisturbed: Run, tmp_path: Path) -> None:
    backend, settings = MortalBackend(DEATHS[name]), config()
    found = run(settings, backend, prepare(settings), timeline_limit=100_000)
    assert {step for step, _ in backend.log} >= set(DEATHS[name])  # they did die
    assert outcome(found, tmp_path) == outcome(undisturbed, tmp_path)
    assert backend.stopped == 1


def test_who_dies_again_and_again_is_given_up() -> None:
    backend, settings = MortalBackend([("collect", 3, n) for n in range(5, 100)]), config()
    with pytest.raises(SocketLostError, match="actor 3"):
        run(settings, backend, prepare(settings))
    assert backend.done["start", 3] == 1 + MAX_RECOVERIES
    assert {backend.done["start", actor] for actor in (0, 1, 2, 4, 5, 6, 7)} == {1}
    assert backend.stopped == 1


def test_deaths_far_apart_do_not_add_up(undisturbed: Run, tmp_path: Path) -> None:
    apart = CHECKPOINT_WINDOWS + 4  # more than what is done again after each
    deaths = [("collect", 3, apart * n) for n in range(1, MAX_RECOVERIES + 2)]
    backend, settings = MortalBackend(deaths), config(cluster__window="100 ms")
    found = run(settings, backend, prepare(settings), timeline_limit=100_000)
    assert backend.done["start", 3] - 1 > MAX_RECOVERIES
    assert outcome(found, tmp_path) == outcome(undisturbed, tmp_path)


def test_who_is_started_again_gets_its_checkpoint_and_what_came_after_it() -> None:
    backend, settings = MortalBackend([("collect", 3, LAST + 4)]), config()
    run(settings, backend, prepare(settings))
    sent = [given for (operation, actor, _), given in backend.log if (operation, actor) == ("submit", 3)]
    started = [given for (operation, actor, _), given in backend.log if (operation, actor) == ("start", 3)]
    assert sent[LAST + 4 : LAST + 8] == sent[LAST : LAST + 4]  # windows 17 to 20, once more
    assert len(sent) - 4 == backend.done["submit", 0]
    assert started[0] is None and list(unpack(started[1])) == ["3"]


def test_a_checkpoint_holds_the_sockets_of_its_actor_only() -> None:
    backend, settings = MortalBackend([("collect", 1, LAST + 2)]), config(cluster__sockets_per_actor=3)
    run(settings, backend, prepare(settings))
    checkpoints = [given for (operation, actor, _), given in backend.log if (operation, actor) == ("start", 1)]
    assert list(unpack(checkpoints[-1])) == ["3"]  # whose state is that of 4 and 5, too


def test_sockets_that_miscount_break_a_law_of_conservation() -> None:
    class Miscounting(LocalBackend):
        def collect(self, actor: int) -> bytes:
            reply = unpack(super().collect(actor))
            reply["counters"][actor]["copied"] += 1
            return pack(reply)

    settings = config(workload__requests=5)
    with pytest.raises(InvariantError, match="bytes copied in group 0"):
        run(settings, Miscounting(), prepare(settings))


# Windows


def test_the_journal_is_cut_at_each_checkpoint(coordinate: Callable[..., Any]) -> None:
    coordinator, execution, lengths = coordinate(MortalBackend(), config())
    to_the_end(coordinator, execution)
    assert len(lengths) > 2 * LAST  # windows
    assert lengths == [(window + 1) % LAST for window in range(len(lengths))]
    assert all(actor.checkpoint is not None for actor in execution.actors)


def test_checkpoints_are_asked_for_every_sixteenth_window_and_do_not_grow(coordinate: Callable[..., Any]) -> None:
    backend = MortalBackend()
    coordinator, execution, _ = coordinate(backend, config(workload__requests=200, experts__count=5))
    sizes = []
    execution.observe = lambda _planned, _mark: sizes.append(len(execution.actors[0].checkpoint or b""))
    to_the_end(coordinator, execution)
    asked = [unpack(given)["checkpoint"] for (operation, actor, _), given in backend.log
             if (operation, actor) == ("submit", 0)]  # fmt: skip
    assert asked == [(window + 1) % LAST == 0 for window in range(len(asked))]
    assert sizes[LAST - 2] == 0 < sizes[LAST - 1]
    assert sizes[-1] < 1.5 * sizes[LAST - 1]


def test_a_window_is_planned_while_the_one_before_it_executes(coordinate: Callable[..., Any]) -> None:
    backend = MortalBackend()
    coordinator, execution, _ = coordinate(backend, config())
    planned: list[int] = []  # of each window, the virtual time of the plan when its reply is asked for

    def collect(actor: int) -> bytes:
        if actor == 0:
            planned.append(coordinator.simulation.now)
        return LocalBackend.collect(backend, actor)

    backend.collect = collect  # type: ignore[method-assign]
    to_the_end(coordinator, execution)
    issued = [max(unpack(given)["streams"][0][3]) for (operation, actor, _), given in backend.log
              if (operation, actor) == ("submit", 0)]  # fmt: skip
    assert len(issued) == len(planned) > 20
    assert all(now > this_issued for now, this_issued in zip(planned[:-1], issued, strict=False))


def test_every_command_is_decided_in_its_window(coordinate: Callable[..., Any]) -> None:
    """A task's later stages are issued beyond it, but nothing is decided there: KV ranges begin with a task."""
    backend = MortalBackend()
    coordinator, execution, _ = coordinate(backend, config())
    to_the_end(coordinator, execution)
    windows = [unpack(given)["streams"][0] for (operation, actor, _), given in backend.log
               if (operation, actor) == ("submit", 0)]  # fmt: skip
    decided = [columns[ROW["issued"]][columns[ROW["kind"]] <= Kind.FREE].tolist() for columns in windows]
    seconds = [{time // 10**12 for time in times} for times in decided if times]
    assert all(len(of_window) == 1 for of_window in seconds) and len(seconds) > 20
    assert [max(one) for one in seconds] == sorted({max(one) for one in seconds})


def test_spans_in_which_nothing_happens_are_passed_over(coordinate: Callable[..., Any]) -> None:
    backend = MortalBackend()
    sparse = config(workload__rate=1e-5, workload__requests=3, workload__arrivals="fixed", workload__output_tokens=2)
    coordinator, execution, _ = coordinate(backend, sparse)
    to_the_end(coordinator, execution)
    assert coordinator.simulation.now > 2 * 10**5 * 10**12 - 10**12
    assert 3 <= backend.done["submit", 0] <= 6


def test_windows_and_actors_of_any_size_come_to_the_same(undisturbed: Run, tmp_path: Path) -> None:
    for window, per_actor in (("10 ms", 8), ("7 s", 3), ("3600 s", 1), ("1e6 s", 10**6)):
        settings = config(cluster__window=window, cluster__sockets_per_actor=per_actor)
        found = run(settings, LocalBackend(), prepare(settings), timeline_limit=100_000)
        assert outcome(found, tmp_path) == outcome(undisturbed, tmp_path)


def test_sockets_are_shared_out_in_order() -> None:
    assert [list(sockets) for sockets in share_out(8, 3)] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert [list(sockets) for sockets in share_out(8, 1)] == [[socket] for socket in range(8)]
    assert [list(sockets) for sockets in share_out(8, 100)] == [list(range(8))]

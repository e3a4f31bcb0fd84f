"""A run whose sockets work in a process beside is the run of one process, its faults included."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from cluster.backends import LocalBackend, SocketLostError
from cluster.config_file import read_config
from cluster.disagreement import DisagreementError
from cluster.metrics.reading import Reading
from cluster.nodes import doing
from cluster.nodes import serve as serving
from cluster.nodes.beside import Beside
from cluster.nodes.live import Live
from cluster.nodes.node import State
from cluster.nodes.pauses import Pauses
from cluster.pace import Pace
from cluster.runner import Run, prepare, run
from cluster.wire import pack
from node.errors import InvariantError
from tests.differential.tampering import SETTINGS, Tampered, serve

SHAPES = {
    "many windows and checkpoints": {"cluster__window": "200 ms"},
    "one window": {"cluster__window": "auto"},
    "sockets by themselves": {"cluster__sockets_per_actor": 8},
    "two groups": {
        "sharding__tensor_parallel": 4,
        "machine__hbm__capacity": "32 GiB",
        "machine__ddr__capacity": "1 TiB",
    },
    "prefetch": {"runtime__prefetch": True},
}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Beside]:
    """The processes that were made; however short, a run may have one."""
    found: list[Beside] = []

    def make(of):
        found.append(Beside(of))
        return found[-1]

    monkeypatch.setattr(serving, "MANY", 1)
    monkeypatch.setattr(doing, "Beside", make)
    return found


def everything(found: Run) -> list[object]:
    columns = {name: column.tolist() for name, column in found.columns.items()}
    residents = {name: np.asarray(value).tolist() for name, value in vars(found.residents).items()}
    return [found.summary, columns, residents, found.timeline]


@pytest.mark.parametrize("settings", SHAPES.values(), ids=SHAPES)
def test_it_changes_no_result(made, settings):
    alone, beside = (serve(LocalBackend(cores), **settings) for cores in (1, 2))
    assert len(made) == 1
    assert everything(beside) == everything(alone)


def test_how_far_it_is_is_told_by_window(made):
    config = read_config(None, SETTINGS.items())
    told: dict[int, list[State]] = {}
    for cores in (1, 2):
        run(config, LocalBackend(cores), prepare(config), Live(watch=told.setdefault(cores, []).append))
    assert len(told[1]) > 3 and told[2] == told[1] and len(made) == 1


@pytest.mark.parametrize(
    "settings", [*SHAPES.values(), {"runtime__queue_limit": 2}], ids=[*SHAPES, "queues with a limit"]
)
def test_its_metrics_are_the_same_after_every_window(made, settings):
    config = read_config(
        None, {**SETTINGS, **{key.replace("__", "."): value for key, value in settings.items()}}.items()
    )
    posted: dict[int, list[Reading]] = {}
    for cores in (1, 2):
        readings = posted.setdefault(cores, [])
        metered = Live(metered=np.arange(3), post=lambda _node, reading, readings=readings: readings.append(reading))
        run(config, LocalBackend(cores), prepare(config), metered)
    assert len(made) == 1 and len(posted[1]) == posted[1][-1].windows
    assert [pack(one.as_message()) for one in posted[2]] == [pack(one.as_message()) for one in posted[1]]


def test_a_short_run_and_one_that_is_followed_have_none(made, monkeypatch):
    config = read_config(None, SETTINGS.items())
    windows: list[object] = []
    run(config, LocalBackend(2), prepare(config), observe=windows.append)
    run(config, LocalBackend(2), prepare(config), Live(pace=Pace(1e9)))
    assert windows and not made
    monkeypatch.undo()
    serve(LocalBackend(2))
    assert not made


def test_a_socket_that_does_something_else_is_found_all_the_same(made):
    def late(window: int, columns):
        columns[0, -1] += window == 2
        return columns

    texts = []
    for cores in (1, 2):
        backend = Tampered(result=late)
        backend.cores = cores
        with pytest.raises(DisagreementError) as error:
            serve(backend)
        texts.append(str(error.value))
    assert len(made) == 1 and texts[0] == texts[1]


def test_a_plan_that_its_representatives_do_not_keep_is_found_all_the_same(made, monkeypatch):
    do = doing.Doing.do

    def hasty(self, planned, mark):
        for plan in planned.values():
            plan.ends[:] -= 1
        do(self, planned, mark)

    monkeypatch.setattr(doing.Doing, "do", hasty)
    with pytest.raises(InvariantError, match="is planned to end at"):
        serve(LocalBackend(2))
    assert len(made) == 1


def test_a_process_that_is_killed_ends_the_run(made, monkeypatch):
    do = doing.DoingBeside.do

    def killing(self, planned, mark):
        do(self, planned, mark)
        os.kill(made[0].pid, signal.SIGKILL)

    monkeypatch.setattr(doing.DoingBeside, "do", killing)
    with pytest.raises(SocketLostError, match="exit code -9"):
        serve(LocalBackend(2))


class EnoughError(Exception):
    """The run is put aside."""


@pytest.mark.parametrize("window", [2, 5])
@pytest.mark.parametrize(("first", "second"), [(2, 2), (1, 2), (2, 1)])
def test_a_run_that_is_put_aside_goes_on_with_its_sockets_beside_or_not(made, first, second, window):
    settings = read_config(None, {**SETTINGS, "cluster.window": "200 ms"}.items())
    kept: list[bytes] = []
    asked = iter(range(1, 10_000))

    def keep(state: bytes) -> None:
        kept.append(state)
        raise EnoughError

    aside = Live(pauses=Pauses(lambda: next(asked) == window, keep))
    with pytest.raises(EnoughError):
        run(settings, LocalBackend(first), prepare(settings), aside)
    goes_on = Live(pauses=Pauses(begun=kept[0]))
    found = run(settings, LocalBackend(second), prepare(settings), goes_on)
    assert len(made) == [first, second].count(2)
    assert everything(found) == everything(run(settings, LocalBackend(), prepare(settings)))

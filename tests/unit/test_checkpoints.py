"""Is a checkpoint written when it is due, whole, and said once?"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.config_file import read_config
from cluster.nodes.node import State
from cluster.output import Written
from cluster.resuming.checkpoints import Checkpoints, StoppedError
from cluster.resuming.partial_run import CHECKPOINT, Begun, read_checkpoint
from cluster.resuming.stopping import Stop
from cluster.runner import prepare
from node.errors import InputError

S = 10**12
Make = Callable[..., Any]  # see ``make``


@pytest.fixture(scope="module")
def begun() -> Begun:
    config = read_config(None, [("workload.requests", 9), ("cluster.backend", "local")])
    return Begun(config, prepare(config), Written("a"), None)


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def make(begun: Begun, tmp_path: Path) -> Make:
    """``make(every_s)``: checkpoints, their clock, what says to stop, and what is noted."""

    def made(every_s: float | None) -> tuple[Checkpoints, Clock, Stop, list[str]]:
        clock, stop, notes = Clock(), Stop(), list[str]()
        return Checkpoints(begun, tmp_path / "a.partial", every_s, stop, notes.append, Path, clock), clock, stop, notes

    return made


def test_one_is_due_so_long_after_the_one_before(make: Make) -> None:
    kept, clock, _, notes = make(10.0)
    for since, due in ((0.0, False), (9.9, False), (10.0, True), (25.0, True)):
        clock.now = 50.0 + since
        assert kept.due() is due
    kept.keep(b"state")
    assert not kept.due()
    clock.now += 10
    assert kept.due()
    kept.keep(b"more")
    assert len(notes) == 1 and notes[0].endswith("a.partial")


def test_without_being_asked_one_is_due_when_told_to_stop(make: Make, tmp_path: Path, begun: Begun) -> None:
    kept, clock, stop, notes = make(None)
    clock.now += 10**6
    assert not kept.due() and not kept.stopping()
    stop.by = signal.SIGTERM
    assert kept.due() and kept.stopping()
    seen: list[State] = []
    kept.watching(seen.append)(State(3 * S, 4, 1, 2))
    with pytest.raises(StoppedError) as told:
        kept.keep(b"state")
    assert str(told.value).startswith("stopped by SIGTERM at virtual time 3 s, 4 of 9 requests done; to go on: coe run")
    assert (told.value.exit_code, notes, seen) == (143, [], [State(3 * S, 4, 1, 2)])
    found = read_checkpoint(tmp_path / "a.partial")
    assert (found.state, found.written, found.config) == (b"state", Written("a"), begun.config)
    head = json.loads((tmp_path / "a.partial" / CHECKPOINT).open("rb").readline())
    assert head["how_far"] == {"virtual_s": 3.0, "completed": 4, "requests": 9}


def test_one_that_cannot_be_written_leaves_the_one_before(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, *_ = make(1.0)
    kept.keep(b"first")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cluster.resuming.partial_run.pickle.dump", full)
    with pytest.raises(InputError, match=r"a\.partial: no checkpoint can be written: No space left on device"):
        kept.keep(b"second")
    assert read_checkpoint(tmp_path / "a.partial").state == b"first"
    assert [path.name for path in (tmp_path / "a.partial").iterdir()] == [CHECKPOINT]


def test_every_byte_of_one_counts(make: Make, tmp_path: Path) -> None:
    kept, *_ = make(1.0)
    kept.keep(b"state")
    path = tmp_path / "a.partial" / CHECKPOINT
    whole = path.read_bytes()
    for place in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"is damaged|is no checkpoint|other code|made with"):
            read_checkpoint(path.parent)
    for size in (*range(0, len(whole), len(whole) // 20), len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"is damaged|is no checkpoint"):
            read_checkpoint(path.parent)

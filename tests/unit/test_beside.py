"""An object in a process of its own: what is said to it is done in order, and how either process ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cluster.backends import SocketLostError
from cluster.nodes.beside import Beside
from node.errors import HardwareError, RefusedError

LONGEST_S = 60  # that is waited for what happens at once


class Notes:
    """What it was told so far."""

    def __init__(self) -> None:
        self.said: list[object] = []

    def note(self, *what: object) -> None:
        self.said.append(what)

    def all(self) -> list[object]:
        return self.said

    def pid(self) -> int:
        return os.getpid()

    def refuse(self) -> None:
        raise RefusedError("command 7: no", np.zeros((4, 10**6), dtype=np.int64))

    def fail(self, what: str) -> None:
        raise ValueError(what)


@pytest.fixture
def beside() -> Iterator[Callable[..., Beside]]:
    made: list[Beside] = []

    def make(of: Callable[[], object] = Notes) -> Beside:
        made.append(Beside(of))
        return made[-1]

    yield make
    for one in made:
        one.end()


def gone(pid: int) -> bool:
    """Waits until there is no such process, or it is over and only its parent has to be told."""
    for _ in range(LONGEST_S * 100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state in "ZX":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


def test_what_it_is_told_is_done_in_order_in_another_process(beside):
    one = beside()
    for number in range(100):
        one.tell("note", number)
    assert one.ask("all") == [(number,) for number in range(100)]
    assert one.ask("pid") == one.pid != os.getpid()


def test_it_begins_as_a_copy_and_nothing_of_it_comes_back(beside):
    notes = Notes()
    notes.note("before")
    one = beside(lambda: notes)
    notes.note("here")
    one.tell("note", "there")
    assert one.ask("all") == [("before",), ("there",)] and notes.said == [("before",), ("here",)]


def test_what_it_raises_is_raised_by_what_is_said_next_and_says_where(beside):
    one = beside()
    one.tell("fail", "of its own accord")
    with pytest.raises(ValueError, match="of its own accord") as error:
        one.ask("all")
    assert "in fail" in error.value.__notes__[0]


def test_an_error_is_heard_even_where_nobody_asks_and_much_more_is_told(beside):
    one, much = beside(), np.zeros(10**6)
    with pytest.raises(ValueError, match="early"):
        one.tell("fail", "early")
        for _ in range(1000):  # beyond what a pipe holds
            one.tell("note", much)


def test_a_refusal_comes_without_the_window_that_it_ended(beside):
    one = beside()
    with pytest.raises(HardwareError, match="command 7: no") as error:
        one.ask("refuse")
    assert not isinstance(error.value, RefusedError)


def test_an_error_in_making_it_is_heard(beside):
    def make() -> object:
        raise ValueError("cannot be made")

    one = beside(make)
    with pytest.raises(ValueError, match="cannot be made"):
        one.ask("all")


def test_what_came_of_a_thing_is_heard_once_and_before_the_next(beside):
    one = beside()
    assert one.hear() is None
    one.tell("all")
    assert one.hear() == [] and one.hear() is None
    one.tell("pid")
    assert one.ask("all") == []


@pytest.mark.parametrize("say", ["tell", "ask"])
def test_a_process_that_is_killed_is_missed(beside, say):
    one = beside()
    assert one.ask("all") == []
    os.kill(one.pid, signal.SIGKILL)
    assert gone(one.pid)
    with pytest.raises(SocketLostError, match="exit code -9"):
        getattr(one, say)("note", 1)
        one.hear()


def test_it_ends_when_it_is_not_needed(beside):
    one = beside()
    one.tell("note", 1)
    one.end()
    assert gone(one.pid)


def test_a_terminals_interrupt_is_for_the_other_process(beside):
    one = beside()
    for number in range(3):  # as it begins, and later on
        os.kill(one.pid, signal.SIGINT)
        one.tell("note", number)
        assert one.ask("all")[number:] == [(number,)]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)  # which this one still hears


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_does_not_outlive_the_process_that_began_it(how):
    program = (
        "import time; from cluster.nodes.beside import Beside; from tests.unit.test_beside import Notes\n"
        "one = Beside(Notes); print(one.ask('pid'), flush=True); time.sleep(1000)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    with process.stdout:
        pid = int(process.stdout.readline())
    process.send_signal(how)
    process.wait(LONGEST_S)
    assert gone(pid)

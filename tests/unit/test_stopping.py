"""Is a signal noted, once, and what was there before put back?"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from cluster.resuming.stopping import SIGNALS, told_to_stop


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted_and_the_second_does_what_it_did(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[int] = []
    before = signal.signal(number, lambda found, _frame: seen.append(found))
    try:
        with told_to_stop() as stop:
            assert stop.by is None
            os.kill(os.getpid(), number)
            assert (stop.by, seen) == (number, [])
            assert "once more stops at once" in capfd.readouterr().err
            os.kill(os.getpid(), number)
            assert seen == [number] and capfd.readouterr().err == ""
    finally:
        signal.signal(number, before)


def test_afterwards_signals_do_what_they_did() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with told_to_stop():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.fixture
def by_default() -> Iterator[None]:
    """SIGTERM ends a process at once, whatever a library that a test before used made of it (Ray raises SystemExit)."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


def lets_the_first_pass(write: int) -> None:
    """Say when one is there and when the first signal has passed; then wait for the second."""
    noting = signal.getsignal(signal.SIGTERM)
    os.write(write, b"there")
    while signal.getsignal(signal.SIGTERM) is noting:
        time.sleep(0.01)
    os.write(write, b"still")
    time.sleep(60)


@pytest.mark.usefixtures("by_default")
def test_a_process_that_is_forked_lets_the_first_pass_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    read, write = os.pipe()
    with told_to_stop() as stop:
        child = os.fork()
        if not child:
            try:
                lets_the_first_pass(write)
            finally:
                os._exit(0)  # whatever was raised: or there were a second pytest
        os.close(write)
        assert os.read(read, 5) == b"there"
        os.kill(child, signal.SIGTERM)
        assert os.read(read, 5) == b"still"
        os.kill(child, signal.SIGTERM)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM
        assert stop.by is None and capfd.readouterr().err == ""
    os.close(read)

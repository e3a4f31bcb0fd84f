"""Is a signal noted, once, and what was there before put back?"""

from __future__ import annotations

import os
import signal

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

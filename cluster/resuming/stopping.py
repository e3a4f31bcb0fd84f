"""A run that is told to stop, by SIGTERM or Ctrl-C, notes it; the next time that it may stop, it does."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass

SIGNALS = (signal.SIGTERM, signal.SIGINT)
NOTE = b"coe: stopping when this window is done; once more stops at once, without a checkpoint\n"


@dataclass
class Stop:
    """``by``: the signal that said so, if one did."""

    by: signal.Signals | None = None


@contextlib.contextmanager
def told_to_stop() -> Iterator[Stop]:
    """Note the first of ``SIGNALS`` that comes within the block; the second does what it did before.

    Entered after Ray has been joined, which sets handlers of its own. Ray sends a job's signal to all its processes;
    one that is forked within the block lets the first pass, for it is needed to the end of the window.
    """
    own, stop, before = os.getpid(), Stop(), {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _frame: object) -> None:
        stop.by = signal.Signals(number)
        restore()
        if os.getpid() == own:
            os.write(sys.stderr.fileno(), NOTE)  # a handler may come in the middle of a print

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        restore()

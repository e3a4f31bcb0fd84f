"""A second process for one object, so that what it is told to do is done while this one goes on.

It is a fork: it begins as a copy of this process, so nothing is made or imported twice. It does integer arithmetic and
takes no lock that another thread may have held, and it ends when this process does, however that ends.
"""

from __future__ import annotations

import contextlib
import signal
import traceback
import warnings
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection

from cluster.backends import SocketLostError
from node.errors import HardwareError, RefusedError


class Beside:
    """An object that ``make`` makes in a process of its own: ``tell`` it and ``hear`` what came of it, or ``ask`` it.

    What it raises is raised here when it is heard; it does nothing more then. ``SocketLostError`` where the process is
    gone. One thing is under way at a time: so it is listening whenever it is told something, and neither waits for the
    other to read.
    """

    def __init__(self, make: Callable[[], object]) -> None:
        context = get_context("fork")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(make, there, self._here), daemon=True)
        with warnings.catch_warnings():  # Python 3.12 warns of numpy's threads, which do nothing here
            warnings.simplefilter("ignore", DeprecationWarning)
            # a terminal's interrupt comes to both; the process does not hear it, for this one says when it is over
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                self._process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        there.close()
        self._unheard = False

    @property
    def pid(self) -> int | None:
        """Of the process."""
        return self._process.pid

    def tell(self, method: str, *values: object) -> None:
        """Have it do something, once it has done what it was told before; what came of that is heard before this."""
        self.hear()
        with contextlib.suppress(ConnectionError):  # why, is said when it is heard
            self._here.send((method, values))
        self._unheard = True

    def hear(self) -> object:
        """What came of what it was told last; None where that was heard already."""
        if not self._unheard:
            return None
        self._unheard = False
        try:
            error, answer = self._here.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            raise SocketLostError(
                f"the process that does the work of the sockets is gone, with exit code {self._process.exitcode}"
            ) from None
        if error is not None:
            raise error
        return answer

    def ask(self, method: str, *values: object) -> object:
        """``tell`` and ``hear``."""
        self.tell(method, *values)
        return self.hear()

    def end(self) -> None:
        """It is not needed any more, and is not waited for: it has a run's memory to give back."""
        self._here.close()


def _serve(make: Callable[[], object], there: Connection, here: Connection) -> None:
    here.close()  # or nobody would notice that the other process is gone
    with contextlib.suppress(EOFError, ConnectionError):
        try:
            made = make()
            while True:
                method, values = there.recv()
                there.send((None, getattr(made, method)(*values)))
        except (EOFError, ConnectionError):
            raise
        except Exception as error:
            told = HardwareError(str(error)) if isinstance(error, RefusedError) else error  # without all that was done
            told.add_note(traceback.format_exc())
            there.send((told, None))
            while True:  # it is said to whatever else it is told
                there.recv_bytes()
                there.send((told, None))

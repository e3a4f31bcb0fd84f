"""When a run writes a checkpoint: every so often where it was asked to, and when it is told to stop."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from cluster.nodes.node import State
from cluster.nodes.pauses import Pauses
from cluster.output import new_folder
from cluster.resuming.partial_run import SUFFIX, Begun, write_checkpoint
from cluster.resuming.stopping import Stop
from node.units import PS_PER_S, show_seconds


class StoppedError(RuntimeError):
    """A run stopped because it was told to; its checkpoint is written."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass
class Checkpoints:
    """Those of ``begun``, in ``folder`` (None: a new one under ``runs/``), every ``every_s`` (None: when told to stop).

    ``note`` is told of the first one, from which the run could go on if it were killed; ``shown``: how a path is.
    """

    begun: Begun
    folder: Path | None
    every_s: float | None
    stop: Stop
    note: Callable[[str], None]
    shown: Callable[[Path], Path]
    clock: Callable[[], float] = time.monotonic
    _state: State = field(init=False, default=State(0, 0, 0, 0))
    _written: bool = field(init=False, default=False)
    _last: float = field(init=False)

    def __post_init__(self) -> None:
        self._last = self.clock()

    @property
    def pauses(self) -> Pauses:
        """For the run."""
        return Pauses(self.due, self.keep, self.begun.state)

    def watching(self, watch: Callable[[State], None]) -> Callable[[State], None]:
        """To be told how far the run is, as ``watch`` is."""

        def both(state: State) -> None:
            self._state = state
            watch(state)

        return both

    def stopping(self) -> bool:
        """Whether the run was told to stop."""
        return self.stop.by is not None

    def due(self) -> bool:
        """Whether to write one now."""
        return self.stopping() or (self.every_s is not None and self.clock() - self._last >= self.every_s)

    def keep(self, state: bytes) -> None:
        """Write one; ``StoppedError`` where the run was told to stop."""
        requests, far = len(self.begun.prepared[1].requests), self._state
        if self.folder is None:
            self.folder = new_folder("run", SUFFIX)
        how_far = {"virtual_s": far.now / PS_PER_S, "completed": far.completed, "requests": requests}
        write_checkpoint(self.folder, replace(self.begun, state=state), how_far)
        self._last = self.clock()
        to_go_on = f"coe run --resume {self.shown(self.folder)}"
        if self.stop.by is not None:
            raise StoppedError(
                f"stopped by {self.stop.by.name} at virtual time {show_seconds(far.now / PS_PER_S)}, "
                f"{far.completed:,} of {requests:,} requests done; to go on: {to_go_on}",
                128 + self.stop.by,
            )
        if not self._written:
            self.note(f"to go on from the last checkpoint, should the run be lost: {to_go_on}")
            self._written = True

    def remove(self) -> None:
        """The run is over, and its results are written."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

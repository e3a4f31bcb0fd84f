"""What a checkpoint costs: to have sockets come to rest and pack the run, to write it, to read it, and its size.

``python -m tests.benchmarks.checkpoints [requests]``; one about every tenth of the run. Nothing here asserts.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from cluster.backends import LocalBackend
from cluster.config_file import read_config
from cluster.cycles import no_search_for_cycles
from cluster.nodes.course import Course
from cluster.nodes.live import Live
from cluster.nodes.pauses import Pauses
from cluster.output import Written
from cluster.resuming.partial_run import CHECKPOINT, Begun, read_checkpoint, write_checkpoint
from cluster.runner import prepare, run

REQUESTS = 1_000_000
SETTINGS: dict[str, object] = {
    "cluster.backend": "local", "workload.input_tokens": 128, "workload.output_tokens": 20, "workload.rate": 40.0,
}  # fmt: skip
HEAD = "| requests done | pack, s | write, s | read, s | MB |\n|---:|---:|---:|---:|---:|"


class Timed:
    """Takes a checkpoint of the run each time that another tenth of ``requests`` is done."""

    def __init__(self, begun: Begun, requests: int, folder: Path) -> None:
        self.begun, self.requests, self.folder = begun, requests, folder
        self.done, self.next, self.asked = 0, requests // 10, 0.0

    def due(self) -> bool:
        """Whether it is."""
        self.asked = time.perf_counter()
        return self.done >= self.next

    def keep(self, state: bytes) -> None:
        """Measure one."""
        packed = time.perf_counter()
        write_checkpoint(self.folder, Begun(*list(vars(self.begun).values())[:4], state), {})
        written = time.perf_counter()
        with no_search_for_cycles():
            found = read_checkpoint(self.folder).state
            assert found is not None
            Course.unpacked(found)
        read, size = time.perf_counter(), (self.folder / CHECKPOINT).stat().st_size
        times = " | ".join(f"{s:.2f}" for s in (packed - self.asked, written - packed, read - written))
        print(f"| {self.done:,} | {times} | {size / 1e6:.0f} |", flush=True)
        self.next = self.done + self.requests // 10


def main() -> None:
    """One run."""
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else REQUESTS
    config = read_config(None, {**SETTINGS, "workload.requests": requests}.items())
    prepared = prepare(config)
    print(HEAD)
    with tempfile.TemporaryDirectory() as folder:
        timed = Timed(Begun(config, prepared, Written(), None), requests, Path(folder))
        live = Live(lambda state: setattr(timed, "done", state.completed), pauses=Pauses(timed.due, timed.keep))
        run(config, LocalBackend(), prepared, live)


if __name__ == "__main__":
    main()

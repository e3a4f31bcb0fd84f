"""The most memory that a stretch of work held."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def forget_peak() -> None:
    """Begin anew, where the kernel lets us (Linux); elsewhere the peak is that since the process began."""
    with suppress(OSError):
        RESET.write_text("5")


def peak_bytes() -> int:
    """The most that was resident since ``forget_peak``."""
    with suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

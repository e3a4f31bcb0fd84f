"""Whose children processes are, where they listen, and how all of them are ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

Address = IPv4Address | IPv6Address
PARENT, STARTED = 4 - 3, 22 - 3  # fields of /proc/PID/stat, from the state on


def _stat(pid: int) -> list[str]:
    """Of /proc/PID/stat all from the state on, which is field 3; ``OSError`` where there is no such process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, and see that none of its offspring stays; numbers may have gone to others meanwhile."""
    family: dict[int, str] = {}
    for pid in family_of(process.pid):
        with contextlib.suppress(OSError):
            family[pid] = _stat(pid)[STARTED]
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    for pid, started in family.items():
        with contextlib.suppress(OSError):
            if _stat(pid)[STARTED] == started:
                os.kill(pid, signal.SIGKILL)
    process.wait()


def family_of(pid: int) -> set[int]:
    """A process and its offspring, by /proc."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(entry.name)] = int(_stat(int(entry.name))[PARENT])
    family, size = {pid}, 0
    while size < len(family):
        size = len(family)
        family |= {child for child, parent in parents.items() if parent in family}
    return family


def listening_at(pid: int) -> set[tuple[Address, int]]:
    """Addresses and TCP ports at which a process or one of its offspring listens, by /proc."""
    sockets = set()
    for member in family_of(pid):
        with contextlib.suppress(OSError):
            sockets |= {str(entry.readlink()) for entry in Path(f"/proc/{member}/fd").iterdir()}
    found: set[tuple[Address, int]] = set()
    for table, kind in (("tcp", IPv4Address), ("tcp6", IPv6Address)):
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = row.split()
            if state == "0A" and f"socket:[{rest[5]}]" in sockets:  # 0A: it listens
                where, _, port = local.partition(":")
                words = bytes.fromhex(where)  # each of 4 bytes, the last one first
                address = kind(b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4)))
                found.add((getattr(address, "ipv4_mapped", None) or address, int(port, 16)))
    return found

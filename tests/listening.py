"""Whose children processes are, and where they listen."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

Address = IPv4Address | IPv6Address


def family_of(pid: int) -> set[int]:
    """A process and its offspring, by /proc."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
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

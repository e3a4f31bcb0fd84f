"""The host of a node: what it spends on calls, and its one link where the sockets share it."""

from __future__ import annotations

from node.spec import Machine
from node.units import Picoseconds, to_ps


class Host:
    """Calls take their fixed cost one after another within a group; a shared link serves one group at a time."""

    def __init__(self, machine: Machine) -> None:
        self.call_ps: Picoseconds = to_ps(machine.host.call_overhead, "a call")
        self.shared = machine.host_link is not None and machine.host_link.sharing == "shared"
        self._link_free: Picoseconds = 0

    def call(self, calls: int, now: Picoseconds) -> Picoseconds:
        """When ``calls`` calls made at ``now`` are ready."""
        return now + calls * self.call_ps

    def grant(self, now: Picoseconds) -> Picoseconds:
        """When a copy asked for at ``now`` gets the link."""
        return max(now, self._link_free) if self.shared else now

    def release(self, at: Picoseconds) -> None:
        """The copy that was granted the link last ends at ``at``."""
        self._link_free = max(self._link_free, at)

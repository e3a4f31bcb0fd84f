"""The resource ``socket`` of a Ray cluster: how many emulated sockets each of its machines is there for.

A cluster that has none of it takes actors wherever Ray likes. On one that has, an actor goes where there is room for
the sockets that it is at work on at a time: where each of eight pods has one, eight sockets run on eight pods.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray

from node.errors import InputError

SOCKET = "socket"


class OfferedSockets:
    """Sockets ``by_machine`` of a cluster as a run begins; machines may go and come meanwhile."""

    def __init__(self, by_machine: Sequence[int]) -> None:
        self._by_machine = [sockets for sockets in by_machine if sockets]
        self._asked: dict[int, int] = {}

    @classmethod
    def now(cls) -> OfferedSockets:
        """What the cluster offers that this process is connected to."""
        machines: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        return cls([int(one["Resources"].get(SOCKET, 0)) for one in machines if one["Alive"]])

    def __bool__(self) -> bool:
        """Whether it offers any: if not, nothing is asked of it."""
        return bool(self._by_machine)

    def places(self, sockets: int) -> int:
        """For how many actors, each at work on so many ``sockets`` at a time, there is room."""
        return sum(there // sockets for there in self._by_machine)

    def ask(self, actor: int, sockets: int) -> dict[str, float]:
        """What Ray is to be asked for an actor; ``InputError`` where it is new and there can be no room for it."""
        if not self:
            return {}
        if actor not in self._asked:
            self._check(sockets)
            self._asked[actor] = sockets
        return {SOCKET: sockets}

    def _check(self, sockets: int) -> None:
        total, most, asked = sum(self._by_machine), max(self._by_machine), sum(self._asked.values()) + sockets
        if sockets > most:
            raise InputError(
                f"there is no place for an actor of {sockets} sockets: of the resource {SOCKET!r} a machine of the Ray "
                f"cluster offers at most {most}; start workers that offer more, or set machine.sockets or "
                "cluster.sockets_per_actor lower"
            )
        if asked > total:
            raise InputError(
                f"{asked} sockets or more are asked for, and of the resource {SOCKET!r} the Ray cluster offers {total}"
                "; start more workers, or set machine.sockets or cluster.node_workers lower"
            )

"""The shell around sockets: it takes windows of commands, has each of its sockets do them, and sends back what came.

One shell holds ``sockets_per_actor`` sockets. It runs in a Ray actor or, for the local backend, in the process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cluster.wire import pack, unpack
from node.deployment import Deployment
from node.errors import RefusedError
from node.hardware.rdu import Rdu


class SocketShell:
    """Sockets of ``deployments`` (by socket index: each has its own), new or as a ``checkpoint`` left them.

    Sockets of one group with equal shards of one and the same deployment get the same commands and are in the same
    state, always: the first of them does the work, and its answer is that of all.
    """

    def __init__(self, deployments: Mapping[int, Deployment], checkpoint: bytes | None = None) -> None:
        self._sockets: dict[int, Rdu] = {}
        self._first: dict[int, int] = {}  # of each socket, the first that is equal to it
        first: dict[tuple[int, int, int], int] = {}
        for index, deployment in deployments.items():
            group, rank = divmod(index, deployment.degree)
            equal = first.setdefault((id(deployment), group, deployment.rank_kinds[rank]), index)
            self._first[index] = equal
            if equal == index:
                self._sockets[index] = deployment.socket(index)
        self._group = {index: index // deployments[index].degree for index in self._sockets}
        if checkpoint is not None:
            states = unpack(checkpoint)
            for index, socket in self._sockets.items():
                socket.restore(states[str(index)])
        self._machine = next(iter(deployments.values())).machine
        self._counters: dict[int, dict[str, int]] = {}  # of each socket after the last window, for who asks meanwhile
        self._exporting = False

    @staticmethod
    def sockets(deployments: Mapping[int, Deployment]) -> int:
        """Each of them."""
        return len(deployments)

    def execute(self, message: bytes) -> bytes:
        """A window (``cluster.wire``): ``streams`` by group, ``checkpoint``: whether to send the state after it, and
        ``exporter``: where to serve metrics of these sockets from now on, if at all (``cluster.metrics.of_sockets``).

        The reply has the ``first`` equal of each socket, and of each of those its ``results`` (a row per field of
        ``Completion``), its ``refusals`` of the command after the last result, its ``counters``, and the checkpoint, to
        be passed back as it is.
        """
        window = unpack(message)
        if window["exporter"] is not None and not self._exporting:
            from cluster.metrics.of_sockets import Served, of_counters, serve  # noqa: PLC0415  else nobody needs it

            serve(Served(*window["exporter"]), lambda: of_counters(self._machine, self._counters))
            self._exporting = True
        results, refusals, counters = {}, {}, {}
        for index, socket in self._sockets.items():
            columns = window["streams"].get(self._group[index])
            if columns is not None:
                try:
                    results[index] = socket.replay(columns)
                except RefusedError as refusal:
                    results[index], refusals[index] = refusal.done, str(refusal)
            counters[index] = socket.counters()
        self._counters = {index: counters[first] for index, first in self._first.items()}
        reply: dict[str, object] = {
            "first": self._first, "results": results, "refusals": refusals, "counters": counters,
        }  # fmt: skip
        if window["checkpoint"] and not refusals:
            reply["checkpoint"] = pack({str(index): socket.snapshot() for index, socket in self._sockets.items()})
        return pack(reply)


def share_out(sockets: int, per_actor: int) -> list[Sequence[int]]:
    """The sockets of each actor."""
    return [range(first, min(first + per_actor, sockets)) for first in range(0, sockets, per_actor)]

"""The shell around sockets: it takes windows of commands, has each of its sockets do them, and sends back what came.

One shell holds ``sockets_per_actor`` sockets. It runs in a Ray actor or, for the local backend, in the process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cluster.wire import pack, unpack
from node.deployment import Deployment
from node.errors import RefusedError


class SocketShell:
    """Sockets of ``deployments`` (by socket index: each has its own), new or as a ``checkpoint`` left them."""

    def __init__(self, deployments: Mapping[int, Deployment], checkpoint: bytes | None = None) -> None:
        degree = {deployment.degree for deployment in deployments.values()}.pop()
        self._sockets = {index: deployment.socket(index) for index, deployment in deployments.items()}
        self._group = {index: index // degree for index in deployments}
        if checkpoint is not None:
            for index, state in unpack(checkpoint).items():
                self._sockets[int(index)].restore(state)

    def execute(self, message: bytes) -> bytes:
        """A window (``cluster.wire``): ``streams`` by group, ``checkpoint``: whether to send the state after it.

        The reply has by socket its ``results`` (a row per field of ``Completion``), its ``refusals`` of the command
        after the last result, its ``counters``, and the checkpoint, to be passed back as it is.
        """
        window = unpack(message)
        results, refusals, counters = {}, {}, {}
        for index, socket in self._sockets.items():
            columns = window["streams"].get(self._group[index])
            if columns is not None:
                try:
                    results[index] = socket.replay(columns)
                except RefusedError as refusal:
                    results[index], refusals[index] = refusal.done, str(refusal)
            counters[index] = socket.counters()
        reply: dict[str, object] = {"results": results, "refusals": refusals, "counters": counters}
        if window["checkpoint"] and not refusals:
            reply["checkpoint"] = pack({str(index): socket.snapshot() for index, socket in self._sockets.items()})
        return pack(reply)


def share_out(sockets: int, per_actor: int) -> list[Sequence[int]]:
    """The sockets of each actor."""
    return [range(first, min(first + per_actor, sockets)) for first in range(0, sockets, per_actor)]

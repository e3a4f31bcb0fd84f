"""The links of the sockets that this process runs: to one another in memory, to those of other processes over TCP."""

from __future__ import annotations

import contextlib
import select
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.peer_links.connection import Connection, LinkError
from cluster.peer_links.frames import Frame, FrameError, Label, Parcel
from cluster.peer_links.handshake import Pair
from node.dataflow.meaning.operands import Array
from node.errors import InvariantError

NOTHING: Array = np.zeros(0, dtype=np.float32)
REASON = 256  # letters of what a peer is told of a fault
STOP_LIMIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Post:
    """What one rank does in an exchange: sends an array to each of some peers, and takes one of each of ``sources``."""

    label: Label
    outgoing: Mapping[int, Array]
    sources: Collection[int]


Received = dict[int, Array]


class Links:
    """Of a group of ``members`` the ranks ``here``; ``connections`` by (rank here, rank elsewhere).

    ``sent``: payload bytes by (rank here, peer), in so many ``frames``. ``refused``: frames refused, by reason.
    ``limit_s``: wall-clock seconds after which a peer that sends nothing, or does not take what it is sent, counts as
    hung.
    """

    def __init__(
        self,
        here: Sequence[int],
        members: int,
        connections: Mapping[Pair, Connection],
        limit_s: float = 60.0,
        refused: Counter[str] | None = None,
    ) -> None:
        self.here, self.members = tuple(here), members
        self.sent: Counter[Pair] = Counter()
        self.frames: Counter[Pair] = Counter()
        self.refused: Counter[str] = Counter() if refused is None else refused
        self._connections, self._limit_s = connections, limit_s

    def swap(self, posts: Mapping[int, Post]) -> dict[int, Received]:
        """By rank here what it gets of its sources; arrays are valid until the next call.

        Raises ``InvariantError`` where sockets are at different collectives, ``LinkError`` where a link is lost.
        """
        local: dict[Pair, Frame] = {}
        sending: list[Connection] = []
        for rank, post in posts.items():
            packed: dict[int, Parcel] = {}  # by array: all peers may get the same
            for peer, array in post.outgoing.items():
                self.sent[rank, peer] += array.nbytes
                self.frames[rank, peer] += 1
                if peer in self.here:
                    local[rank, peer] = Frame(post.label, array)
                    continue
                if (parcel := packed.get(id(array))) is None:
                    parcel = packed[id(array)] = Parcel.of(post.label, array)
                if not (link := self._connections[rank, peer]).post(parcel):
                    sending.append(link)
        remote = [(rank, peer) for rank, post in posts.items() for peer in post.sources if peer not in self.here]
        arrived = self._arrived(sending, [self._connections[pair] for pair in remote])
        received = {}
        for rank, post in posts.items():
            frames = {peer: local.get((peer, rank)) or arrived.get((rank, peer)) for peer in post.sources}
            received[rank] = {peer: _checked(rank, post.label, peer, frame) for peer, frame in frames.items()}
        return received

    def stop(self, error: BaseException) -> None:
        """Tell all peers why this process goes no further, as far as they take it within a second, and close."""
        text = (error.cause if isinstance(error, LinkError) else str(error)) or type(error).__name__
        sending = [link for link in self._connections.values() if link.open]
        sending = [link for link in sending if not link.post(Parcel.of((text[:REASON], "stop"), NOTHING))]
        with contextlib.suppress(LinkError):
            deadline = time.monotonic() + STOP_LIMIT_S
            while sending:
                self._wait(sending, [], deadline)
                sending = [link for link in sending if not link.push()]
        self.close()

    def close(self) -> None:
        """Close all connections."""
        for link in self._connections.values():
            link.close()

    def _arrived(self, sending: list[Connection], awaited: list[Connection]) -> dict[Pair, Frame]:
        """The next frame of each link ``awaited``; meanwhile what is left to send is sent.

        Links are waited for one after another: all must come, and there are fewer wake-ups than if each woke us.
        """
        deadline = time.monotonic() + self._limit_s
        arrived: dict[Pair, Frame] = {}
        for place, link in enumerate(awaited):
            while (frame := self._pulled(link)) is None:
                self._wait(sending, awaited[place:], deadline)
                sending = [one for one in sending if not one.push()]
            arrived[link.own, link.peer] = frame
        while sending:
            self._wait(sending, [], deadline)
            sending = [one for one in sending if not one.push()]
        return arrived

    def _pulled(self, link: Connection) -> Frame | None:
        try:
            return link.pull()
        except FrameError as error:
            self.refused[error.reason] += 1
            link.close()
            raise link.lost(str(error)) from None

    def _wait(self, sending: list[Connection], awaited: list[Connection], deadline: float) -> None:
        """Until the first of those ``awaited``, or one of those ``sending``, can go on."""
        poll = select.poll()
        for link in {*sending, *awaited[:1]}:
            poll.register(link, (link in sending and select.POLLOUT) | (link in awaited[:1] and select.POLLIN))
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            missing = [link for link in awaited if self._pulled(link) is None]
            late = sorted((link.own, link.peer) for link in {*missing, *sending})
            own, peers = late[0][0], ", ".join(str(peer) for _, peer in late)
            raise LinkError(f"link of socket {own} to socket {peers}: nothing came within {self._limit_s:g} s")


def in_process(members: int) -> Links:
    """The links of a group whose ranks are all here."""
    return Links(range(members), members, {})


def _checked(rank: int, label: Label, peer: int, frame: Frame | None) -> Array:
    """What a peer brought to the collective ``label``."""
    if frame is None or frame.label != label:
        other = "none that needs it" if frame is None else " ".join(frame.label)
        raise InvariantError(f"socket {rank} is at {' '.join(label)}, socket {peer} at {other}")
    return frame.array

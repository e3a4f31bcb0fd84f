"""How the sockets of a group find each other: each listens, and calls those of lower rank.

Whoever else comes is refused, counted by reason and not waited for; when all are there, nobody listens any more.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from cluster.peer_links.connection import PAYLOAD_LIMIT, Connection, LinkError
from cluster.peer_links.frames import FrameError
from cluster.peer_links.handshake import SECRET, Pair, answer, call
from cluster.peer_links.links import Links
from cluster.peer_links.talking import Talking
from node.errors import InputError

Address = tuple[str, int]
GUESTS = 128  # who have not proven who they are; when one more comes, the first of them goes


class Listener:
    """Listens on ``interface`` until its group is complete; peers may call before ``join``."""

    def __init__(self, interface: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in interface else socket.AF_INET
        self.socket = socket.create_server((interface, 0), family=family, backlog=GUESTS)
        self.socket.setblocking(False)

    @property
    def address(self) -> Address:
        """Where peers call."""
        host, port = self.socket.getsockname()[:2]
        return host, port

    def close(self) -> None:
        """Listen no more."""
        self.socket.close()


def join(
    listener: Listener,
    here: Sequence[int],
    addresses: Mapping[int, Address],
    secret: bytes,
    *,
    connect_limit_s: float = 10.0,
    limit_s: float = 60.0,
    payload_limit: int = PAYLOAD_LIMIT,
) -> Links:
    """The links of the ranks ``here`` in the group of all ranks in ``addresses``, who hold the same ``secret``.

    Raises ``LinkError`` where a peer is not there within ``connect_limit_s`` or does not know the secret. The listener
    is closed in any case.
    """
    if len(secret) < SECRET:
        raise InputError(f"the secret of peer links has {len(secret)} bytes: at least {SECRET}")
    joining = _Joining(listener, here, addresses, secret, payload_limit)
    try:
        joining.until(time.monotonic() + connect_limit_s, connect_limit_s)
    except BaseException:
        for connection in joining.made.values():
            connection.close()
        raise
    finally:
        joining.close()
    return Links(here, len(addresses), joining.made, limit_s, joining.refused)


class _Joining:
    """All handshakes of a process at once, so that none waits for another."""

    def __init__(
        self, listener: Listener, here: Sequence[int], addresses: Mapping[int, Address], secret: bytes, limit: int
    ) -> None:
        self.made: dict[Pair, Connection] = {}
        self.refused: Counter[str] = Counter()
        self._listener, self._addresses, self._secret, self._limit = listener, addresses, secret, limit
        self._missing = {(rank, peer) for rank in here for peer in addresses if peer not in here}
        self._selector = selectors.DefaultSelector()
        self._guests: list[Talking] = []
        self._calls: list[Talking] = []

    def until(self, deadline: float, limit_s: float) -> None:
        """Join all who are missing."""
        self._selector.register(self._listener.socket, selectors.EVENT_READ)
        for rank, peer in sorted(self._missing):
            if peer < rank:
                self._call((rank, peer), max(0.001, deadline - time.monotonic()))
        while self._missing:
            if (left := deadline - time.monotonic()) <= 0:
                rank, peer = min(self._missing)
                raise LinkError(f"link of socket {rank} to socket {peer}: not there within {limit_s:g} s")
            for key, _ in self._selector.select(left):
                if key.data is None:
                    self._welcome()
                else:
                    self._go_on(key.data)

    def close(self) -> None:
        """No more guests, and no more calls."""
        for guest in self._guests[:]:
            self._refuse(guest, FrameError("silent"))
        for talking in self._calls:
            talking.link.close()
        self._selector.close()
        self._listener.close()

    def _call(self, pair: Pair, limit_s: float) -> None:
        try:
            link = socket.create_connection(self._addresses[pair[1]], timeout=limit_s)
        except OSError as error:
            raise LinkError(f"link of socket {pair[0]} to socket {pair[1]}: {error.strerror or error}") from None
        self._calls.append(Talking(link, call(pair, self._secret), pair))
        self._begin(self._calls[-1])

    def _welcome(self) -> None:
        try:
            link, _ = self._listener.socket.accept()
        except OSError:
            return
        if len(self._guests) == GUESTS:
            self._refuse(self._guests[0], FrameError("silent"))
        guest = Talking(link, answer(self._secret, lambda pair: pair[::-1] in self._missing), None)
        self._guests.append(guest)
        self._begin(guest)

    def _begin(self, talking: Talking) -> None:
        self._selector.register(talking.link, selectors.EVENT_READ, talking)
        self._go_on(talking)

    def _go_on(self, talking: Talking) -> None:
        if talking.link.fileno() < 0:  # refused since it was selected
            return
        try:
            agreed = talking.go_on()
        except FrameError as error:
            self._refuse(talking, error)
            return
        if agreed is not None:
            own, peer = talking.pair or agreed.pair[::-1]
            self._selector.unregister(talking.link)
            self._forget(talking)
            self.made[own, peer] = Connection(own, peer, talking.link, agreed, self._limit)
            self._missing.discard((own, peer))

    def _refuse(self, talking: Talking, error: FrameError) -> None:
        """Somebody who came is counted; if it is who we called, that is the end."""
        self._selector.unregister(talking.link)
        talking.link.close()
        self._forget(talking)
        self.refused[error.reason] += 1
        if talking.pair is not None:
            own, peer = talking.pair
            raise LinkError(f"link of socket {own} to socket {peer}: {error} in its handshake")

    def _forget(self, talking: Talking) -> None:
        with_whom = self._guests if talking.pair is None else self._calls
        with_whom.remove(talking)

"""A handshake over a TCP connection, as far as it goes without waiting."""

from __future__ import annotations

import socket

from cluster.peer_links.frames import PREFIX, FrameError, lengths
from cluster.peer_links.handshake import HELLO_LIMIT, Agreed, Pair, Talk


class Talking:
    """A connection whose other side has not proven yet who it is; ``pair``: whom we called."""

    def __init__(self, link: socket.socket, talk: Talk, pair: Pair | None) -> None:
        self.link, self.pair = link, pair
        self._talk = talk
        self._waiting, self._message = False, bytearray()
        link.setblocking(False)

    def go_on(self) -> Agreed | None:
        """As far as it goes now; what was agreed, when it was."""
        while True:
            try:
                if self._waiting and not self._received():
                    return None
                message, self._message = bytes(self._message[PREFIX.size :]), bytearray()
                said = self._talk.send(message) if self._waiting else next(self._talk)
                self._waiting = said is None
                if said is not None:
                    self.link.sendall(said)
            except StopIteration as end:
                agreed: Agreed = end.value
                return agreed
            except OSError:
                raise FrameError("truncated") from None

    def _received(self) -> bool:
        """Whether the message is complete; not a byte more is read."""
        while left := self._left():
            try:
                more = self.link.recv(left)
            except BlockingIOError:
                return False
            if not more:
                raise FrameError("truncated")
            self._message += more
        return True

    def _left(self) -> int:
        if len(self._message) < PREFIX.size:
            return PREFIX.size - len(self._message)
        size, _ = lengths(self._message[: PREFIX.size], HELLO_LIMIT, 0)
        return PREFIX.size + size - len(self._message)

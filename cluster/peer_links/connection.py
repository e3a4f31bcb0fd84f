"""One link between two sockets: frames out and in over a TCP connection, without waiting."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from cluster.peer_links.frames import DTYPE, HEADER_LIMIT, PREFIX, TAG, Buffer, Frame, FrameError, Parcel, lengths
from cluster.peer_links.handshake import Agreed

AHEAD = 1 << 16  # bytes read before it is known how many a frame has
PAYLOAD_LIMIT = 1 << 28  # bytes: what a socket gets of a prefill of 32768 tokens of 16384 elements among 8


class LinkError(RuntimeError):
    """A link is lost or what came over it is refused; ``cause`` is what happened where it happened."""

    def __init__(self, text: str, cause: str = "") -> None:
        super().__init__(text)
        self.cause = cause or text


class Connection:
    """The end at socket ``own`` of its link to ``peer``."""

    def __init__(self, own: int, peer: int, link: socket.socket, agreed: Agreed, payload_limit: int) -> None:
        self.own, self.peer = own, peer
        self._socket, self._sealer, self._opener = link, agreed.sealer, agreed.opener
        self._payload_limit = payload_limit
        self._unsent: list[Buffer] = []
        self._incoming = self._receive()
        link.setblocking(False)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def open(self) -> bool:
        """Whether it is."""
        return self._socket.fileno() >= 0

    def fileno(self) -> int:
        """For select."""
        return self._socket.fileno()

    def post(self, parcel: Parcel) -> bool:
        """Send a frame as far as the socket takes it; whether all is sent. Until then its array must not change."""
        size, limit = len(parcel.payload), self._payload_limit
        if size > limit:
            raise self.lost(f"{parcel.label[0]} would send {size} bytes, above the limit of {limit}")
        self._unsent += self._sealer.seal(parcel)
        return self.push()

    def push(self) -> bool:
        """Send what is left; whether all is sent. A link that is broken shows when it is read."""
        while self._unsent:
            try:
                sent = self._socket.sendmsg(self._unsent)
            except BlockingIOError:
                return False
            except OSError:
                self._unsent.clear()
                return True
            if sent == sum(map(len, self._unsent)):
                self._unsent.clear()
                return True
            while sent >= len(self._unsent[0]):
                sent -= len(self._unsent.pop(0))
            self._unsent[0] = memoryview(self._unsent[0])[sent:]
        return True

    def pull(self) -> Frame | None:
        """The next frame, if it is there. Raises ``FrameError`` if it is refused, ``LinkError`` if none will come."""
        try:
            frame = next(self._incoming)
        except OSError as error:
            raise self.lost(error.strerror or str(error)) from None
        if frame is not None and frame.label[1] == "stop":
            cause = frame.label[0]
            raise LinkError(f"socket {self.own}: socket {self.peer} stopped: {cause}", cause)
        return frame

    def lost(self, why: str) -> LinkError:
        """The error that names both ends."""
        return LinkError(f"link of socket {self.own} to socket {self.peer}: {why}")

    def close(self) -> None:
        """End it; the peer reads what was sent, then that it is closed."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        self._socket.close()

    def _receive(self) -> Iterator[Frame | None]:
        """Frame after frame, and None wherever the next bytes are not there yet.

        With the start of a frame comes what else is there, up to ``AHEAD`` bytes, so that a small frame takes one call.
        """
        buffer, first, end = memoryview(bytearray(2 * AHEAD)), 0, 0
        while True:
            while end - first < PREFIX.size:
                got = self._got(buffer[end : first + AHEAD], "" if end > first else "connection closed")
                if not got:
                    yield None
                end += got
            header, payload = lengths(buffer[first : first + PREFIX.size], HEADER_LIMIT, self._payload_limit)
            size = PREFIX.size + header + payload + TAG
            here = bytes(buffer[first:end])
            first = -(PREFIX.size + header) % DTYPE.itemsize  # the numbers are aligned
            end = first + len(here)
            if first + size + AHEAD > len(buffer):
                buffer = memoryview(bytearray(first + size + AHEAD))
            buffer[first:end] = here
            while end - first < size:
                got = self._got(buffer[end : first + size])
                if not got:
                    yield None
                end += got
            yield self._opener.open(buffer[first : first + size], header)
            first += size

    def _got(self, view: memoryview, ended: str = "") -> int:
        """How many bytes came into ``view``; ``ended``: what it means that none will any more, if that may be."""
        try:
            got = self._socket.recv_into(view)
        except BlockingIOError:
            return 0
        if not got:
            raise self.lost(ended) if ended else FrameError("truncated")
        return got

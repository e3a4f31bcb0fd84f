"""One link between two sockets: frames out and in over a TCP connection, without waiting."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from cluster.peer_links.frames import HEADER_LIMIT, PREFIX, TAG, Frame, FrameError, Label, lengths
from cluster.peer_links.handshake import Agreed
from node.dataflow.meaning.operands import Array

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
        self._unsent: list[memoryview] = []
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

    def post(self, label: Label, array: Array) -> bool:
        """Send a frame as far as the socket takes it; whether all is sent. Until then its array must not change."""
        if array.nbytes > self._payload_limit:
            raise self.lost(f"{label[0]} would send {array.nbytes} bytes, above the limit of {self._payload_limit}")
        self._unsent += self._sealer.seal(label, array)
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
            while self._unsent and sent >= len(self._unsent[0]):
                sent -= len(self._unsent.pop(0))
            if sent:
                self._unsent[0] = self._unsent[0][sent:]
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
        """Frame after frame, and None wherever the next bytes are not there yet."""
        prefix, buffer = memoryview(bytearray(PREFIX.size)), memoryview(b"")
        while True:
            yield from self._fill(prefix, "connection closed")
            header, payload = lengths(prefix, HEADER_LIMIT, self._payload_limit)
            first, size = -header % 8, header + payload + TAG  # numbers lie where they can be read at once
            if len(buffer) < first + size:
                buffer = memoryview(bytearray(first + size))
            body = buffer[first : first + size]
            yield from self._fill(body)
            yield self._opener.open(prefix, body, header)

    def _fill(self, view: memoryview, ended: str = "") -> Iterator[None]:
        """All of ``view``; ``ended``: what it means that nothing comes any more, if that may be."""
        filled = 0
        while filled < len(view):
            try:
                got = self._socket.recv_into(view[filled:])
            except BlockingIOError:
                yield None
                continue
            if not got:
                raise self.lost(ended) if ended and not filled else FrameError("truncated")
            filled += got

"""Does a group find itself, whoever else comes?"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgpack
import numpy as np
import pytest

from cluster.peer_links.connection import LinkError
from cluster.peer_links.frames import PREFIX
from cluster.peer_links.joining import GUESTS, Address, Listener, join
from node.errors import InputError
from tests.peers import SECRET, SUM, bringing, brought_by, joined, together

OTHER = bytes(32)


def _message(fields: object) -> bytes:
    packed = msgpack.packb(fields)
    return PREFIX.pack(1, 0, len(packed), 0) + packed


HELLO = _message([2, 0, bytes(32)])
STRANGERS = {
    b"GET / HTTP/1.1\r\n\r\n": "version",
    b"\2" + HELLO[1:]: "version",
    PREFIX.pack(1, 0, 257, 0): "too long",
    PREFIX.pack(1, 0, 10, 1): "too long",
    HELLO[:-1]: "truncated",
    b"": "truncated",
    PREFIX.pack(1, 0, 3, 0) + b"\xc1\xc1\xc1": "malformed",
    _message({"caller": 2}): "malformed",
    _message([2, 0, b"short"]): "malformed",
    _message([2, 0, msgpack.ExtType(1, bytes(32))]): "malformed",
    _message(["2", "0", bytes(32)]): "malformed",
    _message([[[[]]]] * 20): "malformed",
    _message([7, 0, bytes(32)]): "unexpected",
    _message([0, 2, bytes(32)]): "unexpected",
    _message([1, 0, bytes(32)]): "unexpected",  # who is there already
    HELLO + _message([bytes(32)]): "unauthenticated",  # a proof that is none
    HELLO + _message([7]): "malformed",
}


def _ends(link: socket.socket) -> bool:
    """Whether the other side closes the connection."""
    try:
        while link.recv(1000):
            pass
    except ConnectionError:
        pass
    return True


def test_strangers_are_refused_and_counted_and_disturb_nobody() -> None:
    listeners = [Listener() for _ in range(3)]
    addresses = {rank: one.address for rank, one in enumerate(listeners)}
    silent = []
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(join, listeners[0], [0], addresses, SECRET)
        second = pool.submit(join, listeners[1], [1], addresses, SECRET)
        silent += [socket.create_connection(addresses[0]) for _ in range(3)]
        time.sleep(0.1)
        for said in STRANGERS:
            with socket.create_connection(addresses[0], timeout=5) as stranger:
                with contextlib.suppress(OSError):  # it may be refused before it has said all
                    stranger.sendall(said)
                    stranger.shutdown(socket.SHUT_WR)
                assert _ends(stranger)
        with pytest.raises(LinkError, match=r"link of socket 2 to socket [01]: frame refused: unauthenticated"):
            join(Listener(), [2], addresses, OTHER)
        third = pool.submit(join, listeners[2], [2], addresses, SECRET)
        links = [one.result() for one in (first, second, third)]
    expected = {reason: list(STRANGERS.values()).count(reason) for reason in STRANGERS.values()}
    assert links[0].refused == {**expected, "silent": 3, "truncated": expected["truncated"] + 1}
    assert links[2].refused == {}
    made: list[list[np.ndarray]] = [[], [], []]
    for ended in together(links, [bringing([(SUM, brought_by(rank))], made[rank]) for rank in range(3)]):
        ended.result()
    assert all(_ends(one) for one in silent)
    for address in addresses.values():
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
    for one in links:
        one.close()


def test_a_crowd_of_silent_strangers_keeps_nobody_out() -> None:
    listeners = [Listener(), Listener()]
    addresses = {rank: one.address for rank, one in enumerate(listeners)}
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(join, listeners[0], [0], addresses, SECRET)
        crowd = [socket.create_connection(addresses[0]) for _ in range(GUESTS + 9)]
        links = [pool.submit(join, listeners[1], [1], addresses, SECRET).result(), first.result()]
    assert links[1].refused == {"silent": GUESTS + 9}
    for one in (*links, *crowd):
        one.close()


def _answering(answer: bytes) -> Callable[[socket.socket], None]:
    def impostor(listener: socket.socket) -> None:
        link, _ = listener.accept()
        with link:
            link.recv(1000)
            link.sendall(answer)
            _ends(link)

    return impostor


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (_message([bytes(32), bytes(32)]), "unauthenticated"),
        (_message([bytes(32)]), "malformed"),
        (b"SSH-2.0-x\r\n", "version"),
        (PREFIX.pack(1, 0, 65535, 0), "too long"),
    ],
)
def test_who_answers_in_place_of_a_peer_is_found(answer: bytes, reason: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        pool.submit(_answering(answer), server)
        mine = Listener()
        addresses: dict[int, Address] = {0: server.getsockname(), 1: mine.address}
        with pytest.raises(
            LinkError, match=f"^link of socket 1 to socket 0: frame refused: {reason} in its handshake$"
        ):
            join(mine, [1], addresses, SECRET)


def test_a_peer_that_reflects_what_it_is_sent_is_found() -> None:
    """It calls back with what it was asked, to be told the answer."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:

        def mirror() -> None:
            link, _ = server.accept()
            with link:
                link.sendall(link.recv(1000))
                _ends(link)

        pool.submit(mirror)
        mine = Listener()
        with pytest.raises(LinkError, match="malformed"):
            join(mine, [1], {0: server.getsockname(), 1: mine.address}, SECRET)


def test_other_calls_are_closed_when_one_fails() -> None:
    """The exception, and with it the frames that know the calls, lives on."""
    with (
        socket.create_server(("127.0.0.1", 0)) as garbling,
        socket.create_server(("127.0.0.1", 0)) as silent,
        ThreadPoolExecutor(1) as pool,
    ):
        pool.submit(_answering(b"SSH-2.0-x\r\n"), garbling)
        mine = Listener()
        addresses = {0: silent.getsockname(), 1: garbling.getsockname(), 2: mine.address}
        with pytest.raises(LinkError, match="socket 2 to socket 1") as kept:
            join(mine, [2], addresses, SECRET)
        link, _ = silent.accept()
        link.settimeout(2)
        assert _ends(link) and kept.value.__traceback__
        link.close()


def test_a_peer_that_does_not_come_is_named() -> None:
    mine, other = Listener(), Listener()
    addresses = {0: mine.address, 1: other.address}
    with pytest.raises(LinkError, match=r"^link of socket 0 to socket 1: not there within 0\.2 s$"):
        join(mine, [0], addresses, SECRET, connect_limit_s=0.2)
    with pytest.raises(LinkError, match=r"^link of socket 1 to socket 0: Connection refused$"):
        join(other, [1], addresses, SECRET, connect_limit_s=0.2)


def test_a_short_secret_is_refused() -> None:
    listener = Listener()
    with pytest.raises(InputError, match="the secret of peer links has 31 bytes: at least 32"):
        join(listener, [0], {0: listener.address}, bytes(31))
    listener.close()


def test_ranks_of_two_processes_may_lie_between_each_other() -> None:
    for one in joined([[0, 3], [1, 2]]):
        one.close()


def test_ipv6() -> None:
    try:
        listeners = [Listener("::1"), Listener("::1")]
    except OSError:
        pytest.skip("no IPv6 here")
    addresses = {rank: one.address for rank, one in enumerate(listeners)}
    with ThreadPoolExecutor(2) as pool:
        for one in [pool.submit(join, at, [rank], addresses, SECRET) for rank, at in enumerate(listeners)]:
            one.result().close()

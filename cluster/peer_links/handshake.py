"""How two sockets that share a run's secret find that they do: each proves it to the other, neither sends it.

The socket that calls says who it is and whom it wants, with a nonce. The one called answers with a nonce of its own and
its proof, the HMAC-SHA256 of its role, both names and both nonces; then the caller sends its proof. Both directions get
keys of their own from the same, so that a frame of another connection or direction is not authentic here.
Every step is a generator: it yields what to send, or None to wait, and takes the next message of the other side.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Generator
from dataclasses import dataclass

import msgpack

from cluster.peer_links.frames import PREFIX, VERSION, FrameError, Opener, Sealer, decoded

HELLO_LIMIT = 256  # bytes of a message before anybody is known
NONCE = 32
SECRET = 32  # bytes of the shortest secret: a stranger may try at home what fits the proof it was answered with

Pair = tuple[int, int]  # who called, who was called: ranks


@dataclass(frozen=True, slots=True)
class Agreed:
    """A connection's ends and what seals and opens its frames on this one."""

    pair: Pair
    sealer: Sealer
    opener: Opener


Talk = Generator[bytes | None, bytes, Agreed]


def call(pair: Pair, secret: bytes) -> Talk:
    """The caller's side."""
    nonce = os.urandom(NONCE)
    yield _message(*pair, nonce)
    answered = yield None
    match decoded(answered):
        case [bytes(other), bytes(proof)] if len(other) == NONCE:
            said = _said(pair, nonce, other)
        case _:
            raise FrameError("malformed")
    _check(proof, _hmac(secret, b"called", said))
    yield _message(_hmac(secret, b"caller", said))
    return Agreed(pair, Sealer(_hmac(secret, b"to called", said)), Opener(_hmac(secret, b"to caller", said)))


def answer(secret: bytes, expected: Callable[[Pair], bool]) -> Talk:
    """The side that was called; ``expected`` says whether a pair is."""
    hello = yield None
    match decoded(hello):
        case [int(caller), int(called), bytes(other)] if len(other) == NONCE:
            pair, nonce = (caller, called), os.urandom(NONCE)
        case _:
            raise FrameError("malformed")
    if not expected(pair):
        raise FrameError("unexpected")
    said = _said(pair, other, nonce)
    yield _message(nonce, _hmac(secret, b"called", said))
    proven = yield None
    match decoded(proven):
        case [bytes(proof)]:
            _check(proof, _hmac(secret, b"caller", said))
        case _:
            raise FrameError("malformed")
    if not expected(pair):  # somebody else may have come in meanwhile
        raise FrameError("unexpected")
    return Agreed(pair, Sealer(_hmac(secret, b"to caller", said)), Opener(_hmac(secret, b"to called", said)))


def _message(*fields: int | bytes) -> bytes:
    packed: bytes = msgpack.packb(fields)
    return PREFIX.pack(VERSION, 0, len(packed), 0) + packed


def _said(pair: Pair, of_caller: bytes, of_called: bytes) -> bytes:
    packed: bytes = msgpack.packb((VERSION, *pair, of_caller, of_called))
    return packed


def _hmac(secret: bytes, role: bytes, said: bytes) -> bytes:
    return hmac.digest(secret, role + said, hashlib.sha256)


def _check(proof: bytes, expected: bytes) -> None:
    if not hmac.compare_digest(proof, expected):
        raise FrameError("unauthenticated")

"""Shells in Ray actors, and the Ray cluster that they are on. Whoever needs no Ray does not import this."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import ray
import ray.exceptions
from ray._private import ray_constants, services

from cluster.backends import Deployments, Shell, SocketLostError
from cluster.offered_sockets import OfferedSockets
from cluster.socket_actor import SocketShell
from node.errors import InputError

RAY_ADDRESS = "RAY_ADDRESS"
AUTO = "auto"  # the Ray that was started last on this machine
CONNECT_LIMIT_S = 5.0
INLINE = 100_000  # bytes up to which Ray sends an argument along with a call
# What an HTTP/2 client, and so a gRPC one, says first: the preface and an empty SETTINGS frame (RFC 9113, 3.4 and 6.5).
# The server begins with a SETTINGS frame too: the fourth of the 9 bytes of a frame's header is its type.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
HEADER, SETTINGS = 9, 4


class RayBackend:
    """Shells in Ray actors on the cluster that ``ray_session`` is connected to.

    Actors are never restarted by Ray: the coordinator makes a new one and gives it the checkpoint and the journal.
    ``time_limit_s``: wall-clock seconds after which an actor that does not answer counts as hung. One that is new must
    find room within them; one that is made again, as its machine was lost, may wait for another machine.
    """

    def __init__(self, time_limit_s: float = 60.0) -> None:
        self._time_limit_s = time_limit_s
        self._actors: dict[int, Any] = {}
        self._pending: dict[int, list[Any]] = {}
        self._ready: dict[int, Any] = {}
        self._answered: set[int] = set()
        self._sent: bytes | None = None
        self._put: Any = None
        self._remote = cache(ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0))

    @cached_property
    def _offered(self) -> OfferedSockets:
        return OfferedSockets.now()

    @property
    def cpus(self) -> int:
        """Those of the Ray cluster."""
        return max(1, int(ray.cluster_resources().get("CPU", 1)))  # type: ignore[no-untyped-call]

    def places(self, sockets: int) -> int:
        """One for each CPU, where the cluster offers sockets as far as there is room."""
        return max(1, min(self.cpus, self._offered.places(sockets))) if self._offered else self.cpus

    def start(
        self, actor: int, deployments: Deployments, checkpoint: bytes | None, shell: type[Shell] = SocketShell
    ) -> None:
        """See ``Backend``."""
        if (old := self._actors.pop(actor, None)) is not None:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(old)
        once = {id(deployment): replace(deployment) for deployment in deployments.values()}  # without what it cached
        bare = {index: once[id(deployment)] for index, deployment in deployments.items()}
        resources = self._offered.ask(actor, shell.sockets(deployments))
        self._actors[actor] = self._remote(shell).options(resources=resources).remote(bare, checkpoint)
        self._pending[actor], self._ready[actor] = [], self._actors[actor].__ray_ready__.remote()

    def submit(self, actor: int, message: bytes) -> None:
        """See ``Backend``."""
        if message is not self._sent:  # the same goes to every actor: it is put into Ray's store once
            # as an array: actors read it where Ray's store has it, each would make a copy of bytes
            large = len(message) > INLINE
            self._sent, self._put = message, ray.put(np.frombuffer(message, np.uint8)) if large else message
        self._pending[actor].append(self._actors[actor].execute.remote(self._put))

    def collect(self, actor: int) -> bytes:
        """See ``Backend``."""
        try:
            reply: bytes = ray.get(self._pending[actor].pop(0), timeout=self._time_limit_s)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, InputError):  # the user's mistake, found in the actor
                raise error.cause from None
            raise
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError, ray.exceptions.ObjectLostError) as error:
            self._check_placed(actor)
            raise SocketLostError(f"actor {actor}: {type(error).__name__}") from error
        self._answered.add(actor)
        return reply

    def _check_placed(self, actor: int) -> None:
        """``InputError`` for an actor that never was anywhere, where the cluster has to have sockets for it."""
        if not self._offered or actor in self._answered or ray.wait([self._ready[actor]], timeout=0)[0]:
            return
        raise InputError(
            f"no machine of the Ray cluster had sockets free for actor {actor} within {self._time_limit_s:g} s; wait "
            "until other runs are over, or set cluster.sockets_per_actor so that actors fit into what is left"
        )

    def stop(self) -> None:
        """See ``Backend``."""
        for actor in self._actors.values():
            ray.kill(actor)
        self._actors.clear()


@contextlib.contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """Join the cluster at ``address``, else that of ``RAY_ADDRESS``, which Ray sets in a job.

    Where neither says one, or it is ``local``, one is started on this machine, on loopback only. One that is joined
    already is kept.
    """
    if ray.is_initialized():
        yield
        return
    where = "--address"
    if address is None and os.environ.get(RAY_ADDRESS):
        address, where = os.environ[RAY_ADDRESS], RAY_ADDRESS
    try:
        if address in (None, "local"):
            _start()
        else:
            _join(address, f"{where} {address!r}")
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str, where: str) -> None:
    """``InputError`` where no gRPC server answers at a host:port; Ray itself would retry for minutes, and loudly."""
    if address.startswith(("http://", "https://")):
        raise InputError(
            f"{where}: is a dashboard's; allowed: host:port of the cluster itself, as ray start tells it (6379 by "
            "default), or ray://host:10001; coe submit takes a dashboard's"
        )
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_LIMIT_S) as connection:
            if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
                return  # it would want a handshake first
            connection.sendall(PREFACE)
            answer = connection.recv(HEADER)
    except (OSError, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{where}: nothing can be reached there: {reason}") from None
    if len(answer) < HEADER or answer[3] != SETTINGS:
        raise InputError(f"{where}: what listens there is no Ray")


def _join(address: str, where: str) -> None:
    _check_reachable(address, where)
    try:
        with _loopback_only() if _is_on_loopback(address) else contextlib.nullcontext():
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__  # of versions that differ in lines of their own
        raise InputError(f"{where}: no Ray cluster can be joined there: {reason}") from None


def _is_on_loopback(address: str) -> bool:
    """Whether a Ray is on this machine and listens on loopback only.

    Where it is told of loopback, Ray looks at the machine's other address, and would for a quarter of an hour.
    """
    if address == AUTO:
        address = services.get_ray_address_from_environment(AUTO, None)  # raises what ``ray.init`` would
    host, colon, port = address.rpartition(":")
    if not colon or address.startswith("ray://"):
        return False
    elsewhere = services.resolve_ip_for_localhost(host)
    if elsewhere == host:
        return False
    try:
        socket.create_connection((elsewhere, int(port)), timeout=CONNECT_LIMIT_S).close()
    except OSError:
        return True
    return False


def _start() -> None:
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    with _loopback_only():
        ray.init(
            address="local",
            include_dashboard=False,
            object_store_memory=200 << 20,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )


@contextlib.contextmanager
def _loopback_only() -> Iterator[None]:
    """A Ray started meanwhile listens on loopback only; the environment variable for that is read when Ray is imported.

    Without it, whoever reaches this machine can run code on it.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER  # if Ray renames it, this fails, and nothing is opened
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before

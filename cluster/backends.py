"""Where shells run: in this process, or (``cluster.ray_backend``) in a Ray actor each. Both do the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from cluster.socket_actor import SocketShell
from node.deployment import Deployment

Deployments = Mapping[int, Deployment]


class SocketLostError(RuntimeError):
    """An actor died or hangs; what it held is gone."""


class Shell(Protocol):
    """What is done of ``deployments``, by number of the socket or node, new or as a ``checkpoint`` left it."""

    def __init__(self, deployments: Deployments, checkpoint: bytes | None) -> None: ...

    @staticmethod
    def sockets(deployments: Deployments) -> int:
        """How many sockets it is at work on at a time."""

    def execute(self, message: bytes) -> bytes:
        """The reply to a message."""


class Backend(Protocol):
    """Shells by number."""

    def places(self, sockets: int) -> int:
        """How many shells can be at work at once, each on so many ``sockets`` at a time."""

    def start(
        self, actor: int, deployments: Deployments, checkpoint: bytes | None, shell: type[Shell] = SocketShell
    ) -> None:
        """Make a shell, in place of the one that had the number."""

    def submit(self, actor: int, message: bytes) -> None:
        """Send a window; its reply is the next that ``collect`` gives."""

    def collect(self, actor: int) -> bytes:
        """The reply to the oldest window not yet collected; ``SocketLostError`` if there will be none."""

    def stop(self) -> None:
        """End all shells."""


class LocalBackend:
    """Shells in this process. ``cores``: how many of them a run that is alone with it may use."""

    cores = 1

    def __init__(self, cores: int = 1) -> None:
        self.cores = cores
        self._shells: dict[int, Shell] = {}
        self._replies: dict[int, list[bytes]] = {}

    def places(self, sockets: int) -> int:
        """This process does one thing after another."""
        return 1

    def start(
        self, actor: int, deployments: Deployments, checkpoint: bytes | None, shell: type[Shell] = SocketShell
    ) -> None:
        """See ``Backend``."""
        self._shells[actor] = shell(deployments, checkpoint)
        self._replies[actor] = []

    def submit(self, actor: int, message: bytes) -> None:
        """See ``Backend``."""
        self._replies[actor].append(self._shells[actor].execute(message))

    def collect(self, actor: int) -> bytes:
        """See ``Backend``."""
        return self._replies[actor].pop(0)

    def stop(self) -> None:
        """See ``Backend``."""

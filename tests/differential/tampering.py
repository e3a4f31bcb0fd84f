"""Sockets that do not do what was planned: a backend that alters machines, commands or results, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from cluster.backends import Backend, Deployments, LocalBackend
from cluster.config_file import read_config
from cluster.disagreement import DisagreementError
from cluster.runner import Run, prepare, run
from cluster.wire import pack, unpack
from node.deployment import Deployment
from node.events import COLUMNS, Ints

SHARD = 1_685_069_824  # bytes of llama-2-7b on one of 8 sockets
SETTINGS = {
    "cluster.backend": "local",
    "cluster.window": "2 s",
    "cluster.sockets_per_actor": 1,
    "experts.count": 12,
    "machine.ddr.capacity": f"{12 * SHARD} B",  # the experts and not a byte more
    "machine.hbm.capacity": f"{SHARD + 2 * 2**30 + 3 * SHARD} B",  # router, KV cache and 3 experts
    "workload.requests": 16,
    "workload.rate": 2.0,
}

ROW = {name: index for index, name in enumerate(COLUMNS)}
Change = Callable[[Ints, int], Ints]  # of a column in a window of columns
Other = Callable[[Deployment], Deployment]


@dataclass
class Tampered(LocalBackend):
    """Alters the deployment of ``socket``, the commands that it is sent, or the results that it sends.

    ``stream`` and ``result`` are given the window's number, from 1, and its columns.
    """

    socket: int = 3
    deployment: Other = lambda deployment: deployment
    stream: Callable[[int, Ints], Ints | None] = lambda _window, columns: columns
    result: Callable[[int, Ints], Ints] = lambda _window, columns: columns

    def __post_init__(self) -> None:
        super().__init__()
        self.sent = self.collected = 0

    def start(self, actor: int, deployments: Deployments, checkpoint: bytes | None) -> None:
        own = {index: self.deployment(one) if index == self.socket else one for index, one in deployments.items()}
        super().start(actor, own, checkpoint)

    def submit(self, actor: int, message: bytes) -> None:
        window = unpack(message)
        if actor == self.socket and len(window["streams"]) == 1:
            self.sent += 1
            columns = self.stream(self.sent, window["streams"].pop(0).copy())
            window["streams"] = {} if columns is None else {0: np.ascontiguousarray(columns)}
        super().submit(actor, pack(window))

    def collect(self, actor: int) -> bytes:
        reply = unpack(super().collect(actor))
        if actor == self.socket:
            self.collected += 1
            for socket, columns in reply["results"].items():
                reply["results"][socket] = self.result(self.collected, columns.copy())
        return pack(reply)


def serve(backend: Backend, **settings: object) -> Run:
    """A run of ``SETTINGS``, changed."""
    named = {key.replace("__", "."): value for key, value in settings.items()}
    config = read_config(None, {**SETTINGS, **named}.items())
    return run(config, backend, prepare(config))


def found_out(backend: Tampered, **settings: object) -> str:
    """The error's text, which names the socket and shows what was planned."""
    with pytest.raises(DisagreementError) as caught:
        serve(backend, **settings)
    text = str(caught.value)
    assert text.startswith((f"socket {backend.socket} disagrees with the plan: ", f"socket {backend.socket} refused "))
    assert "\n  planned:\n     " in text
    return text


def other(table: str, **changes: Callable[[Any], Any]) -> Other:
    """A deployment in which numbers of the machine's ``table`` are changed."""

    def change(deployment: Deployment) -> Deployment:
        old = getattr(deployment.machine, table)
        new = replace(old, **{name: how(getattr(old, name)) for name, how in changes.items()})
        return replace(deployment, machine=replace(deployment.machine, **{table: new}))

    return change


def at(window: int, column: int, change: Change) -> Callable[[int, Ints], Ints]:
    """``change`` of one column (from the end if negative) of one window."""
    return lambda number, columns: change(columns, column % columns.shape[1]) if number == window else columns


def dropped(columns: Ints, column: int) -> Ints:
    return np.delete(columns, column, axis=1)


def doubled(columns: Ints, column: int) -> Ints:
    return np.insert(columns, column, columns[:, column], axis=1)


def swapped(columns: Ints, column: int) -> Ints:
    order = np.arange(columns.shape[1])
    order[[column - 1, column]] = order[[column, column - 1]]
    return columns[:, order]


def renumbered(change: Change) -> Change:
    """``change``, hidden behind sequence numbers without a gap."""

    def changed(columns: Ints, column: int) -> Ints:
        altered = change(columns, column).copy()
        altered[ROW["sequence"]] = np.arange(altered.shape[1]) + columns[ROW["sequence"], 0]
        return altered

    return changed

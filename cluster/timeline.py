"""``timeline.json``: a Chrome Trace (opens in Perfetto), one track per engine per socket."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from node.deployment import Deployment
from node.events import ROW, TRANSFERS, Command, Kind
from node.hardware.costs import Costs
from node.planned import Planned
from node.units import Picoseconds

ENGINES = ("dma", "tile", "link")
DMA, TILE, LINK = range(len(ENGINES))
_ENGINE = {**dict.fromkeys(TRANSFERS, DMA), Kind.PREFILL: TILE, Kind.DECODE: TILE}
_OF_NO_EXPERT = {Kind.SWAP: "KV cache", Kind.IMAGE: "program"}
US_PER_PS = 1e-6
Event = Sequence[Any]  # start, engine, socket, and what is written


class Collected(NamedTuple):
    """Events of so many ``sockets``, and how many were ``left_out``."""

    sockets: int
    events: list[Event]
    left_out: int

    def write(self, path: Path) -> None:
        """Write the trace; processes are sockets, threads are engines."""
        names: list[dict[str, object]] = []
        for socket in range(self.sockets):
            names.append({"name": "process_name", "ph": "M", "pid": socket, "args": {"name": f"socket {socket}"}})
            for engine, name in enumerate(ENGINES):
                names.append({"name": "thread_name", "ph": "M", "pid": socket, "tid": engine, "args": {"name": name}})
        events = [event for *_, event in sorted(self.events, key=lambda entry: tuple(entry[:3]))]
        trace = {"traceEvents": names + events, "otherData": {"events_left_out": self.left_out}}
        path.write_text(json.dumps(trace, separators=(",", ":")))


def together(parts: Sequence[Collected]) -> Collected:
    """Of several nodes, their sockets numbered through."""
    events = [event for part in parts for event in part.events]
    return Collected(sum(part.sockets for part in parts), events, sum(part.left_out for part in parts))


class Timeline:
    """Collects the first events of each group, up to ``limit`` over all tracks; sockets are numbered through nodes.

    A link sends all through a kernel, with pauses; here what it sends is one block, from the kernel's start on.
    """

    def __init__(self, deployment: Deployment, limit: int, node: int = 0) -> None:
        self._deployment = deployment
        self._first = node * deployment.machine.sockets
        self._room = [limit // deployment.groups] * deployment.groups
        self._costs = Costs(deployment.machine, deployment.programs(0), deployment.degree)
        self._events: list[Event] = []
        self._free: dict[tuple[int, int], int] = {}
        self.dropped = 0

    def observe(self, planned: dict[int, Planned]) -> None:
        """Take a window's commands, by group; every socket of a group does the same."""
        for group, plan in planned.items():
            places = np.flatnonzero(np.isin(plan.columns[ROW["kind"]], list(_ENGINE)))
            kept = 0
            while kept < len(places) and self._room[group] >= self._deployment.degree:
                command = Command(*plan.columns[:, places[kept]].tolist())
                self._add(group, _ENGINE[Kind(command.kind)], command, int(plan.ends[places[kept]]))
                kept += 1
            left_out = plan.columns[:, places[kept:]]
            if left_out.size:
                sending = self._costs.runs(left_out)[1] > 0
                self.dropped += (left_out.shape[1] + int(sending.sum())) * self._deployment.degree

    def _add(self, group: int, engine: int, command: Command, end: Picoseconds) -> None:
        start = max(command.issued, self._free.get((group, engine), 0))
        self._free[group, engine] = end
        router = command.symbol == self._deployment.catalogue.count
        kind = Kind(command.kind)
        whose = _OF_NO_EXPERT.get(kind, "router" if router else f"expert {command.symbol}")
        self._event(group, engine, f"{kind.name.lower()} {whose}", (start, end), command)
        if engine == TILE and (sending := self._costs.run(command)[1]):
            self._event(group, LINK, f"send {whose}", (start, start + sending), command)

    def _event(self, group: int, engine: int, name: str, span: tuple[int, int], command: Command) -> None:
        degree, (start, end) = self._deployment.degree, span
        if self._room[group] < degree:
            self.dropped += degree
            return
        self._room[group] -= degree
        event = {
            "name": name,
            "ph": "X",
            "ts": start * US_PER_PS,
            "dur": (end - start) * US_PER_PS,
            "args": {"sequence": command.sequence, "batch": command.sequences, "steps": command.steps},
        }
        for rank in range(degree):
            socket = self._first + group * degree + rank
            self._events.append((start, engine, socket, {**event, "pid": socket, "tid": engine}))

    def collected(self) -> Collected:
        """What was collected so far."""
        return Collected(self._deployment.machine.sockets, self._events, self.dropped)

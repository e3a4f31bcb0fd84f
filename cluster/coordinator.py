"""Plans windows of virtual time, hands each socket its commands, and checks what comes back against the plan.

Window k + 1 is planned while k executes. What an actor was sent since its last checkpoint is its journal: an actor
that dies is started again from both, and the run goes on as if nothing had happened.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cluster.backends import Backend, Deployments, SocketLostError
from cluster.disagreement import compare
from cluster.metrics.board import Health
from cluster.socket_actor import share_out
from cluster.wire import pack, unpack
from node.deployment import Deployment
from node.events import COLUMNS, Ints
from node.hardware.tiers import Completion
from node.lane import NEVER
from node.planned import Planned
from node.simulation import Mark, Simulation
from node.units import Picoseconds

CHECKPOINT_WINDOWS = 16
MAX_RECOVERIES = 8
MOST_COMMANDS = 2**16  # of a group in a window: it ends before its time when there are so many
NO_COMMANDS = np.empty((len(COLUMNS), 0), dtype=np.int64)
NOTHING = np.empty((len(Completion._fields), 0), dtype=np.int64)


@dataclass
class Actor:
    """What the coordinator knows of one actor: its sockets, its last checkpoint, what it was sent since.

    ``recoveries``: how often it was lost since it last answered for a window. ``first`` of equals, by socket: whose
    state in a checkpoint is its own.
    """

    sockets: Deployments
    checkpoint: bytes | None = None
    first: Mapping[int, int] = field(default_factory=dict)
    journal: list[bytes] = field(default_factory=list)
    recoveries: int = 0


@dataclass(frozen=True)
class Window:
    """A window as sent: what was planned by group, and by group and kind of socket what should come back."""

    planned: dict[int, Planned]
    expected: dict[tuple[int, int], Ints]
    message: bytes
    checkpoint: bool
    mark: Mark


@dataclass
class Coordinator:
    """Runs ``simulation`` of ``deployment`` on ``backend`` in windows of ``window`` ps of virtual time.

    ``observe`` is given each planned window, after it was checked, and how far the simulation was when it was planned.
    ``exporter``: where actors serve metrics of their own, if at all. ``counters`` are the sockets' own, as last sent.
    ``sent``: the last of so many ``windows``, ``checked`` of them.
    """

    deployment: Deployment
    simulation: Simulation
    backend: Backend
    window: Picoseconds
    sockets_per_actor: int
    observe: Callable[[dict[int, Planned], Mark], None]
    health: Health = field(default_factory=Health)
    exporter: tuple[str, str, int] | None = None
    actors: list[Actor] = field(default_factory=list)
    counters: dict[int, dict[str, int]] = field(default_factory=dict)
    sent: Window | None = None
    windows: int = 0
    checked: int = 0

    def run(self) -> None:
        """The whole run; ``DisagreementError`` where a socket does not do what was planned."""
        self.start()
        while not self.advance(NEVER):
            pass
        self.finish()

    def start(self, states: Mapping[int, Any] | None = None) -> None:
        """Make the sockets: new, or in the ``states`` of ``pause``, however they were shared out then."""
        for sockets in share_out(self.deployment.machine.sockets, self.sockets_per_actor):
            checkpoint = None if states is None else pack({str(socket): states[socket] for socket in sockets})
            actor = Actor(dict.fromkeys(sockets, self.deployment), checkpoint)
            self.backend.start(len(self.actors), actor.sockets, checkpoint)
            self.actors.append(actor)

    def pause(self) -> dict[int, Any]:
        """Have the sockets do, and check, all that is planned: the state of each, after which the run can go on."""
        self._send(checkpoint=True)
        self._check_sent()
        self.sent = None
        states: dict[int, Any] = {}
        for actor in self.actors:
            assert actor.checkpoint is not None
            found = unpack(actor.checkpoint)
            states |= {socket: found[str(first)] for socket, first in actor.first.items()}
        return states

    def advance(self, until: Picoseconds) -> bool:
        """Plan what happens before ``until``, up to the end of a window, which is sent; False where more is to come.

        Spans in which nothing happens are passed over. A window that ``until`` is in the middle of stays open.
        """
        due = self.simulation.next_event()
        if due is None or due >= until:
            return True
        end = (due // self.window + 1) * self.window
        self.simulation.advance(min(end, until), MOST_COMMANDS)
        due = self.simulation.next_event()
        there = due is None or due >= until
        if end <= until or not there:
            self._send()
        return there

    def finish(self) -> None:
        """Send what is left, and check the last of what was sent."""
        self._send()
        self._check_sent()

    def _send(self, *, checkpoint: bool = False) -> None:
        """Have the sockets do what was planned since the last window; meanwhile check that one.

        ``checkpoint``: and send their state, even where there is nothing to do.
        """
        planned = {g: found for g in range(self.deployment.groups) if len(found := self.simulation.take(g))}
        if not (planned or checkpoint):
            return
        self.windows += 1
        checkpoint = checkpoint or self.windows % CHECKPOINT_WINDOWS == 0
        window = self._window(planned, checkpoint, self.simulation.mark())
        self._check_sent()
        for number, actor in enumerate(self.actors):
            actor.journal.append(window.message)
            with contextlib.suppress(SocketLostError):  # found out when its reply is asked for
                self.backend.submit(number, window.message)
        self.sent = window

    def _window(self, planned: dict[int, Planned], checkpoint: bool, mark: Mark) -> Window:
        streams = {group: plan.columns for group, plan in planned.items()}
        kinds = sorted(set(self.deployment.rank_kinds))
        expected = {
            (group, rank): plan.expected[kind] for group, plan in planned.items() for kind, rank in enumerate(kinds)
        }
        return Window(
            planned,
            expected,
            pack({"streams": streams, "checkpoint": checkpoint, "exporter": self.exporter}),
            checkpoint,
            mark,
        )

    def _check_sent(self) -> None:
        """Collect every actor's reply to the last window and compare it with the plan."""
        window = self.sent
        if window is None:
            return
        for number, actor in enumerate(self.actors):
            reply = self._reply(number, actor)
            for socket in reply["refusals"]:
                self.health.refusals[socket] = self.health.refusals.get(socket, 0) + 1
            for socket, first in reply["first"].items():
                if socket == first:
                    self._compare(window, socket, reply)
                self.counters[socket] = reply["counters"][first]
            if window.checkpoint:
                actor.checkpoint, actor.first = reply["checkpoint"], reply["first"]
                actor.journal.clear()
        self.checked += 1
        self.observe(window.planned, window.mark)

    def _compare(self, window: Window, socket: int, reply: dict[str, Any]) -> None:
        group, rank = divmod(socket, self.deployment.degree)
        planned = window.planned[group].columns if group in window.planned else NO_COMMANDS
        expected = window.expected.get((group, self.deployment.rank_kinds[rank]), NOTHING)
        compare(socket, planned, expected, reply["results"].get(socket), reply["refusals"].get(socket))

    def _reply(self, number: int, actor: Actor) -> dict[str, Any]:
        """The actor's reply; a lost actor is made again and given its journal first."""
        lost = False
        while True:
            try:
                if lost:
                    self._restart(number, actor)
                reply = unpack(self.backend.collect(number))
                actor.recoveries = 0
                self.health.down.difference_update(actor.sockets)
                return reply
            except SocketLostError:
                lost = True
                actor.recoveries += 1
                self.health.down.update(actor.sockets)
                if actor.recoveries > MAX_RECOVERIES:
                    raise

    def _restart(self, number: int, actor: Actor) -> None:
        """A new actor from checkpoint and journal; what is left to collect is the reply to the journal's last."""
        self.health.restarts += 1
        self.backend.start(number, actor.sockets, actor.checkpoint)
        for message in actor.journal:
            self.backend.submit(number, message)
        for _ in actor.journal[:-1]:
            self.backend.collect(number)

"""What a group does next, each time its sockets come free. A scheduler is a pure function of a view of the group."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from node.runtime.served import Served
from node.units import Picoseconds


@dataclass(frozen=True, slots=True)
class Route:
    """Run the router on the ``count`` oldest requests that have no expert yet."""

    count: int


@dataclass(frozen=True, slots=True)
class Serve:
    """Make ``expert`` resident and start the ``count`` oldest requests that wait for it.

    ``opens_batch``: they are the first of a batch (where calls are charged by batch).
    """

    expert: int
    count: int
    opens_batch: bool


@dataclass(frozen=True, slots=True)
class Decode:
    """Generate tokens for the running batch until something changes."""


Decision = Route | Serve | Decode | None


@dataclass(slots=True)
class View:
    """What a scheduler may know of its group.

    ``waiting``: by expert, in order of arrival, never empty queues; ``active``: the expert of the running batch or
    the last one; ``routed``: nobody was served since the router ran; ``batch_left``: pairs of the batch under way that
    are still to be served; ``fairness`` in ps.
    """

    now: Picoseconds
    unrouted: Sequence[Served]
    waiting: Mapping[int, deque[Served]]
    running: Sequence[Served]
    active: int | None
    routed: bool
    batch_left: int
    batch: int
    fairness: Picoseconds
    resident: Callable[[int], bool]


def paper(view: View) -> Decision:
    """As published: route a batch, then its (prompt, expert) pairs one after another, nothing overlapped."""
    if view.running:
        return Decode()
    if view.waiting:
        return Serve(_oldest(view), 1, opens_batch=view.batch_left == 0)
    if view.unrouted:
        return Route(min(view.batch, len(view.unrouted)))
    return None


def affinity(view: View) -> Decision:
    """Requests grouped by expert, continuous batching within the active one.

    The router stops the batch, so newcomers are routed once it has drained, or once a whole batch of them is there, or
    once one of them has waited longer than ``fairness``; but somebody is served between two runs of the router. While
    the batch has room, requests for the active expert join it. Once somebody has waited longer than ``fairness`` for
    another expert, nobody joins any more and the batch drains for that one. Otherwise the next expert is the one most
    asked for; of equals a resident one, then the one waited for longest.
    """
    room = view.batch - len(view.running)
    oldest = _oldest(view) if view.waiting else None
    overdue = oldest is not None and _overdue(view, oldest)
    if view.running:
        late = bool(view.unrouted) and view.now - view.unrouted[0].request.arrival > view.fairness
        if (late and not view.routed) or (not overdue and room and len(view.unrouted) >= view.batch):
            return Route(min(view.batch, len(view.unrouted)))
        joining = view.waiting.get(view.active) if view.active is not None else None
        if joining and room and (not overdue or oldest == view.active):
            return Serve(joining[0].request.expert, min(room, len(joining)), opens_batch=True)
        return Decode()
    if view.unrouted and not (view.waiting and view.routed):
        return Route(min(view.batch, len(view.unrouted)))
    if oldest is None:
        return None
    chosen = oldest if overdue else _preferred(view)
    return Serve(chosen, min(view.batch, len(view.waiting[chosen])), opens_batch=True)


def _oldest(view: View) -> int:
    """The expert of the request that has waited longest."""
    return min(view.waiting, key=lambda expert: view.waiting[expert][0].request.id)


def _overdue(view: View, oldest: int) -> bool:
    return view.now - view.waiting[oldest][0].request.arrival > view.fairness


def _preferred(view: View) -> int:
    return min(view.waiting, key=lambda expert: _preference(view, expert))


def _preference(view: View, expert: int) -> tuple[int, bool, int]:
    queue = view.waiting[expert]
    return -min(len(queue), view.batch), not view.resident(expert), queue[0].request.id


def _oldest_or_preferred(view: View) -> int:
    oldest = _oldest(view)
    return oldest if _overdue(view, oldest) else _preferred(view)


SCHEDULERS: dict[str, Callable[[View], Decision]] = {"paper": paper, "affinity": affinity}
# of each scheduler: which of the experts that are waited for it would serve next, were the sockets free
NEXT: dict[str, Callable[[View], int]] = {"paper": _oldest, "affinity": _oldest_or_preferred}

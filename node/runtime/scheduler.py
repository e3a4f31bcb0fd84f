"""What a group does next, each time its sockets come free. A scheduler is a pure function of a view of the group."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import NamedTuple, Protocol

from node.runtime.service import Numbers
from node.runtime.waiting import Waiting
from node.units import Picoseconds


class Route(NamedTuple):
    """Run the router on the oldest ``requests`` that have no expert yet, so many of them."""

    requests: int


class Serve(NamedTuple):
    """Make ``expert`` resident and start the oldest ``requests`` that wait for it, so many of them.

    ``opens_batch``: they are the first of a batch (where calls are charged by batch).
    """

    expert: int
    requests: int
    opens_batch: bool


class Decode(NamedTuple):
    """Generate tokens for the running batch until something changes."""


Decision = Route | Serve | Decode | None
DECODE = Decode()


class View(Protocol):
    """What a scheduler may know of its group.

    ``since``: since when (ps) a request counts as waiting, by its key (see ``node.runtime.service``); ``unrouted``: how
    many have no expert yet, ``newcomer`` the key of the first of them; ``waiting``: who has an expert, by their keys;
    ``members``: how many are served, ``active``: the expert of the running batch
    or the last one; ``routed``: nobody was served since the router ran; ``batch_left``: pairs of the batch under way
    that are still to be served; ``fairness`` in ps; ``blocked``: of those waited for, the experts that cannot come now.
    """

    since: Numbers
    waiting: Waiting
    active: int | None
    routed: bool
    batch_left: int
    batch: int
    fairness: Picoseconds
    members: int

    @property
    def unrouted(self) -> int: ...  # noqa: D102
    @property
    def newcomer(self) -> int: ...  # noqa: D102
    def blocked(self, now: Picoseconds) -> Container[int]: ...  # noqa: D102


def paper(view: View, now: Picoseconds) -> Decision:
    """As published: route a batch, then its (prompt, expert) pairs one after another, nothing overlapped."""
    if view.members:
        return DECODE
    oldest = view.waiting.oldest(view.blocked(now))
    if oldest is not None:
        return Serve(oldest, 1, view.batch_left == 0)
    unrouted = view.unrouted
    return Route(min(view.batch, unrouted)) if unrouted else None


def affinity(view: View, now: Picoseconds) -> Decision:
    """Requests grouped by expert, continuous batching within the active one.

    The router stops the batch, so newcomers are routed once it has drained, or once a whole batch of them is there, or
    once one of them has waited longer than ``fairness``; but somebody is served between two runs of the router. While
    the batch has room, requests for the active expert join it. Once somebody has waited longer than ``fairness`` for
    another expert, nobody joins any more and the batch drains for that one. Otherwise the next expert is the one most
    asked for; of equals a resident one, then the one waited for longest.
    """
    if view.members:
        return _beside_a_batch(view, now)
    unrouted = view.unrouted
    if unrouted and not (view.waiting.count and view.routed):
        return Route(min(view.batch, unrouted))
    chosen = next_oldest_or_most_wanted(view, now, view.blocked(now))
    if chosen is None:
        return Route(min(view.batch, unrouted)) if unrouted else None
    return Serve(chosen, min(view.batch, len(view.waiting.queues[chosen])), True)


def _beside_a_batch(view: View, now: Picoseconds) -> Decision:
    """Of ``affinity``, while a batch is running."""
    unrouted, waiting, room = view.unrouted, view.waiting, view.batch - view.members
    if unrouted and not view.routed and now - view.since[view.newcomer] > view.fairness:
        return Route(min(view.batch, unrouted))
    if not room:
        return DECODE
    oldest, active = waiting.oldest(view.blocked(now)), view.active
    overdue = oldest is not None and _overdue(view, now, oldest)
    if not overdue and unrouted >= view.batch:
        return Route(view.batch)
    if active is not None and active in waiting.queues and (not overdue or oldest == active):
        return Serve(active, min(room, len(waiting.queues[active])), True)
    return DECODE


def next_oldest(view: View, now: Picoseconds, without: Container[int] = ()) -> int | None:
    """The expert of the request that has waited longest, those ``without`` left out; None where nobody waits."""
    return view.waiting.oldest(without)


def next_oldest_or_most_wanted(view: View, now: Picoseconds, without: Container[int] = ()) -> int | None:
    """The expert waited for longest if that is longer than ``fairness``, else the most wanted one."""
    found = view.waiting.oldest(without)
    return found if found is None or _overdue(view, now, found) else view.waiting.most_wanted(without)


def _overdue(view: View, now: Picoseconds, expert: int) -> bool:
    return now - view.since[view.waiting.first(expert)] > view.fairness


Next = Callable[[View, Picoseconds, Container[int]], int | None]
SCHEDULERS: dict[str, Callable[[View, Picoseconds], Decision]] = {"paper": paper, "affinity": affinity}
# of each scheduler: which of the experts that are waited for it would serve next, were the sockets free
NEXT: dict[str, Next] = {"paper": next_oldest, "affinity": next_oldest_or_most_wanted}

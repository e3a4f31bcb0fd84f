"""The front-end before the nodes: which of them a request goes to.

A policy is a pure function of the request's expert and of what the front-end knows. It knows what it has sent, and of
each node how many of those requests had ended when it last looked, which is up to ``routing.staleness`` ago.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from node.events import Ints
from node.units import Picoseconds


@dataclass
class View:
    """What the front-end knows: how many requests of each node are ``outstanding``, and how many it ``sent`` in all.

    Outstanding are those that had not ended when it last looked, and those that were sent since. ``load_bound``: how
    many times the mean of them a node may have, where the policy has such a bound.
    """

    outstanding: list[int]
    load_bound: Fraction = Fraction(1)
    sent: int = 0


Policy = Callable[[int, View], int]


def round_robin(_expert: int, view: View) -> int:
    """In turn."""
    return view.sent % len(view.outstanding)


POLICIES: dict[str, Policy] = {"round_robin": round_robin}
BLIND = ("round_robin",)  # policies that do not look at the nodes
BOUNDED = ("expert_affinity",)  # those that have a bound of load


@dataclass
class FrontEnd:
    """Sends requests to nodes by ``policy``."""

    policy: Policy
    view: View

    def send(self, experts: Iterable[int]) -> list[int]:
        """The node of each of the next requests, which are for ``experts``."""
        view, policy, nodes = self.view, self.policy, []
        for expert in experts:
            node = policy(expert, view)
            view.outstanding[node] += 1
            view.sent += 1
            nodes.append(node)
        return nodes


def looks(arrival: Ints, staleness: Picoseconds) -> Iterator[tuple[Picoseconds, int, int]]:
    """When the front-end looks at the nodes, every ``staleness``, and the first and last (not included) of the requests
    that arrive until it looks again; looks after which nobody arrives are left out.
    """
    times = arrival // staleness
    firsts = np.flatnonzero(np.diff(times, prepend=-1)).tolist()
    for first, upto in zip(firsts, [*firsts[1:], len(arrival)], strict=True):
        yield int(times[first]) * staleness, first, upto

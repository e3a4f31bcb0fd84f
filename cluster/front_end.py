"""The front-end before the nodes: which of them a request goes to.

A policy is a pure function of the request's expert and of what the front-end knows. It knows what it has sent, and of
each node how many of those requests had ended when it last looked, which is up to ``routing.staleness`` ago.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from hashlib import blake2b

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


def least_loaded(_expert: int, view: View) -> int:
    """To one with the fewest requests outstanding; of equals the first one from the one on whose turn it would be."""
    count = len(view.outstanding)
    return min(range(count), key=lambda node: (view.outstanding[node], (node - view.sent) % count))


def expert_affinity(expert: int, view: View) -> int:
    """To the expert's own node, or the first in its order that stays within the bound of load.

    With the request none has more than ceil(c x mean) outstanding, the mean with the request, c: ``load_bound``
    (Mirrokni, Thorup and Zadimoghaddam, *Consistent Hashing with Bounded Loads*, 2017). Somebody always stays within.
    """
    count, times = len(view.outstanding), view.load_bound
    bound = -(-times.numerator * (sum(view.outstanding) + 1) // (times.denominator * count))
    return next(node for node in order(expert, count) if view.outstanding[node] < bound)


@lru_cache(maxsize=2**16)
def order(expert: int, nodes: int) -> tuple[int, ...]:
    """All ``nodes`` in the order in which ``expert`` would have them: by hash of both, the highest first.

    With a node more the others keep their order (rendezvous hashing; Thaler and Ravishankar, 1998): so that one takes
    its share of experts from all others, and nothing else moves.
    """
    return tuple(sorted(range(nodes), key=lambda node: _hash(expert, node), reverse=True))


def _hash(expert: int, node: int) -> bytes:
    return blake2b(f"{expert} {node}".encode(), digest_size=8).digest()


POLICIES: dict[str, Policy] = {
    "round_robin": round_robin,
    "least_loaded": least_loaded,
    "expert_affinity": expert_affinity,
}
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

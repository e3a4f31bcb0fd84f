"""Requests that were not served: refused before the run, or turned away in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from node.events import Ints
from node.request import Requests
from node.runtime.admission import Reason
from node.simulation import Simulation

REFUSED = "refused"
TURNED_AWAY = tuple(reason.name.lower() for reason in Reason)
OUTCOMES = (REFUSED, *TURNED_AWAY)


@dataclass(frozen=True)
class NotServed:
    """Who they are, what became of each, and how long it had waited by then (ps; 0 where refused before the run)."""

    requests: Requests
    outcome: Sequence[str]
    waited: Ints

    @classmethod
    def of(cls, refused: Requests, simulation: Simulation) -> NotServed:
        """Those ``refused``, then those that a simulation turned away."""
        gone = simulation.turned_away
        numbers = np.array([one.request for one in gone], dtype=np.int64)
        away = simulation.requests.where(numbers)
        times = np.array([one.time for one in gone], dtype=np.int64)
        outcomes = chain((REFUSED,) * len(refused), (one.reason.name.lower() for one in gone))
        waited = np.concatenate([np.zeros(len(refused), dtype=np.int64), times - away.arrival])
        return cls(refused.followed_by(away), list(outcomes), waited)

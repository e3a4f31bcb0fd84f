"""Requests that were not served: refused before the run, or turned away in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from cluster.workload import Workload
from node.events import Ints
from node.request import Requests
from node.runtime.admission import Reason, TurnedAway

REFUSED = "refused"
TURNED_AWAY = tuple(reason.name.lower() for reason in Reason)
OUTCOMES = (REFUSED, *TURNED_AWAY)


@dataclass(frozen=True)
class NotServed:
    """Who they are, what became of each, and how long it had waited by then (ps; 0 where refused before the run).

    ``node``: which one turned it away, where there are several (0 where refused before the run).
    """

    requests: Requests
    outcome: Sequence[str]
    waited: Ints
    node: Ints | None = None

    @classmethod
    def of(cls, workload: Workload, gone: Sequence[TurnedAway], chosen: Ints | None = None) -> NotServed:
        """Those of a workload that were refused, then those who are ``gone``, by their places among its requests.

        ``chosen``: of each of its requests the node, where there are several.
        """
        refused = workload.refused
        numbers = np.array([one.request for one in gone], dtype=np.int64)
        away = workload.requests.where(numbers)
        times = np.array([one.time for one in gone], dtype=np.int64)
        outcomes = chain((REFUSED,) * len(refused), (one.reason.name.lower() for one in gone))
        nothing = np.zeros(len(refused), dtype=np.int64)
        waited = np.concatenate([nothing, times - away.arrival])
        node = None if chosen is None else np.concatenate([nothing, chosen[numbers]])
        return cls(Requests.joined([refused, away]), list(outcomes), waited, node)

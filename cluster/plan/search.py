"""The search: for each candidate the fewest nodes that do, as long as it can be as cheap as the best one so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from cluster.plan.candidates import Candidate
from cluster.plan.fewest import fewest
from cluster.plan.measure import Measured, Trials
from cluster.plan.problem import Problem
from cluster.sweep.tasks import Solver

PROBE_REQUESTS, PROBE_SCALE = 1000, 1e9  # all of them at about the same time
Told = Callable[[str, int], None]


@dataclass
class Row:
    """What came of a candidate; ``most``: the most nodes with which it would be as cheap as another one that does.

    ``capacity``: requests/s of one node that always has enough to do. ``nodes``: the fewest that do, None where
    ``most`` do not, or where ``searched`` is false. ``cannot_run``: why it cannot serve this.
    """

    trials: Trials
    cannot_run: str | None
    capacity: float = 0.0
    most: int = 0
    nodes: int | None = None
    searched: bool = False

    @property
    def candidate(self) -> Candidate:
        """Whose row it is."""
        return self.trials.candidate

    @property
    def tried(self) -> dict[int, Measured]:
        """What was measured, by number of nodes."""
        return self.trials.found

    @property
    def plan(self) -> Measured | None:
        """The fewest nodes that do."""
        return None if self.nodes is None else self.tried[self.nodes]

    @property
    def below(self) -> Measured | None:
        """A node less than that; where none do, the most that were tried."""
        if self.nodes is None:
            return self.tried[max(self.tried)] if self.tried else None
        return self.tried.get(self.nodes - 1)

    @property
    def not_monotone(self) -> list[tuple[Measured, Measured]]:
        """Pairs of which the one with more nodes attains less, in runs from as many seeds."""
        in_order = [self.tried[nodes] for nodes in sorted(self.tried)]
        return [
            (few, many)
            for few, many in combinations(in_order, 2)
            if few.seeds == many.seeds
            and any(many.shares[name].share < one.share for name, one in few.shares.items() if name in many.shares)
        ]


class Search:
    """``rows`` of ``problem`` are as far as the search has come, whatever ends it."""

    def __init__(self, problem: Problem, solve: Solver, told: Told) -> None:
        asked, classes = problem.asked, problem.classes
        self.rows = [Row(Trials(one, asked, classes, solve, told), one.cannot_run) for one in problem.candidates]
        self.problem, self._solve, self._told = problem, solve, told

    @property
    def best(self) -> Row | None:
        """The cheapest plan; of equals the one with fewer sockets, then the one most certain to do, then the first."""
        done = [row for row in self.rows if row.nodes is not None]
        return min(done, key=lambda row: (*self._cost(row, row.nodes or 0), -_certainty(row)), default=None)

    def run(self) -> None:
        """Search, the candidates first that need the fewest nodes by what one node can do at most."""
        self._capacities([row for row in self.rows if row.cannot_run is None])
        able = [row for row in self.rows if row.cannot_run is None]
        for row in sorted(able, key=lambda row: self._cost(row, self._guess(row))):
            self._search(row)
        if (best := self.best) is not None and best.nodes is not None and best.nodes > 1:
            best.trials.whole(best.nodes - 1)

    def _cost(self, row: Row, nodes: int) -> tuple[float, int]:
        return row.candidate.cost(nodes, self.problem.priced)

    def _guess(self, row: Row) -> int:
        return max(1, math.ceil(self.problem.rate / row.capacity)) if row.capacity else 1

    def _capacities(self, rows: Sequence[Row]) -> None:
        """How much one node does that always has enough to do: no bound, but near where the search has to begin."""
        self._told("what one node can do", 1)
        tasks = []
        for number, row in enumerate(rows):
            config = row.candidate.at(1, 0)
            limit = min(PROBE_REQUESTS, config.workload.limit or PROBE_REQUESTS)
            workload = replace(config.workload, rate_scale=PROBE_SCALE, limit=limit, warmup=0)
            runtime = replace(config.runtime, queue_limit=None, shed_late=False)
            tasks.append((number, replace(config, workload=workload, runtime=runtime)))
        for number, found in self._solve(tasks):
            summary, row = found.get("summary"), rows[number]
            if isinstance(summary, dict):
                row.capacity = summary["throughput_requests_per_s"]
            else:
                row.cannot_run = str(found["cannot_run"])

    def _search(self, row: Row) -> None:
        best = self.best
        limit = math.inf, 0
        if best is not None and best.nodes is not None:
            limit = self._cost(best, best.nodes)
        counts = range(1, self.problem.asked.most_nodes + 1)
        row.most = max((nodes for nodes in counts if self._cost(row, nodes) <= limit), default=0)
        trials = row.trials
        if row.most and (best is None or trials.meets(row.most)):
            row.nodes = fewest(trials.meets, trials.fails_clearly, self._guess(row), row.most)
        row.searched = True


def _certainty(row: Row) -> float:
    worst = row.plan.worst if row.plan is not None else None
    return worst.low if worst is not None else 0.0

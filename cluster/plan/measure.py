"""What runs of a candidate with so many nodes came to, and whether that is what is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cluster.plan.asked import Asked
from cluster.plan.candidates import Candidate
from cluster.plan.interval import LEAST_RUNS, Share, share_of
from cluster.sweep.front import figures
from cluster.sweep.tasks import Found, Solver
from node.errors import InputError

FIGURES = ("ttft_s.p99", "e2e_s.p99", "service_levels.goodput_requests_per_s", "hit_rate")
FIRST = LEAST_RUNS  # seeds that are run before it is asked whether the others can change anything


@dataclass(frozen=True)
class Measured:
    """``nodes`` in runs from ``seeds`` seeds: of each class its share, ``figures`` of the summary, means over the runs.

    ``cannot_run``: why there are none.
    """

    nodes: int
    seeds: int
    shares: Mapping[str, Share]
    figures: Mapping[str, float | None]
    overloaded: bool = False
    cannot_run: str | None = None

    @property
    def usable(self) -> bool:
        """Whether it ran, and kept up."""
        return self.cannot_run is None and not self.overloaded

    @property
    def worst(self) -> Share | None:
        """The share of the class of which least is certain."""
        return min(self.shares.values(), key=lambda one: one.low, default=None)

    def meets(self, asked: Asked) -> bool:
        """Whether each class's share is certain to be what is asked, by the lower end of its interval."""
        return self.usable and all(one.low >= asked.attainment for one in self.shares.values())

    def hopeless(self, asked: Asked) -> bool:
        """Whether it does not meet what is asked, even if all requests of the seeds that were not run are kept to."""
        more = asked.seeds / self.seeds
        return not self.usable or any(1 - (1 - one.share) / more < asked.attainment for one in self.shares.values())

    def fails_clearly(self, asked: Asked) -> bool:
        """Whether that is certain, and not only that it is not certain that it meets."""
        return self.hopeless(asked) or any(one.high < asked.attainment for one in self.shares.values())


def measured(nodes: int, found: Sequence[Found], classes: Sequence[str]) -> Measured:
    """What runs from several seeds came to; ``classes``: those that count."""
    reason = next((one["cannot_run"] for one in found if "cannot_run" in one), None)
    if reason is not None:
        return Measured(nodes, len(found), {}, {}, cannot_run=str(reason))
    summaries = [one["summary"] for one in found]
    levels = [_classes(summary) for summary in summaries]
    shares = {name: _share(name, [level[name] for level in levels]) for name in classes}
    values = [dict(figures(summary)) for summary in summaries if isinstance(summary, dict)]
    means = {name: _mean([one.get(name) for one in values]) for name in FIGURES}
    return Measured(nodes, len(found), shares, means, any(one["overloaded"] for one in found))


def _classes(summary: object) -> dict[str, Mapping[str, float]]:
    assert isinstance(summary, dict)
    return {one["name"]: one for one in summary["service_levels"]["classes"]}


def _share(name: str, levels: Sequence[Mapping[str, float]]) -> Share:
    counted = [int(one["counted"]) for one in levels]
    if not sum(counted):
        raise InputError(f"slo.classes: no request of class {name!r} counts in any run; give more --requests")
    kept = [round(one["attainment"] * of) if of else 0 for one, of in zip(levels, counted, strict=True)]
    return share_of(kept, counted)


def _mean(values: Sequence[object]) -> float | None:
    numbers = [value for value in values if isinstance(value, int | float)]
    return sum(numbers) / len(numbers) if len(numbers) == len(values) else None


class Trials:
    """A candidate's runs, by number of nodes: as many seeds as it takes; ``told`` is told what is run next."""

    def __init__(
        self,
        candidate: Candidate,
        asked: Asked,
        classes: Sequence[str],
        solve: Solver,
        told: Callable[[str, int], None],
    ) -> None:
        self.candidate = candidate
        self.found: dict[int, Measured] = {}
        self._runs: dict[int, list[Found]] = {}
        self._asked, self._classes, self._solve, self._told = asked, classes, solve, told

    def at(self, nodes: int) -> Measured:
        """From all seeds, or from the first ones where the others cannot make it meet what is asked."""
        if nodes not in self.found:
            self._run(nodes, FIRST)
            if not self.found[nodes].hopeless(self._asked):
                self._run(nodes, self._asked.seeds)
        return self.found[nodes]

    def whole(self, nodes: int) -> Measured:
        """From all seeds."""
        self._run(nodes, self._asked.seeds)
        return self.found[nodes]

    def meets(self, nodes: int) -> bool:
        """Whether so many nodes are certain to do what is asked."""
        return self.at(nodes).meets(self._asked)

    def fails_clearly(self, nodes: int) -> bool:
        """Whether so many nodes are certain not to do it."""
        return self.at(nodes).fails_clearly(self._asked)

    def _run(self, nodes: int, upto: int) -> None:
        runs = self._runs.setdefault(nodes, [])
        if len(runs) < upto:
            self._told(self.candidate.name, nodes)
            tasks = [(seed, self.candidate.at(nodes, seed)) for seed in range(len(runs), upto)]
            made = dict(self._solve(tasks))
            runs += [made[seed] for seed, _ in tasks]
            self.found[nodes] = measured(nodes, runs, self._classes)

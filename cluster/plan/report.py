"""What a search is written as: JSON, and the share of requests that is not kept to, over nodes, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from cluster.chart import Chart, Series, svg
from cluster.inputs import assumptions
from cluster.plan.interval import CONFIDENCE
from cluster.plan.measure import Measured
from cluster.plan.problem import Problem
from cluster.plan.search import Row
from cluster.scales import Axis, plain
from node.spec import Machine
from node.units import PS_PER_S, show_seconds

MOST_DRAWN = 6  # candidates
NEUTRAL = 6  # the colour of what is of no candidate
SPREAD = 0.7  # of the place of a number of nodes, over which the candidates stand side by side
NONE_MISSED = 0.5  # requests: where none is missed, so that a logarithmic axis has a place for it


@dataclass(frozen=True)
class Report:
    """``rows`` in the order of the candidates; ``best``: the plan; ``complete``: whether the search came to its end."""

    problem: Problem
    rows: Sequence[Row]
    best: Row | None
    complete: bool = True

    @property
    def cost_unit(self) -> str:
        """What plans are compared by."""
        if self.problem.priced:
            return "machine.cost_per_hour of all nodes, assumed, by the user"
        return "number of nodes, for not every machine has a cost_per_hour; of equals the number of sockets"

    @property
    def machines(self) -> list[Machine]:
        """Those of the candidates, each once."""
        found: list[Machine] = []
        for row in self.rows:
            if row.candidate.machine not in found:
                found.append(row.candidate.machine)
        return found

    def order(self, row: Row) -> tuple[bool, bool, int]:
        """The plan first, then those that do, by their number of nodes."""
        return row is not self.best, row.nodes is None, row.nodes or 0

    @property
    def promises(self) -> list[str]:
        """What is promised, a line a class."""
        made = []
        for one in self.problem.config.slo.services():
            limits = (("TTFT", one.ttft), ("end to end", one.e2e))
            said = [f"{name} {show_seconds(limit / PS_PER_S)}" for name, limit in limits if limit is not None]
            if said:
                whose = f"{one.name}: " if self.problem.config.slo.classes else ""
                made.append(f"{whose}{' and '.join(said)} for {self.problem.asked.attainment:.4g} of requests")
        return made


def as_json(report: Report) -> dict[str, object]:
    """What was asked, the plan, every candidate with all that was measured, and the inputs of the machines."""
    problem, asked, best = report.problem, report.problem.asked, report.best
    seeds = range(problem.config.seed, problem.config.seed + asked.seeds)
    return {
        "complete": report.complete,
        "asked": {
            "requests_per_s": problem.rate,
            "experts": problem.config.experts.catalogue().count,
            "promises": [
                {
                    "class": one.name,
                    "ttft_s": None if one.ttft is None else one.ttft / PS_PER_S,
                    "e2e_s": None if one.e2e is None else one.e2e / PS_PER_S,
                }
                for one in problem.config.slo.services()
            ],
            **asdict(asked),
            "seeds": list(seeds),
            "confidence": CONFIDENCE,
            "requests": problem.requests,
            "warmup": problem.config.workload.warmup,
            "workload": problem.workload.source,
        },
        "cost": report.cost_unit,
        "plan": None if best is None else {"nodes": best.nodes, **best.candidate.point},
        "candidates": [_candidate(row) for row in report.rows],
        "inputs": [{"machine": m.name, **asdict(figure)} for m in report.machines for figure in m.figures],
    }


def _candidate(row: Row) -> dict[str, object]:
    machine = row.candidate.machine
    return {
        "candidate": row.candidate.point,
        "machine": machine.name,
        "nodes": row.nodes,
        "sockets": None if row.nodes is None else row.nodes * machine.sockets,
        "cost_per_hour": None
        if row.nodes is None or machine.cost_per_hour is None
        else row.nodes * machine.cost_per_hour,
        "searched": row.searched,
        "most_nodes": row.most,
        "cannot_run": row.cannot_run,
        "capacity_requests_per_s": row.capacity,
        "measured": [asdict(row.tried[nodes]) for nodes in sorted(row.tried)],
        "not_monotone": [[few.nodes, many.nodes] for few, many in row.not_monotone],
    }


def picture(report: Report) -> str:
    """The share that is not kept to, with its interval, over nodes: the best candidates, and what is asked."""
    problem = report.problem
    able = sorted((row for row in report.rows if _shown(row)), key=report.order)
    drawn, allowed = able[:MOST_DRAWN], 1 - problem.asked.attainment
    tried = {one.nodes for row in drawn for one in _shown(row)}
    counts = range(min(tried, default=1), max(tried, default=1) + 1)  # to scale, with the names of those tried
    series = [_series(row, counts, (place + 0.5) / len(drawn) - 0.5) for place, row in enumerate(drawn)]
    limit = [(-0.5, allowed), (len(counts) - 0.5, allowed)]
    series.append(Series(f"asked: at most {allowed:.3g}", limit, "line", NEUTRAL))
    notes = [
        f"{'; '.join(report.promises)}; {plain(problem.rate)} requests/s for "
        f"{problem.config.experts.catalogue().count:,} experts",
        f"{CONFIDENCE:.0%} intervals over {problem.asked.seeds} seeds, or fewer where these show that it fails; "
        "no request at all is drawn as half a one",
    ]
    if report.best is not None:
        notes.append(f"the plan: {report.best.nodes} nodes, {report.best.candidate.name}")
    if len(able) > len(drawn):
        notes.append(f"and {len(able) - len(drawn)} more candidates, all in plan.json")
    notes += [f"{m.name}: {'; '.join(assumptions(m).splitlines())}" for m in report.machines]
    nodes = Axis("nodes", names=tuple(str(count) if count in tried else "" for count in counts))
    share = Axis("share of requests", log=True, show=lambda value: f"{value:.4g}")
    return svg([Chart("Requests to which promises are not kept", nodes, share, series, notes)])


def _shown(row: Row) -> list[Measured]:
    return [row.tried[nodes] for nodes in sorted(row.tried) if row.tried[nodes].shares]


def _series(row: Row, counts: Sequence[int], aside: float) -> Series:
    """A candidate's dots, so far ``aside`` from the number of nodes (-0.5 to 0.5) that all are seen."""
    found = [(counts.index(one.nodes) + SPREAD * aside, *_missed(one)) for one in _shown(row)]
    points, ends = [(x, share) for x, share, _, _ in found], [(low, high) for _, _, low, high in found]
    return Series(row.candidate.name, points, "dots", ends=ends)


def _missed(one: Measured) -> tuple[float, float, float]:
    """The share missed of the class of which least is certain, and the ends of its interval, all above 0."""
    worst = one.worst
    assert worst is not None
    least = NONE_MISSED / worst.counted
    return max(1 - worst.share, least), max(1 - worst.high, least), max(1 - worst.low, least)

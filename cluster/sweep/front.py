"""The Pareto front of a sweep: of the choices that answer one question, those that none beats in cost and latency.

A question is what is asked of the machine: grid keys of ``[workload]`` and ``[experts]``. A choice is all the others.
Seeds are repetitions of one choice: its latency is the mean over them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cluster.sweep.definition import Point
from cluster.sweep.tasks import Found

LATENCIES = tuple(
    f"{what}.{spread}" for what in ("ttft_s", "tpot_s", "e2e_s") for spread in ("mean", "p50", "p90", "p99")
)
QUESTION = ("workload.", "experts.")
Rank = tuple[float, float]


@dataclass(frozen=True)
class Candidate:
    """A choice for a question: cost, latency in seconds (mean over seeds), the numbers of its points."""

    question: Point
    choice: Point
    cost: float
    latency_s: float
    points: tuple[int, ...]
    on_front: bool = False


def figures(summary: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, str | int | float]]:
    """The scalar figures of a summary by name, tables' as ``table.name``; lists are left out."""
    for key, value in summary.items():
        if isinstance(value, dict):
            yield from figures(value, f"{prefix}{key}.")
        elif isinstance(value, str | int | float):
            yield f"{prefix}{key}", value


def cost_unit(found: Iterable[Found]) -> tuple[str, str]:
    """What a cost is here: the key of a point's result, and how to say it.

    The price of all nodes where every point that ran has one, otherwise their sockets.
    """
    ran = [one for one in found if "summary" in one]
    prices = [one["cost_per_hour"] for one in ran]
    several = any(isinstance(one["summary"], dict) and "nodes" in one["summary"] for one in ran)
    if prices and None not in prices:
        return "cost_per_hour", f"machine.cost_per_hour{' of all nodes' if several else ''}, assumed, by the user"
    whose = "all nodes" if several else "one machine"
    return "sockets", f"sockets of {whose}, for not every machine has a cost_per_hour"


def candidates(points: Sequence[Point], found: Sequence[Found], latency: str) -> list[Candidate]:
    """The choices of which every seed ran, kept up and has a ``latency``, with who is on its question's front."""
    unit, _ = cost_unit(found)
    seeds: dict[str, list[int]] = {}
    for number, point in enumerate(points):
        seeds.setdefault(json.dumps({**point, "seed": None}, sort_keys=True), []).append(number)
    made = [_candidate(points, found, numbers, unit, latency) for numbers in seeds.values()]
    usable = [one for one in made if one is not None]
    ranks: dict[str, list[Rank]] = {}
    for one in usable:
        ranks.setdefault(_key(one), []).append((one.cost, one.latency_s))
    best = {key: front(of_question) for key, of_question in ranks.items()}
    return [replace(one, on_front=(one.cost, one.latency_s) in best[_key(one)]) for one in usable]


def front(ranks: Iterable[Rank]) -> set[Rank]:
    """Those for which no other is as good in one and better in the other; less is better in both."""
    kept: set[Rank] = set()
    lowest = float("inf")
    for cost, latency in sorted(set(ranks)):
        if latency < lowest:
            kept.add((cost, latency))
            lowest = latency
    return kept


def _key(one: Candidate) -> str:
    return json.dumps(one.question)


def _candidate(
    points: Sequence[Point], found: Sequence[Found], numbers: Sequence[int], unit: str, latency: str
) -> Candidate | None:
    latencies = []
    for number in numbers:
        summary = found[number].get("summary")
        value = dict(figures(summary)).get(latency) if isinstance(summary, dict) else None
        if not isinstance(value, int | float) or found[number]["overloaded"]:
            return None
        latencies.append(float(value))
    point = {key: value for key, value in points[numbers[0]].items() if key != "seed"}
    cost = found[numbers[0]][unit]
    assert isinstance(cost, int | float)
    return Candidate(
        question={key: value for key, value in point.items() if key.startswith(QUESTION)},
        choice={key: value for key, value in point.items() if not key.startswith(QUESTION)},
        cost=float(cost),
        latency_s=sum(latencies) / len(latencies),
        points=tuple(numbers),
    )

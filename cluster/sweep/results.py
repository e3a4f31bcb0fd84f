"""What a finished sweep is written as: a tidy CSV, JSON, the front as a picture. The same points, the same bytes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from cluster.chart import Chart, Series, svg
from cluster.inputs import assumptions
from cluster.scales import Axis, plain
from cluster.sweep.definition import Point
from cluster.sweep.front import Candidate, candidates, cost_unit, figures
from cluster.sweep.tasks import Found
from node.spec import Machine
from node.units import show_seconds

MOST_NOTES = 12  # lines below the picture
LOG_FROM = 10  # latencies further apart than so many times are drawn on a logarithmic axis


@dataclass(frozen=True)
class Results:
    """Points of a sweep and what came of each; ``latency``: the figure that cost is held against.

    ``machines``: those of the points, without the numbers that the grid varies.
    """

    points: Sequence[Point]
    found: Sequence[Found]
    latency: str
    machines: Sequence[Machine] = ()

    @property
    def candidates(self) -> list[Candidate]:
        """The choices that can be on a front."""
        return candidates(self.points, self.found, self.latency)

    @property
    def cost_unit(self) -> str:
        """What a cost is."""
        return cost_unit(self.found)[1]


def rows(results: Results) -> list[dict[str, object]]:
    """One row a point: grid keys, why it cannot run, whether on the front, the machine, the summary's figures."""
    best = {number for one in results.candidates if one.on_front for number in one.points}
    made = []
    for number, (point, found) in enumerate(zip(results.points, results.found, strict=True)):
        summary, notes = found.get("summary"), found.get("notes")
        row: dict[str, object] = {key: label(value) for key, value in point.items()}
        row["cannot_run"] = found.get("cannot_run")
        if isinstance(summary, dict) and isinstance(notes, list):
            own = {key: found[key] for key in ("sockets", "cost_per_hour", "overloaded")}
            row |= {"on_front": number in best, **own, **dict(figures(summary)), "notes": "; ".join(notes)}
        made.append({key: json.dumps(value) if isinstance(value, bool) else value for key, value in row.items()})
    return made


def as_csv(results: Results) -> str:
    """The rows; columns in the order in which they first come up, an empty field for what a point has not."""
    made = rows(results)
    text = io.StringIO()
    table = csv.DictWriter(text, dict.fromkeys(key for row in made for key in row), lineterminator="\n")
    table.writeheader()
    table.writerows(made)
    return text.getvalue()


def as_json(results: Results) -> dict[str, object]:
    """Points with their whole summaries, and the choices that can be on a front."""
    return {
        "cost": results.cost_unit,
        "latency": results.latency,
        "points": [{"point": p, **f} for p, f in zip(results.points, results.found, strict=True)],
        "candidates": [asdict(one) for one in results.candidates],
        "inputs": [{"machine": m.name, **asdict(figure)} for m in results.machines for figure in m.figures],
    }


def picture(results: Results) -> str:
    """Latency over cost: every choice a ring, those on a front full, one colour and one front a question."""
    found, series, notes = results.candidates, [], []
    questions = list(dict.fromkeys(names(one.question) for one in found))
    for colour, question in enumerate(questions):
        mine = [one for one in found if names(one.question) == question]
        best = sorted((one for one in mine if one.on_front), key=lambda one: one.cost)
        others = [(one.cost, one.latency_s) for one in mine if not one.on_front]
        ends = [(one.cost, one.latency_s) for one in best]
        said = f" {question}" if question else ""
        series.append(Series(f"front{said}", ends, "steps", colour))
        series.append(Series("on the front", ends, "dots", colour))
        series.append(Series("beaten", others, "dots", colour, hollow=True))
        notes += [
            f"front{said}: cost {plain(one.cost)}, {show_seconds(one.latency_s)}: {names(one.choice) or 'as set'}"
            for one in best
        ]
    left = len(notes) - MOST_NOTES
    notes = [*notes[:MOST_NOTES], f"and {left} more"] if left > 0 else notes
    notes += [f"{m.name}: {'; '.join(assumptions(m).splitlines())}" for m in results.machines]
    title = f"{results.latency.removesuffix('_s').replace('_s.', ' ')} against cost, mean over seeds"
    cost = Axis(f"cost: {results.cost_unit}")
    times = [one.latency_s for one in found]
    wide = bool(times) and max(times) > LOG_FROM * min(times)
    return svg([Chart(title, cost, Axis("seconds", log=wide, show=show_seconds), series, notes)])


def names(point: Point) -> str:
    """A point for people: the last part of each key, and its value."""
    return ", ".join(f"{key.rpartition('.')[2]} {label(value)}" for key, value in point.items())


def label(value: object) -> str:
    """A value of the grid as one word; a table or a list as JSON."""
    return value if isinstance(value, str) else json.dumps(value)

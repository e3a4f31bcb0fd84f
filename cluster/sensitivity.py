"""Which guess matters: each input of a machine that nobody published is set to both ends of its range.

The ends are those that the spec states. Where it states none they are the value divided by a factor and multiplied by
it, a fraction at most 1. One input is varied at a time, on the same requests, so that a difference is its doing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from cluster.chart import Chart, Series, svg
from cluster.config import Config
from cluster.scales import Axis
from cluster.sweep.front import figures
from cluster.sweep.tasks import Found, Solver
from node.errors import InputError
from node.spec import Figure, Machine, paths
from node.units import UNITS, parse

MOST_NAMES = 16  # of the picture


@dataclass(frozen=True)
class Varied:
    """An input and the ends of its range; ``stated``: whether the spec says them."""

    figure: Figure
    low: str
    high: str
    stated: bool


@dataclass(frozen=True)
class Effect:
    """The result at both ends; None, and ``reason``, where it has none there."""

    varied: Varied
    base: float
    at_low: float | None
    at_high: float | None
    reason: str | None = None

    @property
    def relative(self) -> float:
        """The greatest change of the result, as a fraction of what it is; 0 where it has none."""
        changes = [abs(at - self.base) for at in (self.at_low, self.at_high) if at is not None]
        greatest = max(changes, default=0.0)
        return greatest / abs(self.base) if self.base else (math.inf if greatest else 0.0)


def varied_of(machine: Machine, kinds: Sequence[str], factor: float) -> tuple[list[Varied], list[Figure]]:
    """The inputs of ``kinds``, and those of others that state a range; apart from them those that have none.

    Choices have no range, nor has a value of 0 that states none. ``cost_per_hour`` is no input of a run.
    """
    varied, without = [], []
    for figure in machine.figures:
        dimension, _ = paths()[figure.path]
        if figure.path == "cost_per_hour" or (figure.kind not in kinds and figure.range is None):
            continue
        if figure.range is not None:
            varied.append(Varied(figure, *figure.range, stated=True))
        elif "|" in dimension or parse(figure.value, dimension, figure.path) == 0:
            without.append(figure)
        else:
            low, high = (_times(figure, dimension, times) for times in (1 / factor, factor))
            varied.append(Varied(figure, low, high, stated=False))
    return varied, without


def _times(figure: Figure, dimension: str, times: float) -> str:
    """A value so many times as large, in the unit in which it is given, or in whole bytes."""
    value = parse(figure.value, dimension, figure.path)
    unit = max((one for one in UNITS[dimension] if figure.value.endswith(one)), key=len)
    scale = float(UNITS[dimension][unit])
    number = value * times / scale
    if dimension == "fraction":
        number = min(number, 1 / scale)
    if dimension in ("count", "bytes"):
        whole = max(1, round(value * times))
        number = whole / scale
        if float(f"{number:.6g}") != number:
            return f"{whole} B" if dimension == "bytes" else str(whole)
    return f"{number:.6g} {unit}".rstrip()


def effects(
    config: Config,
    varied: Sequence[Varied],
    result: str,
    solve: Solver,
    advance: Callable[[], None] = lambda: None,
) -> list[Effect]:
    """The effect of each input on a figure of the summary, greatest first; ``advance`` is called after each run.

    Raises ``InputError`` where the machine as it is cannot run, or has no such figure.
    """
    ends = [end for one in varied for end in ((one, one.low), (one, one.high))]
    tasks = [(0, config), *((number, _with(config, *end)) for number, end in enumerate(ends, 1))]
    found: dict[int, Found] = {}
    for number, answer in solve(tasks):
        found[number] = answer
        advance()
    base = _value(found[0], result)
    if base is None:
        reason = found[0].get("cannot_run")
        raise InputError(str(reason) if reason is not None else _no_figure(found[0], result))
    made = []
    for place, one in enumerate(varied):
        low, high = found[2 * place + 1], found[2 * place + 2]
        reason = low.get("cannot_run", high.get("cannot_run"))
        said = None if reason is None else str(reason)
        made.append(Effect(one, base, _value(low, result), _value(high, result), said))
    return sorted(made, key=lambda effect: -effect.relative)


def _with(config: Config, varied: Varied, value: str) -> Config:
    figure = varied.figure
    number = {"value": value, "kind": figure.kind, "source": "an end of its range"}
    return replace(config, machine=replace(config.machine, numbers={**config.machine.numbers, figure.path: number}))


def _value(found: Found, result: str) -> float | None:
    summary = found.get("summary")
    value = dict(figures(summary)).get(result) if isinstance(summary, dict) else None
    return float(value) if isinstance(value, int | float) else None


def _no_figure(found: Found, result: str) -> str:
    summary = found["summary"]
    assert isinstance(summary, dict)
    known = ", ".join(name for name, value in figures(summary) if not isinstance(value, str))
    return f"--result {result!r}: the run has no such figure; it has {known}"


def as_json(result: str, factor: float, found: Sequence[Effect], without: Sequence[Figure]) -> dict[str, object]:
    """Inputs by effect, with range, kind and source; those without a range."""
    return {
        "result": result,
        "base": found[0].base if found else None,
        "default_factor": factor,
        "inputs": [
            {
                **asdict(one.varied.figure),
                "low": one.varied.low,
                "high": one.varied.high,
                "range_stated": one.varied.stated,
                "at_low": one.at_low,
                "at_high": one.at_high,
                "effect": one.relative,
                "cannot_run": one.reason,
            }
            for one in found
        ],
        "without_range": [asdict(figure) for figure in without],
    }


def picture(result: str, found: Sequence[Effect]) -> str:
    """The result at both ends of each input, the one with the greatest effect on top."""
    shown = [*reversed(found[:MOST_NAMES])]
    names = tuple(f"{one.varied.figure.path} ({one.varied.figure.kind})" for one in shown)
    ends: dict[str, list[tuple[float, float]]] = {"low": [], "high": []}
    for place, one in enumerate(shown):
        for end, value in (("low", one.at_low), ("high", one.at_high)):
            if value is not None:
                ends[end].append((value, place))
    base = found[0].base if found else 0.0
    series = [
        Series("at the low end of its range", ends["low"], "dots"),
        Series("at the high end", ends["high"], "dots", hollow=True),
        Series("as the machine is", [(base, -0.5), (base, len(names) - 0.5)], "line", 6),
    ]
    return svg([Chart(f"{result} over the range of each input", Axis(result), Axis("", names=names), series)])

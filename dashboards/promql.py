"""Queries of what is chosen at the top of a dashboard, by names that ``cluster.metrics.families`` knows."""

from __future__ import annotations

from collections.abc import Callable

from cluster.metrics.families import FAMILIES

CHOSEN = {"run": 'run="$run"', "node": 'node=~"$node"', "socket": 'socket=~"$socket"'}
ENDINGS = {"gauge": "", "counter": "_total", "histogram": "_bucket"}


def gauge(name: str, *matchers: str) -> str:
    """The gauge's series of the chosen run, nodes and sockets, as far as it has those labels."""
    return _series(name, "gauge", *matchers)


def rate(name: str, *matchers: str) -> str:
    """By how much a counter, or each bucket of a histogram, goes up in a second of wall time."""
    return f"rate({_series(name, _counting(name), *matchers)}[$__rate_interval])"


def increase(name: str, *matchers: str) -> str:
    """By how much a counter goes up in the time that is shown."""
    return f"increase({_series(name, _counting(name), *matchers)}[$__range])"


def total(series: str, by: str = "") -> str:
    """Their sum, or a sum for each value of the labels ``by``."""
    return f"sum by ({by}) ({series})" if by else f"sum({series})"


def share_of_all(parts: str, by: str) -> str:
    """What share of all each value of the labels ``by`` has."""
    return f"{total(parts, by)} / scalar({total(parts)})"


def per_virtual_second(rates: str) -> str:
    """Rates by the second of virtual time, whatever the pace; no number where virtual time stands still."""
    return f"{rates} / scalar(max({rate('coe_virtual_time_seconds')}))"


def quantile(level: float, latency: str) -> str:
    """Of a latency of requests, in virtual seconds, by class."""
    return f"histogram_quantile({level:g}, {total(rate(f'coe_request_{latency}_seconds'), 'le, class')})"


def hit_rate(over: Callable[[str], str], by: str = "") -> str:
    """Hits by hits and misses; ``over``: ``rate`` or ``increase``. No series where nothing was asked for."""
    hits, misses = (total(over(f"coe_expert_{what}"), by) for what in ("hits", "misses"))
    return f"{hits} / ({hits} + {misses} > 0)"


def _counting(name: str) -> str:
    """Its kind; of a gauge there is no rate."""
    kind = FAMILIES[name].kind
    if kind == "gauge":
        raise ValueError(f"{name}: is a gauge, which has no rate")
    return kind


def _series(name: str, kind: str, *matchers: str) -> str:
    family = FAMILIES[name]
    if family.kind != kind:
        raise ValueError(f"{name}: is a {family.kind}, not a {kind}")
    chosen = [CHOSEN[label] for label in ("run", *family.labels) if label in CHOSEN]
    return f"{name}{ENDINGS[kind]}{{{','.join([*chosen, *matchers])}}}"

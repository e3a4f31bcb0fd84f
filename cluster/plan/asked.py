"""What a plan is asked for: requests at a rate, what they are promised, and what share of them it is to be kept to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.config import Config
from cluster.config_file import config_of_values
from cluster.runner import OVERLOAD
from cluster.traces import read_trace
from node.errors import InputError
from node.units import PS_PER_S

LEAST_REQUESTS, LEAST_SPAN_S = 2000, 600
WARMUP = 10  # one request in so many is left out, the first ones
PROMISES = ("ttft", "e2e")
Values = Mapping[str, tuple[object, str]]  # key -> its value, and where it was set


@dataclass(frozen=True)
class Asked:
    """``attainment``: the share of each class of requests, of those that are promised anything, to which it is kept.

    It is measured in runs from ``seeds`` seeds; no plan has more than ``most_nodes``.
    """

    attainment: float
    seeds: int
    most_nodes: int


def promises(text: str) -> dict[str, tuple[object, str]]:
    """The keys of ``[slo]`` that ``--slo`` gives, for example ``ttft=2s,e2e=30s``."""
    found: dict[str, tuple[object, str]] = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in PROMISES or not value or f"slo.{name}" in found:
            raise InputError(f"--slo {text!r}: must be ttft=TIME, e2e=TIME or both with a comma, each once")
        found[f"slo.{name}"] = (value, "--slo")
    return found


def workload_values(values: Values, rate: float | None, requests: int | None) -> dict[str, tuple[object, str]]:
    """``values`` with the rate, the number of requests and the warm-up of a run, where they do not say themselves.

    A run is long enough for requests that keep their promises to the last not to count as overload. A trace is read
    once, as a whole, and its arrivals are scaled to the rate.
    """
    made = dict(values)
    trace = config_of_values(made, used).workload.trace
    if requests is not None:
        made["workload.requests" if trace is None else "workload.limit"] = (requests, "--requests")
    if rate is not None and trace is None:
        made["workload.rate"] = (rate, "--rate")
    config = config_of_values(made, used)
    count, workload = config.workload.requests, config.workload
    if trace is not None:
        count, scale = _scaled(Path(trace), workload.limit, rate)
        if rate is not None and "workload.rate_scale" in made:
            raise InputError(
                f"{made['workload.rate_scale'][1]}: workload.rate_scale: --rate says it; remove one of the two"
            )
        if rate is not None:
            made["workload.rate_scale"] = (scale, "--rate")
    elif "workload.requests" not in made:
        count = max(LEAST_REQUESTS, math.ceil(workload.rate * workload.rate_scale * _span_s(config)))
        made["workload.requests"] = (count, "coe plan")
    if "workload.warmup" not in made:
        made["workload.warmup"] = (min(count, workload.limit or count) // WARMUP, "coe plan")
    return made


def _scaled(trace: Path, limit: int | None, rate: float | None) -> tuple[int, float]:
    """The requests of a trace, and what divides its arrivals so that they come at ``rate``."""
    arrival = read_trace(trace, limit).arrival_ps
    span_s = int(arrival[-1]) / PS_PER_S
    if not span_s:
        raise InputError(f"{trace}: all requests arrive at once: nothing can be planned for them")
    return len(arrival), 1.0 if rate is None else rate * span_s / len(arrival)


def _span_s(config: Config) -> float:
    """How long requests come for, so that the last to arrive may take as long as they are promised (s)."""
    longest = max((getattr(one, what) or 0 for one in config.slo.services() for what in PROMISES), default=0)
    return max(LEAST_SPAN_S, longest / PS_PER_S / (OVERLOAD - 1))


def used(key: str) -> bool:
    """Whether a key is one that ``coe plan`` reads."""
    return key != "routing.nodes" and not key.startswith("footprint.")

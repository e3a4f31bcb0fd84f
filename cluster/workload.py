"""The requests of a run: read from a trace or drawn from a seed, each with its expert."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cluster.distributions import parse_arrivals, parse_lengths
from cluster.traces import LONGEST_SPAN_PS, MOST_TOKENS, Int64s, Trace, read_trace
from node.errors import InputError
from node.request import Requests

IMAGE = 2  # the context of a model without tokens: an image counts as a token in, what comes of it as one out
MOST_REQUESTS = 10**7  # about 2 GB of requests

_POPULARITY = ("uniform", "zipf", "distinct")
_OVER_CONTEXT = ("run", "clip", "refuse")


@dataclass(frozen=True)
class WorkloadConfig:
    """The table ``workload`` of the configuration.

    ``rate`` in requests/s; lengths in tokens; ``limit``: how many requests are used; ``rate_scale``
    divides arrival times; the first ``warmup`` requests to arrive are left out of latency statistics;
    ``over_context`` is what happens to requests longer than their expert's context: run, clip or refuse.
    """

    trace: str | None = None
    requests: int = 1000
    rate: float = 0.5
    arrivals: str = "poisson"
    # Fitted to the Azure LLM inference trace 2023 (conversation). sigma: maximum likelihood estimate (the
    # standard deviation of the logarithms), max the trace's largest, mean such that the mean after the clip,
    # mean x P(z - sigma) + max x P(-z) with z = (ln max - mu) / sigma and P the standard normal distribution,
    # is the trace's: 1154.7 and 211.1 tokens. Kolmogorov-Smirnov distance from the trace: 0.18 for each.
    input_tokens: int | str = "lognormal(mean=1161, sigma=0.985, max=14050)"
    output_tokens: int | str = "lognormal(mean=217, sigma=0.859, max=1000)"
    popularity: str = "zipf"
    zipf_s: float = 1.0
    limit: int | None = None
    rate_scale: float = 1.0
    warmup: int = 0
    over_context: str = "run"


@dataclass(frozen=True)
class Workload:
    """Requests in order of arrival, and apart from them those refused for being over their expert's context.

    Ids count both. ``over_context`` counts the requests over it, whatever was done with them; ``source`` is
    ``generated`` or the trace's path; ``experts_given``: whether the trace names the experts.
    """

    requests: Requests
    refused: Requests
    over_context: int
    notes: tuple[str, ...]
    source: str
    experts_given: bool


def validate(config: WorkloadConfig) -> None:
    """Check every value; raises ``InputError`` that names the key, the value and what is allowed."""
    _whole("workload.requests", config.requests, 1, MOST_REQUESTS)
    _whole("workload.warmup", config.warmup, 0, MOST_REQUESTS)
    if config.limit is not None:
        _whole("workload.limit", config.limit, 1, MOST_REQUESTS)
    _number("workload.rate", config.rate, "above 0", lambda value: value > 0)
    _number("workload.rate_scale", config.rate_scale, "above 0", lambda value: value > 0)
    _number("workload.zipf_s", config.zipf_s, "of at least 0", lambda value: value >= 0)
    _choice("workload.popularity", config.popularity, _POPULARITY)
    _choice("workload.over_context", config.over_context, _OVER_CONTEXT)
    parse_arrivals(config.arrivals, "workload.arrivals")
    parse_lengths(config.input_tokens, "workload.input_tokens")
    parse_lengths(config.output_tokens, "workload.output_tokens")
    if config.trace is None:
        _check_warmup(config.warmup, min(config.requests, config.limit or config.requests))


def load(
    config: WorkloadConfig,
    weights: Sequence[float],
    contexts: Sequence[int],
    seed: int,
    classes: Sequence[float] = (1.0,),
) -> Workload:
    """The requests for ``len(weights)`` experts with these catalogue weights and contexts (tokens).

    A context of ``IMAGE`` is that of a model that is one pass over an image: nothing of a request is counted there.

    They are of ``classes`` of service in proportion to these shares. The same arguments give the same requests.
    Arrivals, input lengths, output lengths, experts and classes each have
    their own stream of random numbers, so that one key does not reshuffle what another draws. Raises
    ``InputError`` for a value that is not allowed and for a trace that cannot be read.
    """
    validate(config)
    _check_experts(weights, contexts)
    seeds = np.random.SeedSequence(_whole("seed", seed, 0, 2**64 - 1)).spawn(5)
    *streams, expert_stream, class_stream = (np.random.default_rng(child) for child in seeds)
    rows = _generate(config, streams) if config.trace is None else read_trace(Path(config.trace), config.limit)
    experts, notes = rows.experts, rows.notes
    if experts is None:
        experts = _choose(config, weights, len(rows.lines), expert_stream)
    else:
        _check_range(experts, rows, len(weights), str(config.trace))
        notes = (*notes, "experts as in the trace: workload.popularity and zipf_s have no effect")

    arrivals = _rescale(rows.arrival_ps, config.rate_scale)
    context = np.array(contexts, dtype=np.int64)[experts]
    inputs, outputs = (np.where(context == IMAGE, 1, tokens) for tokens in (rows.input_tokens, rows.output_tokens))
    over = inputs + outputs > context
    if config.over_context == "clip":
        outputs = np.minimum(outputs, context - 1)
        inputs = np.minimum(inputs, context - outputs)
    if IMAGE in contexts:
        notes = (*notes, "a request to a model of one pass is an image, and counts as one token in and one out")
    services = np.zeros_like(experts)
    if len(classes) > 1:
        services = class_stream.choice(len(classes), len(services), p=np.array(classes) / sum(classes))
    columns = (np.arange(len(arrivals)), arrivals, inputs, outputs, experts, services)
    requests = Requests(*(column.astype(np.int64, copy=False) for column in columns))
    refuses = over if config.over_context == "refuse" else np.zeros_like(over)
    requests, refused = requests.where(~refuses), requests.where(refuses)
    _check_warmup(config.warmup, len(requests))
    source = config.trace or "generated"
    return Workload(requests, refused, int(over.sum()), notes, source, rows.experts is not None)


def shares_of(config: WorkloadConfig, weights: Sequence[float]) -> npt.NDArray[np.float64]:
    """The share p of requests that is expected for each expert, where no trace names it; the shares add up to 1.

    p_i ~ 1 for distinct, weight_i for uniform, weight_i / rank_i^zipf_s for zipf, ranks from 1.
    """
    if config.popularity == "distinct":
        weights = [1.0] * len(weights)
    exponent = float(config.zipf_s) if config.popularity == "zipf" else 0.0
    with np.errstate(over="ignore"):  # in logarithms, so that no weight or exponent makes all shares 0
        logs = np.log(np.array(weights, dtype=np.float64)) - exponent * np.log(np.arange(1, len(weights) + 1))
    shares = np.exp(logs - logs.max())
    found: npt.NDArray[np.float64] = shares / shares.sum()
    return found


def _generate(config: WorkloadConfig, streams: Sequence[np.random.Generator]) -> Trace:
    """A trace drawn from the streams of arrivals, input lengths and output lengths; it names no experts."""
    count = config.requests if config.limit is None else min(config.requests, config.limit)
    process = parse_arrivals(config.arrivals, "workload.arrivals")
    arrivals = process.draw(count, float(config.rate), streams[0])
    inputs = parse_lengths(config.input_tokens, "workload.input_tokens").draw(count, streams[1])
    outputs = parse_lengths(config.output_tokens, "workload.output_tokens").draw(count, streams[2])
    return Trace(arrivals, inputs, outputs, None, np.arange(1, count + 1), ())


def _choose(config: WorkloadConfig, weights: Sequence[float], count: int, rng: np.random.Generator) -> Int64s:
    """An expert per request: in turn where ``popularity`` is ``distinct``, else drawn by ``shares_of``."""
    if config.popularity == "distinct":
        return np.arange(count) % len(weights)
    return rng.choice(len(weights), count, p=shares_of(config, weights))


def _rescale(arrival_ps: Int64s, rate_scale: float) -> Int64s:
    """Arrivals (ps) over ``rate_scale`` taken as the decimal it is written as; in integers, rounded once."""
    factor = Fraction(str(rate_scale))
    if int(arrival_ps[-1]) > LONGEST_SPAN_PS * factor:
        raise InputError(
            f"workload.rate_scale = {rate_scale!r}: arrivals would span more than {LONGEST_SPAN_PS} ps "
            "(69 days); allowed: a larger scale"
        )
    if factor == 1:
        return arrival_ps
    over, under = factor.denominator, factor.numerator
    return np.array([(2 * at * over + under) // (2 * under) for at in arrival_ps.tolist()], dtype=np.int64)


def _check_range(experts: Int64s, rows: Trace, count: int, path: str) -> None:
    wrong = np.flatnonzero(experts >= count)
    if wrong.size:
        first = wrong[np.argmin(rows.lines[wrong])]
        allowed = f"must be an expert of the catalogue, 0 to {count - 1}"
        raise InputError(f"{path}:{rows.lines[first]}: expert = {experts[first]}: {allowed}")


def _check_experts(weights: Sequence[float], contexts: Sequence[int]) -> None:
    if len(weights) == 0 or len(weights) != len(contexts):
        counts = f"{len(weights)} weights, {len(contexts)} contexts"
        raise InputError(f"experts: {counts}: must be one of each for at least 1 expert")
    for expert, (weight, context) in enumerate(zip(weights, contexts, strict=True)):
        _number(f"weight of expert {expert}", weight, "above 0", lambda value: value > 0)
        _whole(f"context of expert {expert}", context, 2, MOST_TOKENS)


def _check_warmup(warmup: int, requests: int) -> None:
    if warmup and warmup >= requests:
        raise InputError(f"workload.warmup = {warmup}: must be less than the number of requests, {requests}")


def _whole(key: str, value: object, low: int, high: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise InputError(f"{key} = {value!r}: must be a whole number from {low} to {high:,}")


def _number(key: str, value: object, allowed: str, legal: Callable[[float], bool]) -> None:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not (abs(number) <= sys.float_info.max and legal(number)):
        raise InputError(f"{key} = {value!r}: must be a finite number {allowed}")


def _choice(key: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InputError(f"{key} = {value!r}: must be one of {', '.join(choices)}")

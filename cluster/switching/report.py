"""All that ``coe switching`` says, as JSON and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from cluster.chart import Chart, Series, svg
from cluster.inputs import inputs
from cluster.scales import Axis
from cluster.switching.activation import FACTORS, HIT_RATES, Activation, Named, Share
from cluster.switching.measure import Switching
from cluster.switching.served import TEMPERATURES
from node.estimate import Call
from node.units import show_seconds

INPUTS = (
    "sockets", "hbm.capacity", "hbm.bandwidth", "hbm.efficiency", "ddr.bandwidth", "ddr.efficiency",
    "host_link.bandwidth", "host_link.sharing", "compute.efficiency", "kernel.launch_so", "kernel.launch_ho",
    "kernel.sync", "host.call_overhead",
)  # fmt: skip
WHY_NOT_OUT = "weights are read-only and every expert has its home copy in DDR: an eviction writes nothing back"
HIT_STEPS = 100
LEAST_RATE, MOST_RATE = 1e9, 1e12  # bytes/s of a socket, the ends of the picture's axis
MOST_POINTS = 400  # of a distribution's curve


@dataclass(frozen=True)
class Report:
    """By machine: ``activations`` of each model, ``bandwidths`` (factor, seconds), ``shares``, ``runs`` or why not."""

    named: Sequence[Named]
    call: Call
    activations: Sequence[Activation]
    bandwidths: dict[str, list[tuple[float, float]]]
    shares: Sequence[Share]
    runs: Sequence[Switching]
    cannot: dict[str, str]


def as_json(report: Report) -> dict[str, object]:
    """The report, times in seconds; ``copy_out`` with the reason why it is nothing."""
    return {
        "copy_out": WHY_NOT_OUT,
        "activations": [asdict(one) for one in report.activations],
        "bandwidths": [
            {"machine": machine, "factor": factor, "copy_in_s": time}
            for machine, rows in report.bandwidths.items()
            for factor, time in rows
        ],
        "call": {"input_tokens": report.call.input_tokens, "output_tokens": report.call.output_tokens},
        "shares": [
            {**asdict(one), "share_by_hit_rate": [{"hit_rate": h, "share": one.at(h)} for h in HIT_RATES]}
            for one in report.shares
        ],
        "runs": [one.as_json() for one in report.runs],
        "cannot_run": report.cannot,
        "inputs": [
            {"machine": label, **asdict(figure)}
            for label, machine in report.named
            for figure in machine.figures
            if figure.path in INPUTS
        ],
    }


def picture(report: Report) -> str:
    """Activation over bandwidth, its share over hit rates, requests by temperature, ages at eviction."""
    charts = [_over_bandwidth(report), _over_hit_rates(report)]
    if report.runs:
        charts += [_temperatures(report.runs), _ages(report.runs)]
    charts[-1] = replace(charts[-1], notes=[f"{name}: {inputs(machine, INPUTS)}" for name, machine in report.named])
    return svg(charts)


def _over_bandwidth(report: Report) -> Chart:
    """One line a model: bytes of a socket over bytes/s; one colour of dots a machine, at the rate that it reaches."""
    fit = [one for one in report.activations if one.cannot is None]
    bytes_of = {one.model: max(a.socket_bytes for a in fit if a.model == one.model) for one in fit}
    lines = [
        Series(model, [(rate / 1e9, size / rate) for rate in (LEAST_RATE, MOST_RATE)], colour=index)
        for index, (model, size) in enumerate(bytes_of.items())
    ]
    dots = []
    for index, (label, _) in enumerate(report.named):
        mine = [(a.socket_bytes / a.copy_in_s / 1e9, a.copy_in_s) for a in fit if a.machine == label]
        dots.append(Series(label, mine, "dots", colour=index, hollow=index > 0))
    rate = Axis("bandwidth that a socket reaches from the tier below HBM, GB/s", log=True)
    return Chart("Activation of one expert", rate, Axis("time", log=True, show=show_seconds), [*lines, *dots])


def _over_hit_rates(report: Report) -> Chart:
    rates = [step / HIT_STEPS for step in range(HIT_STEPS + 1)]
    series = [Series(one.machine, [(100 * h, 100 * one.at(h)) for h in rates]) for one in report.shares]
    call = f"{report.call.input_tokens} tokens in, {report.call.output_tokens} out"
    title = f"Share of activations in the time of a request alone ({call})"
    notes = [
        f"{one.machine}: activation {show_seconds(one.activation_s)}, router {show_seconds(one.router_s)}, expert "
        f"{show_seconds(one.expert_s)}"
        for one in report.shares
    ]
    return Chart(title, Axis("hit rate, %"), Axis("share, %"), series, notes)


def _temperatures(runs: Sequence[Switching]) -> Chart:
    names = Axis("machine", names=tuple(one.machine for one in runs))
    series = [
        Series(name, [(place, one.requests[name]) for place, one in enumerate(runs)], "bars") for name in TEMPERATURES
    ]
    notes = [
        "hot: waited for no copy; cold: waited for a copy, in the first batch its expert ever served; "
        "warm: waited for a copy of an expert that was evicted"
    ]
    return Chart("Requests of the workload", names, Axis("requests"), series, notes)


def _ages(runs: Sequence[Switching]) -> Chart:
    series = []
    for one in runs:
        every = max(1, len(one.ages) // MOST_POINTS)
        shown = [*enumerate(one.ages, 1)][::every]
        series.append(Series(one.machine, [(age, 100 * place / len(one.ages)) for place, age in shown], "steps"))
    age = Axis("time since its last use when an expert was evicted", log=True, show=show_seconds)
    return Chart("Age at eviction: the further left, the more the cache thrashes", age, Axis("evictions, %"), series)


def factors() -> tuple[str, ...]:
    """The factors of ``bandwidths``, for people."""
    return tuple("as it is" if factor == 1 else f"x {factor:g}" for factor in FACTORS)

"""The tables of ``coe switching``."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console

from cluster.inputs import inputs
from cluster.show import print_table
from cluster.switching.activation import HIT_RATES
from cluster.switching.report import INPUTS, WHY_NOT_OUT, Report, factors
from cluster.switching.served import TEMPERATURES, Estimated
from node.units import show_bytes, show_seconds


def switching_table(console: Console, report: Report) -> None:
    """By arithmetic, then by run; at the end the numbers that it rests on."""
    _activations(console, report)
    rows = [(label, *(show_seconds(time) for _, time in times)) for label, times in report.bandwidths.items()]
    heads = ("bandwidth of the tier below HBM", *factors())
    print_table(console, f"Activation of {report.activations[0].model} over bandwidth", heads, rows)
    _shares(console, report)
    for name, reason in report.cannot.items():
        console.print(f"\n{name} cannot run the workload: {reason}", highlight=False)
    if report.runs:
        _requests(console, report)
        _copies(console, report)
        _ages(console, report)
        _estimates(console, report)
    console.print()
    for label, machine in report.named:
        console.print(f"{label}: {inputs(machine, INPUTS)}", style="dim", highlight=False)


def _activations(console: Console, report: Report) -> None:
    models = dict.fromkeys(one.model for one in report.activations)
    rows = []
    for model in models:
        mine = [one for one in report.activations if one.model == model]
        times = ("does not fit" if one.cannot else show_seconds(one.copy_in_s) for one in mine)
        rows.append((model, show_bytes(mine[0].expert_bytes), *times))
    heads = ("model", "copied in", *(label for label, _ in report.named))
    print_table(console, "Activation of one expert: DDR to HBM", heads, rows)
    console.print(f"copied out: 0 B in 0 s: {WHY_NOT_OUT}", style="dim", highlight=False)


def _shares(console: Console, report: Report) -> None:
    rows = [
        (
            one.machine,
            *(show_seconds(time) for time in (one.router_s, one.expert_s, one.activation_s)),
            *(f"{one.at(hit_rate):.1%}" for hit_rate in HIT_RATES),
        )
        for one in report.shares
    ]
    call = f"{report.call.input_tokens} tokens in, {report.call.output_tokens} out"
    heads = ("hit rate h", "router R", "expert E", "copy A", *(f"{hit_rate:.0%}" for hit_rate in HIT_RATES))
    title = f"Share of activations in the time of a request alone, {call}: (1 - h) A / (R + E + (1 - h) A)"
    print_table(console, title, heads, rows)


def _requests(console: Console, report: Report) -> None:
    rows = []
    for one in report.runs:
        counts = (f"{one.requests[name]:,} ({one.requests[name] / one.total:.1%})" for name in TEMPERATURES)
        rows.append((one.machine, f"{one.total:,}", *counts, *(_at(one.ttft[name], "p50") for name in TEMPERATURES)))
    heads = ("machine", "requests", *TEMPERATURES, *(f"TTFT {name}" for name in TEMPERATURES))
    print_table(console, "Requests of the workload by what they found; TTFT is the median", heads, rows)
    console.print(
        "hot: waited for no copy; cold: waited for one, in the first batch that its expert served; warm: waited for "
        "one, of an expert that had served and was evicted. Together they are all requests",
        style="dim",
        highlight=False,
    )


def _copies(console: Console, report: Report) -> None:
    rows = [
        (
            one.machine,
            f"{one.copies:,}",
            show_bytes(one.copy_in_bytes),
            show_seconds(one.copy_in_s),
            "0 B",
            "0 s",
            show_seconds(one.waited_s),
            f"{one.waited_s / one.request_s:.1%}",
        )
        for one in report.runs
    ]
    heads = (
        "machine",
        "copies",
        "bytes in",
        "seconds in",
        "bytes out",
        "seconds out",
        "requests waited",
        "of their time",
    )
    print_table(console, "Copies of the workload", heads, rows)
    console.print(f"nothing is copied out: {WHY_NOT_OUT}", style="dim", highlight=False)


def _ages(console: Console, report: Report) -> None:
    rows = []
    for one in report.runs:
        again = f"{one.copied_again:,} ({one.copied_again / one.evictions:.0%})" if one.evictions else "-"
        ages = (_at(one.age_s, name) for name in ("min", "p10", "p50", "p90"))
        rows.append((one.machine, f"{one.evictions:,}", *ages, again, _at(one.again_s, "p50")))
    heads = ("machine", "evictions", "age, least", "p10", "p50", "p90", "copied again", "after, p50")
    print_table(console, "Age at eviction: time since the expert's last use", heads, rows)
    console.print(
        "a cache thrashes where experts leave soon after their last use and are soon copied again",
        style="dim",
        highlight=False,
    )


def _estimates(console: Console, report: Report) -> None:
    rows = [
        (
            one.machine,
            *_estimate(one.probed),
            show_seconds(one.true_s),
            "-" if one.probed is None else f"{one.probed.switching_s / one.true_s:.2f}",
            "-" if one.met is None else f"{show_seconds(one.met.switching_s)} ({one.met.batches:,} batches)",
        )
        for one in report.runs
    ]
    heads = ("machine", "TTFT, least", "TTFT, most", "estimate", "true", "estimate / true", "in the workload")
    print_table(console, "What an operator can measure: largest less smallest TTFT at full batch", heads, rows)
    console.print(
        "two full batches of equal requests for one expert, on an idle machine, which has to copy it for the first. "
        "Where a batch is not served together (scheduler paper, several groups) the estimate has waiting in it. In the "
        "workload: over its full batches, where queues and prompts differ too",
        style="dim",
        highlight=False,
    )


def _estimate(one: Estimated | None) -> tuple[str, str, str]:
    if one is None:
        return "-", "-", "-"
    return show_seconds(one.smallest_s), show_seconds(one.largest_s), show_seconds(one.switching_s)


def _at(spread: Mapping[str, float] | None, name: str) -> str:
    return "-" if spread is None else show_seconds(spread[name])

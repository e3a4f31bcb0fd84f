"""The same workload on several machines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cluster.backends import Backend
from cluster.config import Config
from cluster.deploy import machines_of
from cluster.nodes.live import Live
from cluster.requests_table import spent
from cluster.runner import Watch, notes, prepare, run
from cluster.summary import Summary
from node.spec import Figure, Machine

FITTED_TOKENS = 128
OTHER_SHARING = {"shared": ("per_socket", "link per GPU"), "per_socket": ("shared", "one link")}
# metric -> (where it is in the summary, whether more is better)
METRICS: dict[str, tuple[tuple[str, ...], bool]] = {
    "makespan_s": (("makespan_s",), False),
    "throughput_requests_per_s": (("throughput_requests_per_s",), True),
    "throughput_tokens_per_s": (("throughput_tokens_per_s",), True),
    "ttft_s.p50": (("ttft_s", "p50"), False),
    "ttft_s.p99": (("ttft_s", "p99"), False),
    "tpot_s.p50": (("tpot_s", "p50"), False),
    "e2e_s.p50": (("e2e_s", "p50"), False),
    "e2e_s.p99": (("e2e_s", "p99"), False),
    "switch_s_mean": (("switch_s_mean",), False),
    "hit_rate": (("hit_rate",), True),
}


@dataclass(frozen=True)
class Column:
    """One machine in the comparison: its label, its summary, and what its user should be told.

    ``spent``: mean time of a request by charge (s).
    """

    label: str
    summary: Summary
    notes: tuple[str, ...] = ()
    mean_input_tokens: float = 0.0
    spent: Mapping[str, float] = field(default_factory=dict)


def variants(names: Sequence[str], config: Config) -> list[tuple[str, Machine]]:
    """The machines to compare; one with a host link is there as it is, and with its link shared the other way."""
    found = []
    with config.naming_origins():
        machines = machines_of(names, config.machine.numbers)
    for machine in machines:
        found.append((machine.name, machine))
        if machine.host_link is not None:
            sharing, label = OTHER_SHARING[machine.host_link.sharing]
            said = Figure("host_link.sharing", sharing, "assumed", "the other way to read the comparison")
            figures = tuple(said if figure.path == said.path else figure for figure in machine.figures)
            other = replace(machine, host_link=replace(machine.host_link, sharing=sharing), figures=figures)
            found.append((f"{machine.name}, {label}", other))
    return found


def compare(
    config: Config,
    machines: Sequence[tuple[str, Machine]],
    make_backend: Callable[[], Backend],
    watch: Callable[[str, int], Watch],
) -> list[Column]:
    """Run the workload on each machine; what does not fit one of them is refused before the first run."""
    prepared = [(label, prepare(config, machine)) for label, machine in machines]
    columns = []
    for label, ready in prepared:
        result = run(config, make_backend(), ready, Live(watch(label, len(ready[1].requests))))
        told = notes(result, config.workload.over_context)
        tokens_in = float(result.columns["input_tokens"].mean())
        columns.append(Column(label, result.summary, told, tokens_in, spent(result.columns)))
    return columns


def regime(column: Column) -> tuple[str, ...]:
    """A note where a machine is compared far from the calls that it was fitted to."""
    machine = str(column.summary["machine"])
    if not machine.startswith("dgx") or column.mean_input_tokens <= 2 * FITTED_TOKENS:
        return ()
    return (
        f"the DGX machines are fitted to prompts of {FITTED_TOKENS} tokens; at {column.mean_input_tokens:,.0f} on "
        "average their prefill comes out too slow (docs/validation.md)",
    )


def value(summary: Summary, metric: str) -> float | None:
    """A metric of a summary; None where the run has none."""
    found: object = summary
    for key in METRICS[metric][0]:
        found = found[key] if isinstance(found, dict) else None
    return found if isinstance(found, int | float) else None


def ratio(first: Column, other: Column, metric: str) -> float | None:
    """How many times better the first machine is; None where it cannot be said."""
    mine, theirs = value(first.summary, metric), value(other.summary, metric)
    if not mine or not theirs:
        return None
    return mine / theirs if METRICS[metric][1] else theirs / mine


def as_json(columns: Sequence[Column]) -> dict[str, object]:
    """Every machine's summary, and by metric how many times better the first machine is than each."""
    first = columns[0]
    ratios = {column.label: {m: ratio(first, column, m) for m in METRICS} for column in columns[1:]}
    return {
        "machines": [{"label": column.label, **column.summary} for column in columns],
        "first_is_better_by": ratios,
    }

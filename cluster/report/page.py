"""``report.html`` of a run and of a comparison, from their figures and one template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import jinja2

from cluster.compare import Column
from cluster.config import Config
from cluster.measured import measured
from cluster.not_served import TURNED_AWAY
from cluster.report import machines, memory
from cluster.report.binned import latencies
from cluster.report.figure import Cell, Figure, cell, flat
from cluster.report.latency import latency, time_over_run, where_time_went
from cluster.report.levels import levels
from cluster.report.nodes import nodes
from cluster.runner import Run
from cluster.show import LABELS
from cluster.show_run import times
from cluster.summary import Summary
from node.deployment import Deployment
from node.spec import KINDS, Machine

_ON_TOP = ("throughput_requests_per_s", "throughput_tokens_per_s", "ttft_s.p50", "ttft_s.p99", "tpot_s.p50",
           "e2e_s.p50", "e2e_s.p99", "hit_rate", "expert_activations", "makespan_s")  # fmt: skip
HEADLINES = {name: {**LABELS, "expert_activations": "activations"}[name] for name in _ON_TOP}
HOW_IT_RAN = ("cluster", "footprint", "explicit")  # changes no result
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def run_page(config: Config, result: Run, notes: Sequence[str]) -> str:
    """The page of a run, with the ``notes`` that its user is told."""
    deployment, summary, columns = result.deployment, result.summary, result.columns
    numbers = dict(flat(summary))
    warmup, several = config.workload.warmup, _nodes(summary)
    counted, promised = measured(result.workload, columns, warmup), summary.get("service_levels")
    figures = [
        *(
            latency(name, found, summary, columns["queue"][counted])
            for name, found in latencies(columns, counted).items()
        ),
        where_time_went(columns),
        memory.hit_rate(summary),
        *([levels(promised)] if isinstance(promised, dict) else []),
        *([nodes(several)] if several else []),
        memory.tiers(summary, deployment),
        memory.engines(summary, deployment),
        memory.hbm_over_run(result.residents, deployment),
        time_over_run(columns, result.residents),
        memory.residents(result.residents, columns["expert"], len(several) or 1),
        memory.switches(result.residents),
    ]
    facts = [
        ("machine", f"{deployment.machine.title} ({deployment.machine.name})"),
        ("workload", f"{summary['requests']:,} requests, {result.workload.source}"),
        *_served(deployment),
        *((f"turned away, {why.replace('_', ' ')}", f"{summary[why]:,}") for why in TURNED_AWAY if why in summary),
        *([("nodes", f"{len(several)}, policy {config.routing.policy}")] if several else []),
        *([("warmup", f"latencies leave out the first {warmup:,} requests")] if warmup else []),
    ]
    return _page(
        title=f"{times(summary)}{deployment.machine.title}: {deployment.catalogue.count} experts",
        facts=facts,
        config=list(differing(config)),
        notes=notes,
        tiles=[(label, cell(name, numbers[name])) for name, label in HEADLINES.items() if name in numbers],
        figures=figures,
        numbers=[[Cell(name), cell(name, value)] for name, value in numbers.items()],
        machines=[inputs(deployment.machine)],
    )


def _nodes(summary: Summary) -> list[Summary]:
    """What is known of each of several nodes."""
    found = summary.get("nodes", [])
    assert isinstance(found, list)
    return found


def compare_page(
    config: Config, variants: Sequence[tuple[str, Machine]], columns: Sequence[Column], notes: Sequence[str]
) -> str:
    """The page of a comparison: machines side by side."""
    return _page(
        title=f"The same workload on {len(columns)} machines",
        facts=[("machines", "; ".join(column.label for column in columns)), ("workload", _workload(config, columns))],
        config=list(differing(config)),
        notes=notes,
        tiles=[],
        figures=[machines.table(columns), *machines.metrics(columns), machines.time_went(columns)],
        numbers=[],
        machines=[inputs(machine, label) for label, machine in variants],
    )


def differing(config: Config) -> Iterator[tuple[str, str]]:
    """The keys, and their values, that are not the defaults; without those that change no result."""
    default = asdict(Config())
    for table, values in asdict(config).items():
        if table in HOW_IT_RAN:
            continue
        for key, value in values.items() if isinstance(values, dict) else [("", values)]:
            if key == "numbers":
                yield from ((f"machine.{path}", number["value"]) for path, number in value.items())
            elif value != (default[table][key] if key else default[table]):
                yield f"{table}.{key}".rstrip("."), str(value)


def inputs(machine: Machine, label: str = "") -> dict[str, object]:
    """The numbers of a machine by kind, each with its source."""
    by_kind = {kind: [figure for figure in machine.figures if figure.kind == kind] for kind in KINDS}
    return {"label": label or machine.name, "kinds": by_kind}


def _served(deployment: Deployment) -> Iterator[tuple[str, str]]:
    catalogue, options = deployment.catalogue, deployment.options
    groups = (f"{group.count:,} x {group.model} ({group.dtype})" for group in islice(catalogue.groups, 8))
    more = f" and {len(catalogue.groups) - 8:,} more groups" if len(catalogue.groups) > 8 else ""
    yield "experts", ", ".join(groups) + more
    yield "router", catalogue.router or "none"
    yield "sharding", f"{deployment.machine.sockets} sockets in groups of {deployment.degree}, tensor parallel"
    prefetch = ", prefetch" if options.prefetch else ""
    yield "runtime", f"scheduler {options.scheduler}, batch {options.batch}, eviction {options.eviction}{prefetch}"


def _workload(config: Config, columns: Sequence[Column]) -> str:
    return f"{columns[0].summary['requests']:,} requests, {config.workload.trace or 'generated'}"


def _page(**values: object) -> str:
    figures = values["figures"]
    assert isinstance(figures, list) and all(isinstance(figure, Figure) for figure in figures)
    return _ENVIRONMENT.get_template("page.html").render(**values) + "\n"

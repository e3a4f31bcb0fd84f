"""A whole run: config in, what came of it out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cluster.backends import Backend, LocalBackend
from cluster.config import Config
from cluster.cycles import no_search_for_cycles
from cluster.deploy import check_routing, deployment_of, window_of, workload_of
from cluster.nodes.live import Live
from cluster.nodes.node import State
from cluster.nodes.serve import Observe, serve
from cluster.not_served import NotServed
from cluster.residency import Residents, joined
from cluster.summary import Summary, summarise
from cluster.timeline import Collected, together
from cluster.workload import Workload
from node.dataflow.fusion import LEVELS
from node.deployment import Deployment
from node.errors import InputError
from node.events import Ints
from node.spec import Machine
from node.units import PS_PER_S, show_seconds


@dataclass(frozen=True)
class Run:
    """What came of a run: ``columns`` of the requests served, in order of arrival, and the ``others``.

    It was done in so many ``windows``, of all nodes, with so many ``restarts`` of actors.
    """

    deployment: Deployment
    workload: Workload
    summary: Summary
    columns: dict[str, Ints]
    others: NotServed
    timeline: Collected
    residents: Residents
    windows: int
    restarts: int


OVERLOAD, OVERLOAD_REQUESTS = 1.05, 100  # makespan over the span of arrivals, and how many requests it takes to say
Watch = Callable[[State], None]


@contextlib.contextmanager
def backends(config: Config) -> Iterator[Callable[[], Backend]]:
    """A maker of backends of the configured kind; a Ray cluster is joined or started once, and left at the end."""
    if config.cluster.backend == "local":
        cores = len(os.sched_getaffinity(0))
        yield lambda: LocalBackend(cores)
        return
    from cluster.ray_backend import RayBackend, ray_session  # noqa: PLC0415  takes as long as all else to import

    with ray_session(config.cluster.address):
        yield RayBackend


def prepare(config: Config, machine: Machine | None = None) -> tuple[Deployment, Workload]:
    """Deployment and workload; everything that can be wrong with the input is found here."""
    with config.naming_origins():
        window_of(config)
        check_routing(config)
        deployment = deployment_of(config, machine)
        deployment.check_fits()
        workload = workload_of(config, deployment)
        if machine is None:  # in a comparison a key may serve one machine and not another
            _check_machine(config, deployment.machine)
            _check_groups(config, deployment)
        deployment.check_lengths(workload.requests)
    return deployment, workload


def _check_machine(config: Config, machine: Machine) -> None:
    """``InputError`` for a key that is set and that this machine makes pointless."""
    most, given = machine.kernel.fusion, config.runtime.fusion
    if "runtime.fusion" in config.explicit and LEVELS.index(given) > LEVELS.index(most):
        raise InputError(f"runtime.fusion = {given!r}: {machine.name} cannot fuse more than {most!r}")
    if "runtime.orchestration" in config.explicit and machine.kernel.launch_ho is None:
        raise InputError(f"runtime.orchestration: has no effect, because {machine.name} has no kernel.launch_ho")


def _check_groups(config: Config, deployment: Deployment) -> None:
    """``InputError`` for a key that says what is in which group, where there is only one."""
    for key in ("placement", "home", "replicas", "router", "rebalance"):
        if f"sharding.{key}" in config.explicit and deployment.groups == 1:
            raise InputError(
                f"sharding.{key}: has no effect, because sharding.tensor_parallel = {deployment.degree} makes one "
                f"group of all sockets of {deployment.machine.name}"
            )


def run(
    config: Config,
    backend: Backend,
    prepared: tuple[Deployment, Workload],
    live: Live | None = None,
    timeline_limit: int = 0,
    observe: Observe | None = None,
) -> Run:
    """Run the workload on ``backend``, check every conservation law, and sum up. The backend is stopped.

    ``live`` says who follows it while it goes on; ``observe`` is given the commands of each window, by group, once the
    sockets have done them.
    """
    deployment, workload = prepared
    deployment.check_lengths(workload.requests)
    live = live or Live()
    try:
        with no_search_for_cycles():
            found = serve(config, prepared, backend, live, timeline_limit, observe)
    finally:
        backend.stop()
    columns, outcomes = found.columns, found.outcomes
    if not len(columns["request"]):
        raise InputError("runtime.shed_late: every request was turned away; give slo.ttft more time")
    others, tallies = NotServed.of(workload, found.turned_away, found.chosen), [one.tally for one in outcomes]
    sockets = (one.counters[socket] for one in outcomes for socket in sorted(one.counters))
    counters, warmup = dict(enumerate(sockets)), config.workload.warmup
    return Run(
        deployment,
        workload,
        summarise(deployment, workload, tallies, columns, counters, others, warmup),
        columns,
        others,
        together([one.timeline for one in outcomes]),
        joined([one.residents for one in outcomes]).residents(),
        sum(one.windows for one in outcomes),
        live.health.restarts,
    )


def notes(result: Run, over_context: str) -> tuple[str, ...]:
    """What the user should be told of a run: of its workload, of requests over context, of overload."""
    told, summary = list(result.workload.notes), result.summary
    over, makespan = result.workload.over_context, summary["makespan_s"]
    if over:
        done = {"run": "run all the same", "clip": "clipped to it", "refuse": "refused"}[over_context]
        told.append(f"{over:,} of {summary['requests']:,} requests exceed their model's context: {done}")
    assert isinstance(makespan, float)
    if overloaded(result):
        told.append(
            f"{_machines(summary)} not keep up: requests came for {show_seconds(_arrived(result))}, serving "
            f"them took {show_seconds(makespan)}; waiting times grow with the length of the workload"
        )
    return tuple(told)


def _machines(summary: Summary) -> str:
    """Those of a run, with their verb."""
    nodes = summary.get("nodes")
    return f"{len(nodes)} {summary['machine']} do" if isinstance(nodes, list) else f"{summary['machine']} does"


def overloaded(result: Run) -> bool:
    """Whether serving took so much longer than requests came for that latencies grow with the workload's length."""
    makespan = result.summary["makespan_s"]
    assert isinstance(makespan, float)
    return len(result.workload.requests) >= OVERLOAD_REQUESTS and makespan > OVERLOAD * _arrived(result) > 0


def _arrived(result: Run) -> float:
    return int(result.workload.requests.arrival[-1]) / PS_PER_S

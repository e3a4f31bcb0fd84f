"""A whole run: config in, what came of it out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cluster.backends import Backend, LocalBackend, RayBackend, ray_session
from cluster.config import Config
from cluster.coordinator import Coordinator
from cluster.deploy import deployment_of, window_of, workload_of
from cluster.requests_table import columns_of
from cluster.residency import Residency, Residents
from cluster.summary import Summary, summarise
from cluster.timeline import Timeline
from cluster.workload import Workload
from node.conservation import verify
from node.dataflow.fusion import LEVELS
from node.deployment import Deployment
from node.errors import InputError
from node.events import Ints
from node.planned import Planned
from node.simulation import Simulation
from node.spec import Machine
from node.units import PS_PER_S, show_seconds


@dataclass(frozen=True)
class Progress:
    """How far a run is, in virtual time (ps) and requests."""

    now: int
    completed: int
    requests: int
    hits: int
    misses: int


@dataclass(frozen=True)
class Run:
    """What came of a run."""

    deployment: Deployment
    workload: Workload
    summary: Summary
    columns: dict[str, Ints]
    timeline: Timeline
    residents: Residents


OVERLOAD, OVERLOAD_REQUESTS = 1.05, 100  # makespan over the span of arrivals, and how many requests it takes to say
Watch = Callable[[Progress], None]


@contextlib.contextmanager
def backends(config: Config) -> Iterator[Callable[[], Backend]]:
    """A maker of backends of the configured kind; a Ray cluster is joined or started once, and left at the end."""
    if config.cluster.backend == "local":
        yield LocalBackend
        return
    with ray_session(config.cluster.address):
        yield RayBackend


def prepare(config: Config, machine: Machine | None = None) -> tuple[Deployment, Workload]:
    """Deployment and workload; everything that can be wrong with the input is found here."""
    with config.naming_origins():
        window_of(config)
        deployment = deployment_of(config, machine)
        deployment.check_fits()
        workload = workload_of(config, deployment)
        if machine is None:  # in a comparison a key may serve one machine and not another
            _check_machine(config, deployment.machine)
        deployment.check_lengths(workload.requests)
    return deployment, workload


def _check_machine(config: Config, machine: Machine) -> None:
    """``InputError`` for a key that is set and that this machine makes pointless."""
    most, given = machine.kernel.fusion, config.runtime.fusion
    if "runtime.fusion" in config.explicit and LEVELS.index(given) > LEVELS.index(most):
        raise InputError(f"runtime.fusion = {given!r}: {machine.name} cannot fuse more than {most!r}")
    if "runtime.orchestration" in config.explicit and machine.kernel.launch_ho is None:
        raise InputError(f"runtime.orchestration: has no effect, because {machine.name} has no kernel.launch_ho")


def run(
    config: Config,
    backend: Backend,
    prepared: tuple[Deployment, Workload],
    watch: Watch = lambda _progress: None,
    timeline_limit: int = 0,
) -> Run:
    """Run the workload on ``backend``, check every conservation law, and sum up. The backend is stopped."""
    deployment, workload = prepared
    simulation = deployment.simulation(workload.requests)
    timeline = Timeline(deployment, timeline_limit)
    residency = Residency(deployment, simulation.requests.expert)

    def observe(planned: dict[int, Planned]) -> None:
        timeline.observe(planned)
        residency.observe(planned)
        watch(_progress(simulation, len(workload.requests)))

    coordinator = Coordinator(
        deployment, simulation, backend, window_of(config), config.cluster.sockets_per_actor, observe
    )
    try:
        coordinator.run()
    finally:
        backend.stop()
    columns = columns_of(simulation)
    verify(deployment, simulation, coordinator.counters, columns)
    summary = summarise(deployment, workload, simulation, columns, coordinator.counters, config.workload.warmup)
    return Run(deployment, workload, summary, columns, timeline, residency.finish(simulation.now))


def notes(result: Run, over_context: str) -> tuple[str, ...]:
    """What the user should be told of a run: of its workload, of requests over context, of overload."""
    told, summary = list(result.workload.notes), result.summary
    over, makespan = result.workload.over_context, summary["makespan_s"]
    if over:
        done = {"run": "run all the same", "clip": "clipped to it", "refuse": "refused"}[over_context]
        told.append(f"{over:,} of {summary['requests']:,} requests exceed their model's context: {done}")
    arrived = result.workload.requests[-1].arrival / PS_PER_S
    assert isinstance(makespan, float)
    if len(result.workload.requests) >= OVERLOAD_REQUESTS and makespan > OVERLOAD * arrived > 0:
        told.append(
            f"{summary['machine']} does not keep up: requests came for {show_seconds(arrived)}, serving them took "
            f"{show_seconds(makespan)}; waiting times grow with the length of the workload"
        )
    return tuple(told)


def _progress(simulation: Simulation, requests: int) -> Progress:
    groups = simulation.groups
    return Progress(
        now=simulation.now,
        completed=simulation.completed,
        requests=requests,
        hits=sum(group.hits for group in groups),
        misses=sum(group.misses for group in groups),
    )

"""A whole run: config in, what came of it out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cluster.backends import Backend, LocalBackend, RayBackend, ray_session
from cluster.config import Config
from cluster.coordinator import Coordinator
from cluster.deploy import deployment_of, window_of, workload_of
from cluster.requests_table import RequestsTable
from cluster.summary import Summary, summarise
from cluster.timeline import Timeline
from cluster.workload import Workload
from node.conservation import verify
from node.deployment import Deployment
from node.events import Ints
from node.simulation import Planned, Simulation
from node.spec import Machine


@dataclass(frozen=True)
class Progress:
    """How far a run is, in virtual time (ps) and requests."""

    now: int
    completed: int
    requests: int
    hits: int
    activations: int


@dataclass(frozen=True)
class Run:
    """What came of a run."""

    deployment: Deployment
    workload: Workload
    summary: Summary
    columns: dict[str, Ints]
    timeline: Timeline


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
    window_of(config)
    deployment = deployment_of(config, machine)
    deployment.check_fits()
    workload = workload_of(config, deployment)
    deployment.check_lengths(workload.requests)
    return deployment, workload


def run(
    config: Config,
    backend: Backend,
    prepared: tuple[Deployment, Workload],
    watch: Watch = lambda _progress: None,
    timeline_limit: int = 0,
) -> Run:
    """Run the workload on ``backend``, check every conservation law, and sum up. The backend is stopped."""
    deployment, workload = prepared
    table = RequestsTable()
    simulation = deployment.simulation(workload.requests, table.add)
    timeline = Timeline(deployment, timeline_limit)

    def observe(planned: dict[int, list[Planned]]) -> None:
        timeline.observe(planned)
        watch(_progress(simulation, len(workload.requests)))

    coordinator = Coordinator(
        deployment, simulation, backend, window_of(config), config.cluster.sockets_per_actor, observe
    )
    try:
        coordinator.run()
    finally:
        backend.stop()
    columns = table.columns()
    verify(deployment, simulation, coordinator.counters, int(columns["e2e"].sum()))
    summary = summarise(deployment, workload, simulation, columns, coordinator.counters, config.workload.warmup)
    return Run(deployment, workload, summary, columns, timeline)


def _progress(simulation: Simulation, requests: int) -> Progress:
    groups = simulation.runtime.groups
    return Progress(
        now=simulation.now,
        completed=simulation.completed,
        requests=requests,
        hits=sum(group.hits for group in groups),
        activations=sum(group.activations.total() for group in groups),
    )

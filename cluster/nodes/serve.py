"""A workload on one node, or on several behind a front-end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cluster.backends import Backend, LocalBackend
from cluster.config import Config
from cluster.deploy import front_end_of, staleness_of, window_of
from cluster.nodes.course import Course
from cluster.nodes.fleet import Fleet
from cluster.nodes.live import Live
from cluster.nodes.node import Node, Outcome, State
from cluster.nodes.record import Plan
from cluster.requests_table import columns_of
from cluster.residency import SHOWN, most_asked
from cluster.workload import Workload
from node.deployment import Deployment
from node.events import Ints
from node.planned import Planned
from node.request import Requests
from node.runtime.admission import TurnedAway
from node.units import NEVER

Observe = Callable[[dict[int, Planned]], None]
MANY = 50_000  # requests from which on a second process is worth its start, and what it compiles once more


@dataclass(frozen=True)
class Served:
    """What came of a workload: ``columns`` of those who were served, and who was not, by their places in the workload.

    ``chosen``: of each request its node, where there are several.
    """

    columns: dict[str, Ints]
    turned_away: list[TurnedAway]
    outcomes: Sequence[Outcome]
    chosen: Ints | None = None


def serve(
    config: Config,
    prepared: tuple[Deployment, Workload],
    backend: Backend,
    live: Live,
    timeline_limit: int,
    observe: Observe | None,
) -> Served:
    """Serve it; ``observe`` is given the windows of a single node."""
    deployment, workload = prepared
    nodes, per_actor = config.routing.nodes, config.cluster.sockets_per_actor
    if per_actor is None:
        per_actor = 1 if config.cluster.backend == "ray" and nodes == 1 else deployment.machine.sockets
    window, paced = window_of(config), live.pace.window()
    if paced is not None and config.cluster.window == "auto":
        window = paced
    shown = most_asked(workload.requests.expert, SHOWN)
    plan = Plan(window, per_actor, shown, timeline_limit // nodes, live.metered, live.exporter)
    if nodes == 1:
        followed = observe is not None or live.pace.factor is not None
        cores = backend.cores if isinstance(backend, LocalBackend) else 1
        plan = replace(plan, beside=cores > 1 and not followed and len(workload.requests) >= MANY)
        return _alone(deployment, workload.requests, backend, plan, live, observe)
    workers = min(config.cluster.node_workers or backend.places(deployment.machine.sockets), nodes)
    fleet = Fleet(deployment, nodes, backend, workers, plan, live)
    looks_every = staleness_of(config) or paced
    return _together(workload.requests, *fleet.run(workload.requests, front_end_of(config), looks_every))


def _alone(
    deployment: Deployment,
    requests: Requests,
    backend: Backend,
    plan: Plan,
    live: Live,
    observe: Observe | None,
) -> Served:
    def observed(planned: dict[int, Planned], state: State) -> None:
        if observe is not None:
            observe(planned)
        live.pace.hold(state.now)
        if (reading := node.reading()) is not None:
            live.post(0, reading)
        live.watch(state)

    begun, pauses = live.pauses.begun, live.pauses
    course = Course.beginning(0, deployment, requests, plan) if begun is None else Course.unpacked(begun)
    if begun is not None:
        live.pace.begin(course.planning(deployment, live.metered).now)
    with contextlib.closing(Node(deployment, course, backend, plan, observed, live.health)) as node:
        while not node.advance(NEVER):
            if pauses.due():
                pauses.keep(node.pause())
        found = node.outcome(node.end())
    return Served(columns_of(requests.where(found.served), found.columns), found.turned_away, [found])


def _together(requests: Requests, chosen: Ints, outcomes: Sequence[Outcome]) -> Served:
    """What came of all nodes; ``chosen``: of each request its node."""
    places = [np.flatnonzero(chosen == node) for node in range(len(outcomes))]
    of_node = list(zip(places, outcomes, strict=True))
    served = np.concatenate([place[one.served] for place, one in of_node])
    order = np.argsort(served)
    served = served[order]
    found = {name: np.concatenate([one.columns[name] for one in outcomes])[order] for name in outcomes[0].columns}
    gone = [away._replace(request=int(place[away.request])) for place, one in of_node for away in one.turned_away]
    columns = columns_of(requests.where(served), {"node": chosen[served], **found})
    return Served(columns, sorted(gone), outcomes, chosen)

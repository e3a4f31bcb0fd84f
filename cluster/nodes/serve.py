"""A workload on one node, or on several behind a front-end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.backends import Backend, LocalBackend
from cluster.config import Config
from cluster.deploy import front_end_of, staleness_of, window_of
from cluster.nodes.doing import Observe, Plan
from cluster.nodes.fleet import Fleet
from cluster.nodes.node import Node, Outcome, State
from cluster.requests_table import columns_of
from cluster.residency import most_asked
from cluster.workload import Workload
from node.deployment import Deployment
from node.events import Ints
from node.lane import NEVER
from node.request import Requests
from node.runtime.admission import TurnedAway

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
    watch: Callable[[State], None],
    timeline_limit: int,
    observe: Observe | None,
) -> Served:
    """Serve it; ``observe`` is given the windows of a single node."""
    deployment, workload = prepared
    nodes, per_actor = config.routing.nodes, config.cluster.sockets_per_actor
    if per_actor is None:
        per_actor = 1 if config.cluster.backend == "ray" and nodes == 1 else deployment.machine.sockets
    plan = Plan(window_of(config), per_actor, most_asked(workload.requests.expert), timeline_limit // nodes)
    if nodes == 1:
        return _alone(deployment, workload.requests, backend, plan, watch, observe)
    workers = min(config.cluster.node_workers or backend.cpus, nodes)
    fleet = Fleet(deployment, nodes, backend, workers, plan, watch)
    return _together(workload.requests, *fleet.run(workload.requests, front_end_of(config), staleness_of(config)))


def _alone(
    deployment: Deployment,
    requests: Requests,
    backend: Backend,
    plan: Plan,
    watch: Callable[[State], None],
    observe: Observe | None,
) -> Served:
    local = isinstance(backend, LocalBackend) and backend.cores > 1
    beside = local and observe is None and len(requests) >= MANY
    with contextlib.closing(Node(0, deployment, requests, backend, plan, observe, beside=beside)) as node:
        while not node.advance(NEVER):
            watch(node.state)
        found = node.outcome(node.end())
        watch(node.state)
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

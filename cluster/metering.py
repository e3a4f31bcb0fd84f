"""What a run's metrics say of what does not change, and of what the experts need of other machines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from cluster import __version__
from cluster.config import COMPARED, Config
from cluster.deploy import deployment_of
from cluster.footprint import capacity, row
from cluster.metrics.board import Board, Facts, Health, Held
from cluster.nodes.live import Live
from cluster.pace import Pace
from cluster.residency import most_asked
from cluster.workload import Workload
from node.deployment import Deployment
from node.errors import InputError
from node.spec_file import load_machine
from node.units import PS_PER_S, picoseconds


def board_of(
    config: Config,
    prepared: tuple[Deployment, Workload],
    run: str,
    experts: int,
    pace: Pace,
    *,
    sockets_apart: bool = False,
) -> Board:
    """The board of a run that has yet to begin; so many ``experts`` have metrics of their own, those most asked for.

    ``sockets_apart``: see ``Facts``.
    """
    deployment, workload = prepared
    services = deployment.options.services
    facts = Facts(
        run=run,
        machine=deployment.machine,
        backend=config.cluster.backend,
        version=__version__,
        nodes=config.routing.nodes,
        requests=len(workload.requests),
        refused=len(workload.refused),
        experts=most_asked(workload.requests.expert, experts),
        catalogue=deployment.catalogue.count,
        classes=[service.name for service in services],
        promised=[service.ttft is not None or service.e2e is not None for service in services],
        held=list(_held(config, deployment)),
        sockets_apart=sockets_apart,
    )
    return Board(facts, Health(), pace.factor, pace.wall_s, lambda: pace.lag_s, lambda: pace.passed)


def live_of(board: Board, pace: Pace) -> Live:
    """A run that writes on ``board``."""
    return Live(pace=pace, metered=board.facts.experts, post=board.readings.__setitem__, health=board.health)


def _held(config: Config, deployment: Deployment) -> Iterator[Held]:
    """Of the run's machine and those it is compared with; one that cannot serve these experts so is left out."""
    limit_s = picoseconds(config.footprint.activation_limit, "footprint.activation_limit") / PS_PER_S
    own = deployment.machine
    for machine in [own, *(load_machine(name) for name in COMPARED if name != own.name)]:
        with contextlib.suppress(InputError):
            room = capacity(deployment_of(config, machine))
            found = row(machine.name, room, deployment.catalogue.count, limit_s)
            yield Held(machine.name, found.nodes, found.resident_in_hbm, found.held_below_hbm)

"""What is tried: choices of machine, sharding, eviction and routing, each a config that lacks the number of nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cluster.config import Config
from cluster.config_file import config_of_values
from cluster.deploy import machine_of, machines_of
from cluster.plan.asked import Values, used
from cluster.runner import prepare
from cluster.sweep.definition import Point, points_of
from cluster.sweep.results import names
from cluster.sweep.tasks import cannot_run as cannot_run_of
from node.errors import InputError
from node.spec import Machine
from node.spec_file import load_machine

CHOICES = ("sharding.", "runtime.", "routing.", "machine.")
GROUPS = (1, 2, 4)  # of a machine's sockets, where no candidates are given
DEFAULT: Mapping[str, Sequence[object]] = {
    "runtime.eviction": ["lru", "cost_aware"],
    "routing.policy": ["least_loaded", "expert_affinity"],
}


@dataclass(frozen=True)
class Candidate:
    """A choice; ``cannot_run``: why its machine cannot serve this, if it cannot."""

    point: Point
    config: Config
    machine: Machine
    cannot_run: str | None = None

    @property
    def name(self) -> str:
        """What it is, in a line."""
        return names(self.point) or "as set"

    def at(self, nodes: int, seed: int) -> Config:
        """The config of a run, the ``seed``-th from the config's own."""
        routing = replace(self.config.routing, nodes=nodes)
        return replace(self.config, seed=self.config.seed + seed, routing=routing)

    def cost(self, nodes: int, priced: bool) -> tuple[float, int]:
        """What ``nodes`` of it are compared by: price an hour, or their number; of equals the number of sockets."""
        price = self.machine.cost_per_hour if priced else 1
        assert price is not None
        return nodes * price, nodes * self.machine.sockets


def default_points(values: Values, machines: Sequence[str]) -> list[Point]:
    """For each machine 1, 2 and 4 groups of all its sockets, experts in one group or in all, two policies of each kind.

    What is set in ``values`` is not varied.
    """
    made = []
    for name in machines:
        named, sockets = {"machine.name": name} if len(machines) > 1 else {}, load_machine(name).sockets
        for groups in (one for one in GROUPS if sockets % one == 0):
            sharding = {"sharding.tensor_parallel": [sockets // groups]}
            homes = {"sharding.home": ["one_group", "all_groups"]} if groups > 1 else {}
            made += [named | point for point in points_of({**sharding, **homes, **DEFAULT})]
    return _once([{key: value for key, value in point.items() if key not in values} for point in made])


def points_of_all(grids: Sequence[Mapping[str, Sequence[object]]]) -> list[Point]:
    """The points of several grids, each once."""
    return _once([point for grid in grids for point in points_of(grid)])


def _once(points: Sequence[Point]) -> list[Point]:
    return [point for place, point in enumerate(points) if point not in points[:place]]


def check_choices(keys: Iterable[str], where: str) -> None:
    """``InputError`` for a key of ``[candidates]`` that no deployer chooses."""
    for key in keys:
        if not key.startswith(CHOICES) or key == "routing.nodes":
            raise InputError(
                f"{where}: candidates.{key}: is no choice; allowed: keys of sharding, runtime, routing (nodes are "
                "searched for) and machine"
            )


def candidates_of(values: Values, points: Sequence[Point], origins: Mapping[str, str]) -> list[Candidate]:
    """The candidates of ``points``, whose keys are from ``origins``, on top of ``values``.

    A number of a machine is set on those of several that know it. A key of ``values`` may have no effect in some
    candidates, but not in all. Raises ``InputError`` where none can run.
    """
    chosen = [{key: (value, origins.get(key, "coe plan")) for key, value in point.items()} for point in points]
    configs = [config_of_values({**values, **one}, used) for one in chosen]
    machines = list(dict.fromkeys(config.machine.name for config in configs))
    if len(machines) > 1:
        base = config_of_values(values, used)
        with base.naming_origins():
            machines_of(machines, base.machine.numbers)
        configs = [_known(config) for config in configs]
    made, refused = [], []
    for point, config in zip(points, configs, strict=True):
        tolerant, cannot_run = _explicit(config, point), None
        error = _refusal(_explicit(config, config.explicit))
        if error is not None:
            refused.append(error)
            again = _refusal(tolerant)
            cannot_run = None if again is None else str(cannot_run_of(again)["cannot_run"])
        made.append(Candidate(point, tolerant, machine_of(config), cannot_run))
    if len(refused) == len(made):
        raise refused[0]
    return made


def _explicit(config: Config, keys: Iterable[str]) -> Config:
    """As if of ``keys`` alone it were said that they are set, and of the number of nodes."""
    return replace(config, explicit={key: config.explicit[key] for key in keys} | {"routing.nodes": "coe plan"})


def _refusal(config: Config) -> InputError | None:
    try:
        prepare(config)
    except InputError as error:
        return error
    return None


def _known(config: Config) -> Config:
    """With those numbers only that its machine has."""
    numbers = config.machine.numbers
    bare = machine_of(replace(config, machine=replace(config.machine, numbers={})))
    known = {"cost_per_hour"} | {figure.path for figure in bare.figures}
    machine = replace(config.machine, numbers={path: one for path, one in numbers.items() if path in known})
    return replace(config, machine=machine)

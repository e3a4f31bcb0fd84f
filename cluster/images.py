"""Images through models of one pass, by emulated sockets with the weights in their tiers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from cluster.content import PassExpert, Start, local_members
from node.dataflow.graph import share
from node.dataflow.meaning.operands import Array
from node.errors import InputError, InvariantError
from node.events import Command, Kind, Tier
from node.functional.one_pass import Pass
from node.functional.serve import Sampling
from node.functional.texts import Members
from node.options import RuntimeOptions
from node.pass_deployment import PassDeployment
from node.spec import Machine
from node.units import Picoseconds

AGREEMENT = (
    1e-4  # of the largest element: by how much sockets that make the same may differ; processes may add otherwise
)


class PassGroup:
    """The sockets of a machine with all models' weights in HBM; ``now`` is the emulated time that they have taken."""

    def __init__(self, deployment: PassDeployment, members: Members) -> None:
        self.deployment, self._members = deployment, members
        self.now: Picoseconds = 0
        self._numbers = 0
        for model, (address, end) in enumerate(zip(deployment.addresses, deployment.addresses[1:], strict=False)):
            where = {"symbol": model, "address": address, "size": end - address}
            self._tell(Kind.LOAD, tier=Tier.DDR, **where)
            self._tell(Kind.ALLOCATE, tier=Tier.HBM, **where)
            self._tell(Kind.COPY, tier=Tier.HBM, source=address, **where)
            self.now += deployment.activation_ps(model)

    def through(self, model: int, given: Mapping[str, Array]) -> Array:
        """What a model makes of arrays, by its tensors' names, a row per image: rows in the same order.

        So many images at once as the options' ``batch`` says, on each socket where each has images of its own. Raises
        ``InputError`` where arrays are not what the model takes, or a pass does not fit.
        """
        together, options = self.deployment.models[model].together, self.deployment.options
        rows = [len(array) for array in given.values()]
        if len(set(rows)) != 1 or not rows[0]:
            said = ", ".join(f"{name} {count}" for name, count in zip(given, rows, strict=True))
            raise InputError(f"images: rows of {said or 'nothing'}: must be as many of each, and one at least")
        size = options.batch * (1 if together else self.deployment.degree)
        self.deployment.check_rows(model, min(options.batch, rows[0]))
        made = [
            self._pass(model, {name: array[first : first + size] for name, array in given.items()})
            for first in range(0, rows[0], size)
        ]
        return np.concatenate(made)

    def _pass(self, model: int, given: Mapping[str, Array]) -> Array:
        deployment, rows = self.deployment, len(next(iter(given.values())))
        address, degree = deployment.addresses[model], deployment.degree
        self.now += deployment.call_ps(model, rows)
        if deployment.models[model].together:
            return _agreed(self._members.through([Pass(model, address, given)] * degree))
        parts = [share(rows, degree, rank) for rank in range(degree)]
        works = [
            Pass(model, address, {name: array[part.start : part.stop] for name, array in given.items()})
            if part
            else None
            for part in parts
        ]
        return np.concatenate([made for made, part in zip(self._members.through(works), parts, strict=True) if part])

    def _tell(self, kind: Kind, **fields: int) -> None:
        self._members.apply(Command(self._numbers, 0, kind, self.now, **fields))
        self._numbers += 1


def _agreed(found: Sequence[Array]) -> Array:
    """What all sockets of a group made; ``InvariantError`` where they differ."""
    tolerance = AGREEMENT * float(np.abs(found[0]).max(initial=0.0))
    for rank, array in enumerate(found):
        if array.shape != found[0].shape or not np.allclose(array, found[0], rtol=0, atol=tolerance):
            raise InvariantError(f"socket {rank} made something else of the images than socket 0")
    return found[0]


@contextlib.contextmanager
def pass_group(
    machine: Machine, experts: Sequence[PassExpert], options: RuntimeOptions | None = None, start: Start = local_members
) -> Iterator[PassGroup]:
    """A group of all sockets of ``machine`` with the weights of ``experts``, made by ``start``.

    Raises ``OutOfMemoryError`` where they do not fit, ``InputError`` where a checkpoint is not the model's.
    """
    deployment = PassDeployment(machine, tuple(expert.model for expert in experts), options or RuntimeOptions())
    deployment.check_fits()
    with start(experts, deployment, Sampling()) as members:
        yield PassGroup(deployment, members)

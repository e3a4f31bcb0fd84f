"""A compiled pass run on one socket's content, launch by launch: the operators' meaning between its reads and writes.

A run stops at every collective and hands over what this socket brings; whoever runs the sockets of a group exchanges
these and sends back what came of it. So the same run serves any transport, and needs no thread.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Protocol, TypeVar

import numpy as np

from node.dataflow.graph import Operator
from node.dataflow.meaning.compute import Prepared, shape_of
from node.dataflow.meaning.operands import Array, Operands
from node.dataflow.meaning.rounding import to_bf16
from node.dataflow.schedule import Access, Launch
from node.errors import InvariantError

T = TypeVar("T")
Exchange = Generator[tuple[Operator, Array], Array, T]


class Content(Protocol):
    """What a socket's kernels read and write off chip."""

    def read(self, access: Access) -> Array:
        """The array of ``access.stored`` at its symbol."""

    def write(self, access: Access, array: Array) -> None:
        """Put the array of ``access.tensor`` at its symbol."""

    def operands(self, launch: Launch) -> Operands:
        """Weights, tokens and KV cache of a launch."""


def run(launches: Iterable[Launch], content: Content, *, rounds: bool = False) -> Exchange[None]:
    """Run ``launches`` in order. Yields (collective, array brought), takes the array that came of it.

    ``rounds``: what operators make is rounded where the machine keeps it in BF16, that is, as its tensor says, when it
    leaves the operator; sums within one are FP32, as in a PCU.
    """
    kernel, prepared = None, list[Prepared | None]()
    for launch in launches:
        operands = content.operands(launch)
        values = {access.tensor.name: _entering(content, access, operands) for access in launch.reads}
        if launch.kernel is not kernel:  # the layers of a model are the same kernels
            kernel, step = launch.kernel, operands.batch.step
            prepared = [None if op.collective else Prepared.of(op, step) for op in kernel.operators]
        for op, known in zip(launch.kernel.operators, prepared, strict=True):
            inputs = [values[tensor.name] for tensor in op.inputs]
            if known is None:
                brought = inputs[0].copy()  # a peer may look at it when this socket's memory has gone on
                made: tuple[Array, ...] = (_checked(op, (yield op, brought), operands),)
            else:
                made = known.compute(inputs, operands)
            for tensor, array in zip(op.outputs, made, strict=True):
                values[tensor.name] = to_bf16(array) if rounds and tensor.dtype == "bf16" else array
        for access in launch.writes:
            content.write(access, values[access.tensor.name])


def _entering(content: Content, access: Access, operands: Operands) -> Array:
    """A tensor as its reader takes it: of what was stored per token, per sequence the last token."""
    array = content.read(access)
    if (access.stored.per, access.tensor.per) != ("tokens", "sequences"):
        return array
    return np.asarray(array[np.cumsum(operands.batch.new) - 1])


def _checked(op: Operator, array: Array, operands: Operands) -> Array:
    """What came of a collective has the shape of its result."""
    shape = shape_of(op.outputs[0], operands.batch.step)
    if array.shape != shape:
        raise InvariantError(f"operator {op.name} made {op.outputs[0].name} of shape {array.shape}, not {shape}")
    return array

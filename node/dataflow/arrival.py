"""How far a pass may run ahead of the copy that brings its weights.

A copy brings weights in the order of the graph, and a launch can begin when its own are there. Let launch i need the
first n(i) bytes, which are there n(i) / rate after the copy began, and let all launches before it take b(i). A pass
that begins at s and never stalls is at launch i at s + b(i). So it must not begin before

    s = max over i of (n(i) / rate - b(i)),

and begun then it ends when one does that begins at once and stalls at every launch whose weights are late. While the
copy is under way, kernels have what it leaves of HBM bandwidth, and b(i) is meant so: at its end all weights are there.
Iterations of a block are alike, so that n(i) / rate - b(i) is linear in their number and largest at one of both ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby, repeat
from typing import NamedTuple

from node.dataflow.form import Step
from node.dataflow.graph import Graph
from node.dataflow.kernel import Kernel
from node.dataflow.program import Program
from node.units import Bytes, Picoseconds, to_ps


class Place(NamedTuple):
    """Of an operator's weights the bytes up to their end in the first of ``repeat`` iterations, ``stride`` apart."""

    end: Bytes
    stride: Bytes
    repeat: int


def ahead_ps(program: Program, step: Step, hbm_share: float, bytes_per_s: float) -> Picoseconds:
    """By how much a pass may begin before the copy of its weights, at ``bytes_per_s``, is complete.

    ``hbm_share``: what the copy leaves of HBM bandwidth. A looped kernel fetches the weights of the next iteration
    during each, so both must be there; its launch and its filling are not counted on.
    """
    places = _places(program.graph)
    began = latest = 0.0
    for _, group in groupby(program.prefill_kernels(step), key=lambda kernel: kernel.block):
        kernels = [(kernel, kernel.cost(step, hbm_share)) for kernel in group]
        looped, count = kernels[0][0].iterations > 1, kernels[0][0].repeat * kernels[0][0].iterations
        took = [cost.bound / count if looped else cost.seconds for _, cost in kernels]
        for iteration in (0, max(0, count - 1 - looped), count - 1):
            begins = began + iteration * sum(took)
            for (kernel, _), seconds in zip(kernels, took, strict=True):
                needed = _needed(kernel, min(iteration + looped, count - 1), places)
                latest = max(latest, needed / bytes_per_s - begins)
                begins += seconds
        began += sum(kernel.repeat * cost.seconds for kernel, cost in kernels)
    return to_ps(program.weight_bytes / bytes_per_s - latest, f"a copy of {program.name}")


def _places(graph: Graph) -> dict[tuple[str, str], Place]:
    """By the names of block and operator."""
    found, start = {}, 0
    for block in graph.blocks:
        stride, end = sum(op.weights for op in block.operators), start
        for op in block.operators:
            end += op.weights
            if op.weights:
                found[block.name, op.name] = Place(end, stride, block.repeat)
        start += block.repeat * stride
    return found


def _needed(kernel: Kernel, iteration: int, places: Mapping[tuple[str, str], Place]) -> Bytes:
    """The first bytes of the weights, up to the last that a kernel uses in an iteration of its block."""
    block, needed = kernel.block, 0
    origins = dict(zip((op.name for op in block.operators), block.origins or repeat(block.name), strict=False))
    for op in kernel.operators:
        if op.weights:
            place = places[origins[op.name], op.name]
            needed = max(needed, place.end + place.stride * iteration)
        elif op.weights_of:  # of another block, all iterations of it
            of = [place for (_, name), place in places.items() if name == op.weights_of]
            needed = max([needed, *(place.end + place.stride * (place.repeat - 1) for place in of)])
    return needed

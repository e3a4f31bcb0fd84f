"""Which operators share a kernel.

``unfused``: each operator is a kernel. ``conventional``: what GPU compilers do, epilogues and flash attention, up to
five operators. ``fused``: as many as PCUs, PMUs and SRAM allow and time gains from, up to a whole block (a decoder
layer). ``looped``: beyond that, a block that fits in one kernel becomes one launch with a loop over its repetitions,
where time gains from that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from node.dataflow.graph import Block, Operator
from node.dataflow.stages import Range
from node.dataflow.traffic import Floats

LEVELS = ("unfused", "conventional", "fused", "looped")
CONVENTIONAL_LIMIT = 5
MOST_JOINED = 24  # operators: the search for kernels takes time by the cube of how many it is among
# kind of an operator -> kinds whose kernel it may join, if that kernel made one of its inputs
_JOINS: dict[str, tuple[str, ...]] = {
    "gather": (),
    "gemm": (),
    "collective": (),
    "layout": (),
    "attention": ("attention",),
    "rowwise": ("elementwise", "gather"),
    "elementwise": ("elementwise", "gemm", "rowwise", "gather"),
}


def blocks_at(blocks: Sequence[Block], level: str) -> list[Block]:
    """The blocks within which kernels are made; those that run once and follow one another are one to a fuser.

    As far as they have no more than ``MOST_JOINED`` operators, all with names of their own: a network of stages that
    differ has more, layers that differ in sizes alone have the same. A block that mirrors another stays what it is, as
    does the other: a model of one layer trains like one of many.
    """
    made = {tensor.name for block in blocks for op in block.operators for tensor in op.outputs}
    paired = {name for block in blocks if block.mirrors for name in (block.name, block.mirrors)}
    found: list[Block] = []
    for block in blocks:
        once = found and found[-1].repeat == block.repeat == 1 and not paired & {found[-1].name, block.name}
        both = _both(found[-1], block, made) if level in ("fused", "looped") and once else None
        if both is not None:
            found[-1] = both
        else:
            found.append(block)
    return found


def _both(first: Block, second: Block, made: set[str]) -> Block | None:
    """Both as one block, in which what enters the ``second`` and nobody names is called as the ``first`` hands it on.

    None where they cannot be one: they are too many, they have names in common, or the ``second`` takes what the other
    makes by another count, as a head does, of all tokens the last ones.
    """
    if len(first.operators) + len(second.operators) > MOST_JOINED or _names(first) & _names(second):
        return None
    unnamed = {
        tensor
        for op in second.operators
        for tensor in op.inputs
        if tensor.name not in made and not tensor.given and not tensor.within
    }
    results = [op.outputs[0] for op in first.operators if op.outputs][-1:]
    if any(tensor.per != result.per for tensor in unnamed for result in results):
        return None
    called = {tensor.name: result.name for tensor in unnamed for result in results}
    operators = tuple(
        replace(op, inputs=tuple(replace(tensor, name=called.get(tensor.name, tensor.name)) for tensor in op.inputs))
        for op in second.operators
    )
    return first.joined(replace(second, operators=operators))


def _names(block: Block) -> set[str]:
    """Of its operators and of what they make: those that run in one kernel have names of their own."""
    return {op.name for op in block.operators} | {tensor.name for op in block.operators for tensor in op.outputs}


def candidates(operators: Sequence[Operator], level: str) -> list[Range]:
    """The kernels that ``level`` allows: (first, last) of consecutive operators."""
    if level == "unfused":
        return [(index, index) for index in range(len(operators))]
    groups = conventional(operators) if level == "conventional" else [(0, len(operators) - 1)]
    return [(i, j) for first, last in groups for i in range(first, last + 1) for j in range(i, last + 1)]


def conventional(operators: Sequence[Operator]) -> list[Range]:
    """The operators grouped as GPU compilers do, in order."""
    groups: list[Range] = []
    for index, operator in enumerate(operators):
        if groups and _may_join(operators[groups[-1][0] : index], operator):
            groups[-1] = (groups[-1][0], index)
        else:
            groups.append((index, index))
    return groups


def _may_join(group: Sequence[Operator], operator: Operator) -> bool:
    made = {tensor.name for member in group for tensor in member.outputs}
    return (
        len(group) < CONVENTIONAL_LIMIT
        and group[-1].kind in _JOINS[operator.kind]
        and any(tensor.name in made for tensor in operator.inputs)
    )


def quickest(ranges: Sequence[Range], seconds: Floats) -> list[int]:
    """The kernels that cover all operators, each once, in the least time: indices of ``ranges``.

    ``seconds`` of those that do not fit are infinite. By dynamic programming over where kernels end.
    """
    count = 1 + max(last for _, last in ranges)
    best = np.full(count + 1, np.inf)
    best[0] = 0.0
    chosen = [-1] * (count + 1)
    for index in sorted(range(len(ranges)), key=lambda i: ranges[i][1]):
        first, last = ranges[index]
        total = best[first] + seconds[index]
        if chosen[last + 1] < 0 or total < best[last + 1]:
            best[last + 1], chosen[last + 1] = total, index
    found, end = [], count
    while end > 0:
        found.append(chosen[end])
        end = ranges[chosen[end]][0]
    return found[::-1]

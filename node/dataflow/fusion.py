"""Which operators share a kernel.

``unfused``: each operator is a kernel. ``conventional``: what GPU compilers do, epilogues and flash attention,
up to five operators. ``fused``: a whole block (a decoder layer) is one kernel.
"""

from __future__ import annotations

from node.dataflow.graph import Block, Operator

LEVELS = ("unfused", "conventional", "fused")
CONVENTIONAL_LIMIT = 5
# kind of an operator -> kinds whose kernel it may join, if that kernel made one of its inputs
_JOINS: dict[str, tuple[str, ...]] = {
    "gather": (),
    "gemm": (),
    "collective": (),
    "attention": ("attention",),
    "rowwise": ("elementwise", "gather"),
    "elementwise": ("elementwise", "gemm", "rowwise", "gather"),
}


def partition(block: Block, level: str) -> tuple[tuple[Operator, ...], ...]:
    """The operators of ``block`` grouped into kernels, in order; ``level`` is one of ``LEVELS``."""
    if level == "fused":
        return (block.operators,)
    if level == "unfused":
        return tuple((operator,) for operator in block.operators)
    groups: list[list[Operator]] = []
    for operator in block.operators:
        if groups and _may_join(groups[-1], operator):
            groups[-1].append(operator)
        else:
            groups.append([operator])
    return tuple(tuple(group) for group in groups)


def _may_join(group: list[Operator], operator: Operator) -> bool:
    made = {tensor.name for member in group for tensor in member.outputs}
    return (
        len(group) < CONVENTIONAL_LIMIT
        and group[-1].kind in _JOINS[operator.kind]
        and any(tensor.name in made for tensor in operator.inputs)
    )

"""Where things lie: an operator's weights in its expert's range, what kernels hand on in the workspace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from node.dataflow.form import Step
from node.dataflow.graph import Graph, Operator
from node.dataflow.meaning.operands import Array
from node.dataflow.memory_plan import plan_memory
from node.dataflow.program import Program
from node.dataflow.schedule import Access, Launch, schedule
from node.errors import InputError
from node.units import Bytes

ENDLESS: Bytes = 2**62  # a pass is planned first; then it is seen whether the workspace has room for it


class Weights(NamedTuple):
    """Where an operator's weights begin in its expert's range, their shape, the number of the operator's layer."""

    offset: Bytes
    rows: int
    columns: int
    layer: int
    operator: Operator


def weight_layout(graph: Graph) -> dict[str, Weights]:
    """Of each symbol of weights its place, in the order of the graph."""
    found, offset = {}, 0
    for block in graph.blocks:
        for layer in range(block.repeat):
            label = f"{block.name}[{layer}]" if block.repeat > 1 else block.name
            for op in block.operators:
                if op.weights:
                    assert op.matrix is not None
                    rows = op.matrix.rows + op.matrix.bias
                    held = Weights(offset, rows, op.matrix.columns, block.first + layer, op)
                    found[f"{label}.{op.name}.weights"] = held
                    offset += op.weights
    return found


@dataclass(frozen=True)
class Planned:
    """A pass: its launches, and where in the workspace what they hand on lies, and what they are ``given``, by name."""

    launches: list[Launch]
    addresses: dict[str, int]
    size: Bytes
    given: dict[str, Access]

    @classmethod
    def of(cls, program: Program, step: Step, decoding: bool) -> Planned:
        """The plan of a pass of ``program``."""
        kernels = program.decode_kernels(step.sequences, step.context) if decoding else program.prefill_kernels(step)
        planned = schedule(kernels, step)
        given = {access.symbol: access for launch in planned.launches for access in launch.reads if access.tensor.given}
        names = {access.symbol for launch in planned.launches for access in launch.writes} | set(given)
        plan = plan_memory([symbol for symbol in planned.symbols if symbol.name in names], ENDLESS, 0)
        return cls(planned.launches, plan.hbm, plan.hbm_bytes, given)

    def check(self, name: str, given: Mapping[str, Array], rows: int) -> None:
        """``InputError`` where a pass of model ``name`` over so many ``rows`` is given something else than it takes."""
        if set(given) != set(self.given):
            raise InputError(f"model {name}: takes {', '.join(sorted(self.given))}; given {', '.join(sorted(given))}")
        for which, access in self.given.items():
            shape = (rows, *access.tensor.shape)
            if given[which].shape != shape:
                raise InputError(f"model {name}: {which} has shape {given[which].shape}, not {shape}")

"""A small network for tests of kernels and of what they move, and the one kernel that it is compiled to."""

from __future__ import annotations

from node.dataflow.compiler import Compiler
from node.dataflow.form import Step
from node.dataflow.graph import Block, Operator
from node.dataflow.kernel import Kernel
from node.dataflow.operators import Matrix, activation, elementwise, gemm
from node.spec import Machine

# Per token: x (20 B) -> h (60 B) -> g (60 B) -> y (20 B), two weight matrices of 600 B each
X, H, G, Y = (activation(name, width) for name, width in (("x", 10), ("h", 30), ("g", 30), ("y", 10)))
UP = gemm("up", X, H, Matrix(10, 30, 2))
ACT = elementwise("act", (H,), (G,), flops=7)
DOWN = gemm("down", G, Y, Matrix(30, 10, 2))
NETWORK = (UP, ACT, DOWN)
FOUR = Step(tokens=4, pairs=0, context=0, sequences=1)


def kernels(
    machine: Machine, level: str, *operators: Operator, step: Step = FOUR, members: int = 1, repeat: int = 1
) -> tuple[Kernel, ...]:
    """The kernels of a block of ``operators``."""
    return Compiler.of(machine, members, level, "ho").kernels([Block("b", operators, repeat)], step)


def only(machine: Machine, level: str, *operators: Operator, step: Step = FOUR, members: int = 1) -> Kernel:
    """The kernel of a block that is one kernel."""
    (kernel,) = kernels(machine, level, *operators, step=step, members=members)
    return kernel

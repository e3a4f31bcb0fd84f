"""What a pass over a model keeps in memory, kernel by kernel: the symbols of the static memory plan.

Weights and KV cache are alive throughout. A tensor between kernels is alive from the kernel that makes it to the last
one that reads it; what stays inside a kernel has no place in memory. Blocks follow one another in a chain: training,
whose backward reads what forward kept, is not planned yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from node.dataflow.graph import Block, Step, Tensor
from node.dataflow.kernel import Kernel
from node.dataflow.memory_plan import Symbol
from node.units import Bytes


@dataclass(slots=True)
class _Life:
    """A tensor between kernels: bytes, when it is made and last read, how many kernels move it."""

    size: Bytes
    first: int
    last: int
    moves: int = 1


@dataclass(slots=True)
class _Run:
    """A pass as it goes: ``now`` is the kernel that runs, ``stream`` the tensor that goes from block to block."""

    now: int = 0
    stream: str = ""
    lives: dict[str, _Life] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  # of each tensor's name in its block, the symbol made last

    def symbol(self, tensor: Tensor, label: str) -> str:
        """The symbol that a kernel reads as ``tensor``: the last made of that name, or what the block before made."""
        return self.names.get(tensor.name) or self.stream or f"{label}.{tensor.name}"


def symbols(kernels: Sequence[Kernel], step: Step) -> list[Symbol]:
    """The symbols of one pass of ``kernels`` for ``step``; sizes in bytes, rounded up."""
    run = _Run()
    held: list[tuple[str, Bytes, Bytes]] = []  # name, size, moved
    for block, group in groupby(kernels, key=lambda kernel: kernel.block):
        of_block = list(group)
        for iteration in range(of_block[0].repeat * of_block[0].iterations):
            label = f"{block.name}[{iteration}]" if block.repeat > 1 else block.name
            held += _held(block, label, step)
            for kernel in of_block:
                _pass(run, kernel, label, step)
            run.stream = run.names.get(_result(block), run.stream)
    last = max(run.now - 1, 0)
    found = [Symbol(name, size, 0, last, moved) for name, size, moved in held]
    between = [
        Symbol(name, life.size, life.first, life.last, life.size * life.moves) for name, life in run.lives.items()
    ]
    return found + between


def _held(block: Block, label: str, step: Step) -> Iterator[tuple[str, Bytes, Bytes]]:
    """Weights and KV cache of one iteration of a block."""
    for op in block.operators:
        if op.weights:
            yield f"{label}.{op.name}.weights", op.weights, _bytes(op.weight_read.at(step))
        cached = _bytes(max(op.kv_read.at(step), 0.0))
        if cached:
            yield f"{label}.{op.name}.cache", cached, cached


def _pass(run: _Run, kernel: Kernel, label: str, step: Step) -> None:
    """One kernel: what it reads lives up to here, what it makes and others read begins."""
    made = {tensor.name for op in kernel.operators for tensor in op.outputs}
    entering = {tensor.name: tensor for op in kernel.operators for tensor in op.inputs if tensor.name not in made}
    for tensor in entering.values():
        known = run.symbol(tensor, label)
        life = run.lives.setdefault(known, _Life(_bytes(tensor.size.at(step)), 0, run.now, moves=0))
        life.last, life.moves = run.now, life.moves + 1
    for tensor in _leaving(kernel):
        symbol = f"{label}.{tensor.name}"
        run.lives[symbol] = _Life(_bytes(tensor.size.at(step)), run.now, run.now)
        run.names[tensor.name] = symbol
    run.now += 1


def _leaving(kernel: Kernel) -> list[Tensor]:
    """What a kernel makes for other kernels of its block, or for what follows it."""
    inside = {id(op) for op in kernel.operators}
    outside = {tensor.name for op in kernel.block.operators if id(op) not in inside for tensor in op.inputs}
    read = {tensor.name for op in kernel.block.operators for tensor in op.inputs}
    made = [tensor for op in kernel.operators for tensor in op.outputs]
    return [tensor for tensor in made if tensor.name in outside or tensor.name not in read]


def _result(block: Block) -> str:
    """The tensor that a block hands on: the last that is made."""
    outputs: list[Tensor] = [tensor for op in block.operators for tensor in op.outputs]
    return outputs[-1].name if outputs else ""


def _bytes(size: float) -> Bytes:
    return int(-(-size // 1))

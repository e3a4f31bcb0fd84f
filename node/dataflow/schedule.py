"""What a pass over a model keeps in memory, kernel by kernel: the symbols of the static memory plan.

Weights, an optimizer's state and the KV cache are alive throughout. A tensor between kernels is alive from the kernel
that makes it to the last one that reads it; what stays inside a kernel and no later block reads has no place in memory.
"""

from __future__ import annotations

from collections import ChainMap, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from node.dataflow.graph import Block, Step, Tensor
from node.dataflow.kernel import Kernel
from node.dataflow.memory_plan import Symbol
from node.units import Bytes

# What names stand for in one iteration of a block, and then in those that it mirrors: of tensors and weights, symbols
Names = ChainMap[str, str]


@dataclass(slots=True)
class _Life:
    """A symbol: bytes, when it is made and last read, bytes that kernels move of it."""

    size: Bytes
    first: int
    last: int
    moved: Bytes = 0


@dataclass(slots=True)
class _Run:
    """A pass as it goes: ``now`` is the kernel that runs, ``stream`` the tensor that goes from block to block."""

    step: Step
    end: int  # the last kernel
    now: int = 0
    stream: str = ""
    lives: dict[str, _Life] = field(default_factory=dict)
    newest: dict[str, str] = field(default_factory=dict)  # of each name in any block, the symbol made last
    iterations: dict[str, list[Names]] = field(default_factory=lambda: defaultdict(list))  # of each block

    def enter(self, block: Block) -> tuple[str, Names]:
        """The next iteration of a block: its label and its names."""
        before = self.iterations[block.name]
        label = f"{block.name}[{len(before)}]" if block.repeat > 1 else block.name
        mirrored = self.iterations[block.mirrors][-1 - len(before)].maps if block.mirrors else []
        before.append(ChainMap({}, *mirrored))
        return label, before[-1]

    def hold(self, name: str, symbol: str, life: _Life, names: Names) -> None:
        """A symbol begins, which kernels know as ``name``."""
        self.lives[symbol] = life
        names[name] = self.newest[name] = symbol

    def find(self, name: str, names: Names) -> str | None:
        """What a kernel knows as ``name``: of its own iteration, of those it mirrors, or the last of that name."""
        return names.get(name) or self.newest.get(name)

    def move(self, symbol: str, size: Bytes) -> None:
        """The kernel that runs reads or writes ``size`` bytes of a symbol."""
        life = self.lives[symbol]
        life.last, life.moved = max(life.last, self.now), life.moved + size

    def move_weights(self, owner: str, size: Bytes, names: Names) -> None:
        """It reads or writes ``size`` bytes of the weights of operator ``owner``."""
        symbol = self.find(_weights(owner), names)
        if symbol is None:
            raise ValueError(f"operator {owner}: has no weights in any block that the one that uses them mirrors")
        self.move(symbol, size)


def symbols(kernels: Sequence[Kernel], step: Step) -> list[Symbol]:
    """The symbols of one pass of ``kernels`` for ``step``; sizes in bytes, rounded up."""
    run = _Run(step, sum(kernel.repeat * kernel.iterations for kernel in kernels) - 1)
    for block, group in groupby(kernels, key=lambda kernel: kernel.block):
        of_block = list(group)
        for _ in range(of_block[0].repeat * of_block[0].iterations):
            label, names = run.enter(block)
            _hold(run, block, label, names)
            for kernel in of_block:
                _pass(run, kernel, label, names)
            run.stream = names.get(_result(block), run.stream)
    return [Symbol(name, life.size, life.first, life.last, life.moved) for name, life in run.lives.items()]


def _hold(run: _Run, block: Block, label: str, names: Names) -> None:
    """Weights and KV cache of one iteration of a block."""
    for op in block.operators:
        if op.weights:
            held = _Life(op.weights, 0, run.end)
            run.hold(_weights(op.name), f"{label}.{_weights(op.name)}", held, names)
        cached = _bytes(max(op.kv_read.at(run.step), 0.0))
        if cached:
            run.lives[f"{label}.{op.name}.cache"] = _Life(cached, 0, run.end, cached)


def _pass(run: _Run, kernel: Kernel, label: str, names: Names) -> None:
    """One kernel: what it reads lives up to here, what it makes and others read begins."""
    for op in kernel.operators:
        owner = op.name if op.weights else op.weights_of
        if owner:
            run.move_weights(owner, _bytes(op.weight_read.at(run.step)), names)
    made = {tensor.name for op in kernel.operators for tensor in op.outputs}
    entering = {tensor.name: tensor for op in kernel.operators for tensor in op.inputs if tensor.name not in made}
    for tensor in entering.values():
        _read(run, tensor, f"{label}.{tensor.name}", names)
    for tensor in _leaving(kernel):
        _write(run, tensor, f"{label}.{tensor.name}", names)
    run.now += 1


def _read(run: _Run, tensor: Tensor, own: str, names: Names) -> None:
    """A tensor enters: part of weights, what a block made, the stream, or what nobody made: there from the start."""
    size = _bytes(tensor.size.at(run.step))
    if tensor.within:
        run.move_weights(tensor.within, size, names)
        return
    known = run.find(tensor.name, names) or run.stream or own
    life = run.lives.setdefault(known, _Life(size, 0, run.now))
    run.move(known, life.size)
    names[tensor.name] = known


def _write(run: _Run, tensor: Tensor, own: str, names: Names) -> None:
    """A tensor leaves: in place, or it begins here."""
    size = _bytes(tensor.size.at(run.step))
    if tensor.within:
        run.move_weights(tensor.within, size, names)
    else:
        run.hold(tensor.name, own, _Life(size, run.now, run.now, size), names)


def _leaving(kernel: Kernel) -> list[Tensor]:
    """What a kernel makes for other kernels of its block, for another block, or for what follows it."""
    inside = {id(op) for op in kernel.operators}
    outside = {tensor.name for op in kernel.block.operators if id(op) not in inside for tensor in op.inputs}
    read = {tensor.name for op in kernel.block.operators for tensor in op.inputs}
    made = [tensor for op in kernel.operators for tensor in op.outputs]
    return [tensor for tensor in made if tensor.kept or tensor.name in outside or tensor.name not in read]


def _result(block: Block) -> str:
    """The tensor that a block hands on: the first that its last operator makes."""
    outputs = [op.outputs[0].name for op in block.operators if op.outputs]
    return outputs[-1] if outputs else ""


def _weights(owner: str) -> str:
    return f"{owner}.weights"


def _bytes(size: float) -> Bytes:
    return int(-(-size // 1))

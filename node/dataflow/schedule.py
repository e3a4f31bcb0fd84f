"""A pass over a model, launch by launch: what each reads and writes in memory, and the symbols of the memory plan.

Weights, an optimizer's state and the KV cache are alive throughout. A tensor between kernels is alive from the kernel
that makes it to the last one that reads it; what stays inside a kernel and no later block reads has no place in memory.
"""

from __future__ import annotations

from collections import ChainMap, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby, repeat

from node.dataflow.form import Step
from node.dataflow.graph import Block, Tensor
from node.dataflow.kernel import Kernel
from node.dataflow.memory_plan import Symbol
from node.units import Bytes

# What names stand for in one iteration of a block, and then in those that it mirrors: of tensors and weights, symbols
Names = ChainMap[str, str]


@dataclass(frozen=True, slots=True)
class Access:
    """A ``tensor`` that a launch reads from or writes to ``symbol``; ``stored``: the tensor as it was written there."""

    tensor: Tensor
    symbol: str
    stored: Tensor


@dataclass(frozen=True, slots=True)
class Launch:
    """One run of a ``kernel``'s operators, in an ``iteration`` of its block, from 0.

    ``weights``: of each operator whose weights it uses, their symbol.
    """

    kernel: Kernel
    iteration: int
    reads: list[Access]
    writes: list[Access]
    weights: dict[str, str]


@dataclass(frozen=True, slots=True)
class Schedule:
    """The ``launches`` of a pass in order (a looped kernel's iterations apart), and the ``symbols`` they use."""

    launches: list[Launch]
    symbols: list[Symbol]


@dataclass(slots=True)
class _Life:
    """A symbol: bytes, when it is made and last read, bytes that kernels move of it; the tensor it holds."""

    size: Bytes
    first: int
    last: int
    moved: Bytes = 0
    tensor: Tensor | None = None


@dataclass(slots=True)
class _Run:
    """A pass as it goes: ``stream`` is the tensor that goes from block to block."""

    step: Step
    end: int  # the last launch
    stream: str = ""
    launches: list[Launch] = field(default_factory=list)
    lives: dict[str, _Life] = field(default_factory=dict)
    newest: dict[str, str] = field(default_factory=dict)  # of each name in any block, the symbol made last
    iterations: dict[str, list[Names]] = field(default_factory=lambda: defaultdict(list))  # of each block

    @property
    def now(self) -> int:
        """The number of the launch that runs."""
        return len(self.launches) - 1

    def enter(self, block: Block) -> tuple[int, str, Names]:
        """The next iteration of a block: its number, its label and its names."""
        before = self.iterations[block.name]
        label = f"{block.name}[{len(before)}]" if block.repeat > 1 else block.name
        mirrored = self.iterations[block.mirrors][-1 - len(before)].maps if block.mirrors else []
        before.append(ChainMap({}, *mirrored))
        return len(before) - 1, label, before[-1]

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
        self.launches[-1].weights[owner] = symbol


def schedule(kernels: Sequence[Kernel], step: Step) -> Schedule:
    """One pass of ``kernels`` for ``step``; sizes in bytes, rounded up."""
    run = _Run(step, sum(kernel.repeat * kernel.iterations for kernel in kernels) - 1)
    for block, group in groupby(kernels, key=lambda kernel: kernel.block):
        of_block = list(group)
        for _ in range(of_block[0].repeat * of_block[0].iterations):
            iteration, label, names = run.enter(block)
            _hold(run, block, label, names)
            for kernel in of_block:
                run.launches.append(Launch(kernel, iteration, [], [], {}))
                _pass(run, kernel, label, names)
            run.stream = names.get(_result(block), run.stream)
    found = [Symbol(name, life.size, life.first, life.last, life.moved) for name, life in run.lives.items()]
    return Schedule(run.launches, found)


def _hold(run: _Run, block: Block, label: str, names: Names) -> None:
    """Weights and KV cache of one iteration of a block."""
    for op, origin in zip(block.operators, block.origins or repeat(label), strict=False):
        if op.weights:
            held = _Life(op.weights, 0, run.end)
            run.hold(_weights(op.name), f"{origin}.{_weights(op.name)}", held, names)
        cached = _bytes(max(op.kv_read.at(run.step), 0.0))
        if cached:
            run.lives[f"{origin}.{op.name}.cache"] = _Life(cached, 0, run.end, cached)


def _pass(run: _Run, kernel: Kernel, label: str, names: Names) -> None:
    """One launch: what it reads lives up to here, what it makes and others read begins."""
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


def _read(run: _Run, tensor: Tensor, own: str, names: Names) -> None:
    """A tensor enters: part of weights, what is given, what a block made, the stream, or there from the start."""
    size, launch = _bytes(tensor.size.at(run.step)), run.launches[-1]
    if tensor.within:
        run.move_weights(tensor.within, size, names)
        launch.reads.append(Access(tensor, launch.weights[tensor.within], tensor))
        return
    known = tensor.name if tensor.given else run.find(tensor.name, names) or run.stream or own
    life = run.lives.setdefault(known, _Life(size, 0, run.now, tensor=tensor))
    run.move(known, life.size)
    names[tensor.name] = known
    launch.reads.append(Access(tensor, known, life.tensor or tensor))


def _write(run: _Run, tensor: Tensor, own: str, names: Names) -> None:
    """A tensor leaves: in place, or it begins here."""
    size, launch = _bytes(tensor.size.at(run.step)), run.launches[-1]
    if tensor.within:
        run.move_weights(tensor.within, size, names)
        launch.writes.append(Access(tensor, launch.weights[tensor.within], tensor))
    else:
        run.hold(tensor.name, own, _Life(size, run.now, run.now, size, tensor), names)
        launch.writes.append(Access(tensor, own, tensor))


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

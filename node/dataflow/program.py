"""A model compiled for one socket of a tensor-parallel group: its kernels, and what a pass costs in virtual time.

Kernels are compiled once per phase and bucket of shapes, when one is first asked for, and used at any shape of the
bucket. The cost of a decode step is piecewise linear in the summed context of its batch, because every bound of every
kernel is: the lines of the kernels become segments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from node.dataflow.compiler import Compiler
from node.dataflow.decode import MOST_CONTEXT, DecodeCost, Segment, slowest
from node.dataflow.form import Form, Step
from node.dataflow.graph import Block, Graph
from node.dataflow.kernel import Kernel
from node.spec import Machine
from node.units import Bytes, Picoseconds, to_ps

FIRST_CONTEXT, CONTEXT_FACTOR = 512, 8  # decode kernels are made for contexts of up to 512, 4096, 32768 ... tokens

# whether decoding, the shape made for, the all-reduces that go direct
Key = tuple[bool, Step, frozenset[str]]
Kernels = dict[Key, tuple[Kernel, ...]]


@dataclass(slots=True)
class Program:
    """A model's ``graph`` (one socket's shard) and the ``compiler`` that makes its kernels.

    Costs are kept per shape and kernels per bucket of shapes, so that nothing is worked out twice. ``hbm_share`` is
    what kernels get of HBM bandwidth: all of it, or what a copy leaves. Programs of one graph and compiler may have the
    same ``kernels``: which one a shape gets does not depend on who asked first.
    """

    graph: Graph
    compiler: Compiler
    kernels: Kernels = field(default_factory=dict, repr=False)
    _passes: dict[tuple[Step, float], tuple[int, int]] = field(default_factory=dict, repr=False)
    _decodes: dict[tuple[int, float], DecodeCost] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """The model's."""
        return self.graph.name

    @property
    def weight_bytes(self) -> Bytes:
        """Bytes of the socket's shard of the weights."""
        return self.graph.weight_bytes

    @property
    def kv_bytes_per_token(self) -> Bytes:
        """KV cache bytes that one token of one sequence takes."""
        return self.graph.kv_bytes_per_token

    @property
    def window(self) -> int | None:
        """How many of a sequence's latest tokens attention reads, where that is limited."""
        return self.graph.window

    def prefill_kernels(self, step: Step) -> tuple[Kernel, ...]:
        """The kernels of a pass over the whole graph, made for the bucket of ``step``."""
        return self._made(self.prefill_key(step))

    def prefill_key(self, step: Step) -> Key:
        """Which of its programs a pass over the whole graph runs."""
        return self._key(decoding=False, shape=_nearest(step), step=step)

    def decode_kernels(self, batch: int, context: int) -> tuple[Kernel, ...]:
        """The kernels of a decode step of ``batch`` sequences that read ``context`` tokens in all."""
        return self._made(self.decode_key(batch, context))

    def decode_key(self, batch: int, context: int) -> Key:
        """Which of its programs a decode step runs."""
        return self._decode_key(batch, self._bound(batch, context))

    def most_context(self, batch: int, context: int) -> int:
        """Up to how many tokens in all a decode step runs the program that it runs at ``context``."""
        return batch * self._bound(batch, context)

    def units(self, key: Key) -> int:
        """PCUs and PMUs that the kernels of a program are placed on, each kernel by itself."""
        placements = [kernel.placement for kernel in self._made(key)]
        return sum(placement.pcus + placement.pmus for placement in placements if placement is not None)

    def prefill(self, step: Step, hbm_share: float = 1.0) -> tuple[Picoseconds, Picoseconds]:
        """Time of one pass, and how much of it the link is sending."""
        known = self._passes.get((step, hbm_share))
        if known is None:
            costs = [(kernel.repeat, kernel.cost(step, hbm_share)) for kernel in self.prefill_kernels(step)]
            time = sum(repeat * cost.seconds for repeat, cost in costs)
            sending = sum(repeat * cost.link for repeat, cost in costs)
            what = f"a pass of {self.name}"
            known = self._passes[step, hbm_share] = (to_ps(time, what), to_ps(sending, what))
        return known

    def decode(self, batch: int, hbm_share: float = 1.0) -> DecodeCost:
        """Cost of decode steps of ``batch`` sequences; with less of HBM no step takes less time."""
        known = self._decodes.get((batch, hbm_share))
        if known is None:
            known = self._decode(batch, hbm_share)
            if hbm_share < 1:  # its segments begin elsewhere, so that a rounded slope may be off by less
                known = slowest([self.decode(batch), known])
            self._decodes[batch, hbm_share] = known
        return known

    def _made(self, key: Key) -> tuple[Kernel, ...]:
        known = self.kernels.get(key)
        if known is None:
            decoding, shape, direct = key
            known = self.kernels[key] = self.compiler.kernels(self._blocks(decoding=decoding), shape, direct)
        return known

    def _key(self, *, decoding: bool, shape: Step, step: Step) -> Key:
        """Made for ``shape``; how all-reduces go is decided by the ``step`` itself."""
        return decoding, shape, self.compiler.direct(self._blocks(decoding=decoding), step)

    def _blocks(self, *, decoding: bool) -> list[Block]:
        return [block for block in self.graph.blocks if block.in_decode or not decoding]

    def _decode_key(self, batch: int, bound: int) -> Key:
        """No all-reduce grows with context, so that one kind serves all steps of a batch."""
        shape, context = _power(batch), _power(batch) * min(bound, self.graph.context)
        return self._key(
            decoding=True, shape=Step(shape, context, context, shape), step=Step(batch, batch, batch, batch)
        )

    def _bound(self, batch: int, context: int) -> int:
        return next(bound for bound in self._bounds() if context <= batch * bound)

    def _bounds(self) -> list[int]:
        """Of each bucket of decode contexts, the most tokens of one sequence."""
        bounds = [FIRST_CONTEXT]
        while bounds[-1] < self.graph.context:
            bounds.append(bounds[-1] * CONTEXT_FACTOR)
        return [*bounds[:-1], MOST_CONTEXT]

    def _decode(self, batch: int, hbm_share: float) -> DecodeCost:
        segments: list[Segment] = []
        sending, first, what = 0.0, 0, f"a decode step of {self.name}"
        for bound in self._bounds():
            kernels = self._made(self._decode_key(batch, bound))
            empty = Step(batch, 0, 0, batch)
            lines = [(k.repeat * k.iterations, _lines(k, empty, hbm_share)) for k in kernels]
            fixed = sum(kernel.repeat * kernel.fixed_s for kernel in kernels)
            sending = max(sending, sum(kernel.repeat * kernel.cost(empty).link for kernel in kernels))
            end = min(batch * bound + 1, MOST_CONTEXT)
            for here in sorted({first, *(at for _, of_kernel in lines for at in _crossings(of_kernel, first, end))}):
                base, slope = fixed, 0.0
                for repeat, of_kernel in lines:
                    slowest = _slowest(of_kernel, here)
                    base += repeat * slowest.at(here)
                    slope += repeat * slowest.slope
                segments.append(Segment(here, to_ps(base, what), to_ps(slope, what)))
            first = end
        return DecodeCost(tuple(segments), to_ps(sending, what))


def _nearest(step: Step) -> Step:
    """The bucket of a step: tokens, pairs of a token, context and sequences, each as the nearest power of two."""
    tokens = _power(step.tokens)
    pairs = _power(step.pairs / step.tokens) * tokens if step.tokens else 0
    return Step(tokens, round(pairs), _power(step.context), _power(step.sequences))


def _power(number: float) -> int:
    return max(1, round(2.0 ** round(math.log2(number)))) if number > 0 else 0


@dataclass(frozen=True, slots=True)
class Line:
    """A bound of a decode step in seconds, linear in its context."""

    base: float
    slope: float

    @classmethod
    def of(cls, form: Form, empty: Step) -> Line:
        """The bound ``form`` of steps like ``empty``, which has no context."""
        return cls(form.at(empty), form.per_context)

    def at(self, context: float) -> float:
        """Seconds at a context."""
        return self.base + self.slope * context


def _lines(kernel: Kernel, empty: Step, hbm_share: float) -> tuple[Line, ...]:
    slower = {"hbm": 1 / hbm_share}
    return tuple(Line.of(form * slower.get(label, 1.0), empty) for label, form in kernel.bounds)


def _slowest(lines: tuple[Line, ...], context: int) -> Line:
    """The highest line from ``context`` on."""
    return max(lines, key=lambda line: (line.at(context), line.slope))


def _crossings(lines: tuple[Line, ...], first: int, end: int) -> set[int]:
    """The first whole contexts from ``first`` up to ``end`` from which another line is the highest."""
    found: set[int] = set()
    context = first
    while True:
        top = _slowest(lines, context)
        meet = [(top.base - line.base) / (line.slope - top.slope) for line in lines if line.slope > top.slope]
        nearest = min(meet, default=math.inf)
        if nearest >= end:  # before all else: of slopes that hardly differ it may be infinite
            return found
        context = max(context + 1, int(nearest) + 1)
        if context >= end:
            return found
        found.add(context)


def compile_graph(graph: Graph, machine: Machine, members: int, fusion: str, orchestration: str) -> Program:
    """The program of a shard's ``graph`` on ``machine`` with ``members`` sockets in its group; see ``Compiler.of``."""
    return Program(graph, Compiler.of(machine, members, fusion, orchestration))

"""One socket in functional mode: its tiers with content, and its shard's kernels run on them.

It takes the commands that the timed socket takes. Weights lie in an expert's range operator after operator; a KV range
has for each layer the keys of all its tokens, then their values; what kernels hand on lies in the workspace, where the
static memory plan of the pass puts it. Kernels read nothing but through the tiers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from node.dataflow.batch import Batch, Ints
from node.dataflow.execute import Exchange, run
from node.dataflow.form import Step
from node.dataflow.graph import Operator
from node.dataflow.meaning.operands import Array
from node.dataflow.meaning.rounding import to_bf16
from node.dataflow.program import Program
from node.dataflow.schedule import Access, Launch
from node.errors import HardwareError, InputError
from node.events import Command, Kind, Tier
from node.functional.planned import Planned, weight_layout
from node.functional.store import ELEMENT, Store
from node.units import Bytes

Shards = Callable[[int, int, Operator], Array]  # of an expert, a layer and an operator: this socket's weights


class Range(NamedTuple):
    """A KV range in HBM."""

    address: int
    size: Bytes


class ContentSocket:
    """Socket ``name``: ``programs`` of its rank, its tiers' content, and where experts' weights come from at first.

    ``workspace`` is a range in HBM; ``kv_token``: of each program the bytes of a token in a KV range; ``rounds``:
    weights, and what operators make, are rounded to BF16.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        tiers: tuple[Store, Store],
        shards: Shards,
        workspace: Range,
        kv_token: Sequence[Bytes],
        *,
        rounds: bool = False,
    ) -> None:
        self.programs, self.workspace, self.kv_token = programs, workspace, kv_token
        self.ddr, self.hbm = tiers
        self.layouts = [weight_layout(program.graph) for program in programs]
        self.widths = [_width(program) for program in programs]
        self._shards, self._rounds = shards, rounds
        self._decodes: dict[tuple[int, int, int], Planned] = {}
        self._passes: dict[tuple[int, int], Planned] = {}

    def apply(self, command: Command, program: int) -> None:
        """ALLOCATE, COPY or FREE of an expert that runs as ``program``, or of a KV range."""
        store = self.hbm if command.tier == Tier.HBM else self.ddr
        if command.kind == Kind.COPY:
            size = self.programs[program].weight_bytes
            self.hbm.write(command.address, self.ddr.read(command.source, size))
        else:  # what was there before an ALLOCATE is not there for its owner
            store.forget(command.address, command.size)

    def load(self, command: Command, program: int) -> Iterator[None]:
        """LOAD of an expert, an operator's weights at a time; raises ``InputError`` where their shape is wrong."""
        store = self.hbm if command.tier == Tier.HBM else self.ddr
        for held in self.layouts[program].values():
            weights, shape = self._shards(command.symbol, held.layer, held.operator), (held.rows, held.columns)
            if weights.shape != shape:
                what = f"{held.operator.name} of layer {held.layer}"
                raise InputError(f"expert {command.symbol}: {what} has shape {weights.shape}, not {shape}")
            store.write(command.address + held.offset, to_bf16(weights) if self._rounds else weights)
            yield

    def prefill(self, program: int, weights: int, batch: Batch, tokens: Ints, kv: Sequence[Range]) -> Exchange[Array]:
        """One pass over prompts with the weights at an address: (sequences, words) logits of what comes next."""
        planned = Planned.of(self.programs[program], batch.step, decoding=False)
        return (yield from self._run(planned, _Pass(self, planned, program, weights, batch, tokens, kv)))

    def step(self, program: int, weights: int, batch: Batch, tokens: Ints, kv: Sequence[Range]) -> Exchange[Array]:
        """One decode step: a token of each sequence."""
        planned = self._decode(program, batch.step)
        return (yield from self._run(planned, _Pass(self, planned, program, weights, batch, tokens, kv)))

    def through(self, program: int, weights: int, given: Mapping[str, Array]) -> Exchange[Array]:
        """One pass with the weights at an address over arrays, by tensor, a row per sequence: what comes out, as rows.

        Raises ``InputError`` where an array is none that the pass is over, or has another shape.
        """
        rows = min((len(array) for array in given.values()), default=0)
        batch = Batch((0,) * rows, (0,) * rows)
        planned = self._passes.get((program, rows))
        if planned is None:
            planned = self._passes[program, rows] = Planned.of(self.programs[program], batch.step, decoding=False)
        planned.check(self.programs[program].name, given, rows)
        content = _Pass(self, planned, program, weights, batch, np.zeros(0, dtype=np.int64), ())
        self._check_room(planned)
        for name, access in planned.given.items():
            content.write(access, to_bf16(given[name]) if self._rounds else given[name])
        return (yield from self._run(planned, content)).copy()  # the next pass writes over it

    def _check_room(self, planned: Planned) -> None:
        if planned.size > self.workspace.size:
            raise HardwareError(
                f"{planned.size:,} bytes between kernels, but the workspace has {self.workspace.size:,}"
            )

    def _run(self, planned: Planned, content: _Pass) -> Exchange[Array]:
        self._check_room(planned)
        yield from run(planned.launches, content, rounds=self._rounds)
        last = planned.launches[-1].writes[-1]
        return content.read(last)

    def _decode(self, program: int, step: Step) -> Planned:
        """The plan of decode steps: made for the context rounded up, as what is handed on may grow with it."""
        context = 1 << (step.context - 1).bit_length()
        known = self._decodes.get((program, step.sequences, context))
        if known is None:
            largest = Step(step.tokens, context, context, step.sequences)
            known = Planned.of(self.programs[program], largest, decoding=True)
            self._decodes[program, step.sequences, context] = known
        return known


def _width(program: Program) -> int:
    """Elements of a token's keys in one layer; a model of one pass keeps none."""
    layers = sum(block.repeat for block in program.graph.blocks if block.name == "layer")
    return program.kv_bytes_per_token // (2 * layers * ELEMENT) if layers else 0


@dataclass
class _Pass:
    """The content of one pass: see ``node.dataflow.execute.Content``; and what operators find in it."""

    socket: ContentSocket
    planned: Planned
    program: int
    base: int  # of the weights
    batch: Batch
    tokens: Ints
    kv: Sequence[Range]
    launch: Launch | None = None

    @property
    def targets(self) -> Ints:
        """There are none: nothing is learned."""
        raise HardwareError("a pass that serves has no targets")

    def read(self, access: Access) -> Array:
        """What a kernel handed on."""
        shape = (getattr(self.batch.step, access.stored.per), *access.stored.shape)
        return self.socket.hbm.read(self._address(access), int(np.prod(shape)) * ELEMENT).reshape(shape)

    def write(self, access: Access, array: Array) -> None:
        """Hand on what a kernel made."""
        self.socket.hbm.write(self._address(access), array)

    def operands(self, launch: Launch) -> _Pass:
        """The pass itself, at ``launch``."""
        self.launch = launch
        return self

    def weights(self, operator: str) -> Array:
        """Of an operator of this launch, from the expert's range."""
        assert self.launch is not None
        held = self.socket.layouts[self.program][self.launch.weights[operator]]
        found = self.socket.hbm.read(self.base + held.offset, held.rows * held.columns * ELEMENT)
        return found.reshape(held.rows, held.columns)

    def append(self, keys: Array, values: Array) -> None:
        """Each sequence's new keys and values go to its range."""
        for sequence, span in enumerate(self.batch.of_tokens):
            for which, array in enumerate((keys, values)):
                before = self.batch.before[sequence] * array.shape[1] * ELEMENT
                self.socket.hbm.write(self._cache(sequence, which, array.shape[1]) + before, array[span])

    def keys(self, sequence: int) -> Array:
        """All keys of a sequence."""
        return self._cached(sequence, 0)

    def values(self, sequence: int) -> Array:
        """All values of a sequence."""
        return self._cached(sequence, 1)

    def _cached(self, sequence: int, which: int) -> Array:
        tokens, width = self.batch.before[sequence] + self.batch.new[sequence], self._width()
        found = self.socket.hbm.read(self._cache(sequence, which, width), tokens * width * ELEMENT)
        return found.reshape(tokens, width)

    def _width(self) -> int:
        """Elements of a token's keys in one layer."""
        return self.socket.widths[self.program]

    def _cache(self, sequence: int, which: int, width: int) -> int:
        """Where a sequence's keys (0) or values (1) of this launch's layer begin."""
        assert self.launch is not None
        held = self.kv[sequence]
        room = held.size // self.socket.kv_token[self.program]
        return held.address + (2 * self.launch.iteration + which) * room * width * ELEMENT

    def _address(self, access: Access) -> int:
        return self.socket.workspace.address + self.planned.addresses[access.symbol]

"""Operator graphs: tensors, operators, blocks, on one socket of a tensor-parallel group."""

from __future__ import annotations

import math
from dataclasses import dataclass

from node.dataflow.attributes import Attributes
from node.dataflow.form import ZERO, Form, total
from node.dataflow.matrix import Matrix
from node.units import Bytes

DTYPES: dict[str, int] = {"bf16": 2, "fp16": 2, "fp32": 4, "int8": 1}  # bytes of an element


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor between operators, on one socket: for each of ``per`` (a field of ``Form``) elements of ``shape``.

    So the activations of a decoder are per ``tokens``, attention scores per ``pairs``, an image per ``sequences``, the
    gradient of weights per ``constant``. ``kept``: a later block reads it too, so that it is written to memory.
    ``within``: the operator in whose weights it lies, where it has no memory of its own: what is updated in place.
    ``given``: the pass is over it, so that it lies in memory before it begins: an image. Other operators may take it.
    """

    name: str
    per: str
    shape: tuple[int, ...]
    dtype: str = "bf16"
    kept: bool = False
    within: str = ""
    given: bool = False

    @property
    def elements(self) -> Form:
        """How many elements."""
        return Form(**{self.per: math.prod(self.shape)})

    @property
    def size(self) -> Form:
        """Bytes."""
        return Form(**{self.per: math.prod(self.shape) * DTYPES[self.dtype]})


MODES = ("systolic", "simd", "memory")


@dataclass(frozen=True, slots=True)
class Stencil:
    """What an operator on images needs beside the part of an image, a tile, that it works on.

    A tile is at least one of ``lines`` of an image. ``behind``: bytes of lines before the tile that are read with it,
    and so stay in the buffer. ``ahead``: it reads lines of the tile after it too, so that it works a tile later.
    """

    lines: int
    behind: Bytes = 0
    ahead: bool = False


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator on one socket's shard.

    ``kind``: gather, gemm, attention, rowwise, elementwise, layout or collective. ``mode``: how PCUs run it, as a
    ``systolic`` array or as ``simd`` lanes that take each element ``passes`` times, or not at all: ``memory`` is done
    by the access pattern of a PMU's buffer (a transpose, an append).

    A systolic operator has ``groups`` of ``rows`` x ``columns`` outputs (sums over all groups), which can be computed
    in parallel; rows of a group share its stationary operand, weights or a sequence's keys. Element-wise operators are
    parallel in every element. ``whole``: it needs all of a sequence before it makes anything, so that a tile cannot be
    less than one. ``reduces``: what it makes is complete when it has taken all of a sequence: so a tile cannot be less
    than one in a kernel that also reads it. ``stencil``: which parts of an image can be a tile, and what of others it
    reads. ``stationary``: the inputs of which it needs all of such a part for each row that it makes, keys and values:
    a kernel that makes them has no smaller tile, one that they enter holds them and takes rows in tiles of any size.

    ``weights``: bytes it owns in memory; ``weight_read``: bytes of weights one pass reads, its own or those of the
    operator ``weights_of``; ``kv_read``/``kv_write``: KV cache bytes; ``message``: bytes that each member brings into a
    collective, ``collective`` which one, ``members`` how many, 0 for the whole tensor-parallel group, ``direct``: an
    all-reduce in one hop; ``matrix``: the weights it uses, its own or those of ``weights_of``; ``function``: what
    operators of its kind differ in (add, multiply, silu ..), with what ``attributes``: by these
    ``node.dataflow.meaning`` computes it.
    """

    name: str
    kind: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    flops: Form = ZERO
    mode: str = "simd"
    passes: int = 1
    rows: Form = ZERO
    columns: Form = ZERO
    groups: Form = ZERO
    whole: bool = False
    reduces: bool = False
    stencil: Stencil | None = None
    stationary: tuple[str, ...] = ()
    weights: Bytes = 0
    weight_read: Form = ZERO
    kv_read: Form = ZERO
    kv_write: Form = ZERO
    message: Form = ZERO
    collective: str = ""
    matrix: Matrix | None = None
    function: str = ""
    weights_of: str = ""
    members: int = 0
    direct: bool = False
    attributes: Attributes | None = None

    @property
    def meaning(self) -> str:
        """What it computes, by name."""
        return self.function or self.collective or self.kind

    @property
    def streamed(self) -> Form:
        """Bytes that a SIMD operator makes, or takes if it makes none or a sum of them."""
        return total(tensor.size for tensor in (() if self.reduces else self.outputs) or self.inputs)


@dataclass(frozen=True, slots=True)
class Block:
    """Operators in order, repeated ``repeat`` times with the same sizes (a decoder layer).

    What enters it and nobody names is what ran before it made: the first output of its last operator. ``in_decode``:
    whether a decode step runs it; a vision tower runs with the prompt only. ``mirrors``: an earlier block, as often
    repeated, whose last iteration the first one of this reads, and so on back: the layers of a backward pass.
    ``origins``: of each operator the block that it is from, where several were joined. ``first``: the number of its
    first iteration in the model, where other blocks have the iterations before (layers that differ).
    """

    name: str
    operators: tuple[Operator, ...]
    repeat: int = 1
    in_decode: bool = True
    mirrors: str = ""
    origins: tuple[str, ...] = ()
    first: int = 0

    def joined(self, other: Block) -> Block:
        """This block and the one after it as one; both run once."""
        origins = tuple(
            name for block in (self, other) for name in block.origins or (block.name,) * len(block.operators)
        )
        return Block(f"{self.name}+{other.name}", (*self.operators, *other.operators), origins=origins)


@dataclass(frozen=True, slots=True)
class Graph:
    """A model on one socket of a tensor-parallel group.

    ``kv_bytes_per_token``: KV cache bytes that one token of one sequence takes; ``window``: how many of the
    latest tokens attention sees, where it is limited; ``context``: the most tokens of one sequence.
    """

    name: str
    blocks: tuple[Block, ...]
    kv_bytes_per_token: Bytes = 0
    window: int | None = None
    context: int = 1

    @property
    def weight_bytes(self) -> Bytes:
        """Bytes of this socket's shard of the weights."""
        return sum(op.weights * block.repeat for block in self.blocks for op in block.operators)

    @property
    def operator_count(self) -> int:
        """Operators run by one pass."""
        return sum(len(block.operators) * block.repeat for block in self.blocks)


def share(items: int, parts: int, part: int) -> range:
    """The contiguous items that one of ``parts`` holds; sizes differ by at most one, the larger ones first."""
    size, extra = divmod(items, parts)
    start = part * size + min(part, extra)
    return range(start, start + size + (part < extra))

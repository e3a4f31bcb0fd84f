"""What one socket of a tensor-parallel group holds of a model: sizes, and which heads."""

from __future__ import annotations

from dataclasses import dataclass

from node.dataflow.attributes import Heads
from node.dataflow.graph import share
from node.models.shape import Shape


@dataclass(frozen=True, slots=True)
class Shard:
    """What one socket of a tensor-parallel group holds of each layer, in elements."""

    heads: int
    kv_heads: int
    ffn: int
    vocabulary: int
    vision: tuple[int, int] = (0, 0)  # heads and FFN columns of the vision tower

    @classmethod
    def of(cls, shape: Shape, degree: int, rank: int) -> Shard:
        """The shard of ``rank`` among ``degree`` sockets."""
        heads, kv_heads = share(shape.heads, degree, rank), kv_heads_of(shape, degree, rank)
        ffn, vocabulary = share(shape.ffn, degree, rank), share(shape.vocabulary, degree, rank)
        tower = shape.vision
        vision = (len(share(tower.heads, degree, rank)), len(share(tower.ffn, degree, rank))) if tower else (0, 0)
        return cls(len(heads), len(kv_heads), len(ffn), len(vocabulary), vision)


def kv_heads_of(shape: Shape, degree: int, rank: int) -> set[int]:
    """The KV heads that the query heads of ``rank`` among ``degree`` sockets use."""
    group = shape.heads // shape.kv_heads
    return {head // group for head in share(shape.heads, degree, rank)}


def query_heads(shape: Shape, degree: int, rank: int) -> Heads:
    """The query heads of a socket, the KV heads they read counted from its first."""
    held, group = share(shape.heads, degree, rank), shape.heads // shape.kv_heads
    slopes = alibi_slopes(shape.heads) if shape.traits.positions == "alibi" else ()
    return Heads(
        tuple(head // group - held.start // group for head in held),
        shape.head_dim,
        tuple(slopes[head] for head in held) if slopes else (),
    )


def alibi_slopes(heads: int) -> tuple[float, ...]:
    """Slopes of ALiBi (Press et al. 2022): 2^(-8 i / n) for n a power of two; else every other one of 2n between."""
    power = 2 ** (heads.bit_length() - 1)
    first = [2.0 ** (-8 * (i + 1) / power) for i in range(power)]
    return (*first, *(2.0 ** (-4 * (2 * i + 1) / power) for i in range(heads - power)))

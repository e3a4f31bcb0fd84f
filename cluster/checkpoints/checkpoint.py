"""A model on disk: its shape, its tensors under the Hugging Face names, its tokenizer; each is read when asked for.

It maps files into memory, so it stays in its process: hand other processes the path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path

from cluster.checkpoints.tokenizer import Tokenizer
from node.dataflow.graph import Operator
from node.dataflow.meaning.pointwise import frequencies
from node.errors import InputError
from node.models.checkpoint import NAMES, QKV, TABLES
from node.models.decoder import decoder
from node.models.shape import Shape
from node.models.weights import Array


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file: its shape, and how to ``read`` it as float32."""

    shape: tuple[int, ...]
    read: Callable[[], Array]


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk; ``stored``: its tensors by their Hugging Face names."""

    path: Path
    shape: Shape
    stored: Mapping[str, Stored]
    read_tokenizer: Callable[[], Tokenizer]

    def __post_init__(self) -> None:
        """Every weight that a graph of the shape needs is there, in its size; raises ``InputError``."""
        try:
            frequencies(self.shape.rope, self.shape.head_dim)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from None
        for name, shape in _needed(self.shape):
            if name not in self.stored:
                raise InputError(f"{self.path}: has no tensor {name}")
            if self.stored[name].shape != shape:
                raise InputError(f"{self.path}: tensor {name} is {self.stored[name].shape}: must be {shape}")

    def tensor(self, name: str) -> Array:
        """The tensor of this Hugging Face name, read from the file anew each time; ``KeyError`` where it has none."""
        return self.stored[name].read()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's own; raises ``InputError`` where it has none that can be read."""
        return self.read_tokenizer()

    @property
    def parameters(self) -> int:
        """Elements of all weights that the model computes with."""
        return sum(prod(shape) for _, shape in _needed(self.shape))


def _needed(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and stored shape of every weight of the graph, linear layers (out, in)."""
    if shape.family not in NAMES:
        raise InputError(f"model {shape.name}: checkpoints of {shape.family} are not known; {', '.join(NAMES)} are")
    names = NAMES[shape.family]
    for block in decoder(shape).blocks:
        weighted = [op for op in block.operators if op.weights and op.matrix]
        for layer in range(block.repeat):
            fused = [op for op in weighted if op.name in QKV and "qkv" in names]
            if fused:
                yield from _linear(names["qkv"].format(i=layer), fused)
            for op in weighted:
                if op not in fused:
                    yield from _linear(names[op.name].format(i=layer), [op])


def _linear(module: str, operators: list[Operator]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Weight and bias of operators that lie in one matrix, beside each other."""
    matrices = [op.matrix for op in operators if op.matrix]
    rows, columns = matrices[0].rows, sum(matrix.columns for matrix in matrices)
    if operators[0].name.endswith("norm"):
        yield f"{module}.weight", (columns,)
        bias = rows == 2
    else:
        yield f"{module}.weight", (rows, columns) if operators[0].name in TABLES else (columns, rows)
        bias = matrices[0].bias
    if bias:
        yield f"{module}.bias", (columns,)

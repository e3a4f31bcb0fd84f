"""Models that are one pass over a batch of signals or images: no tokens, no KV cache, nothing to decode."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Protocol

from node.dataflow.form import Step
from node.dataflow.graph import Graph, Operator
from node.models.checkpoint import Tensors
from node.models.encoder import is_encoder, load_encoder
from node.models.monarch import is_transform, load_transform
from node.models.unet_shape import is_expert
from node.models.vision_expert import load_vision_expert
from node.models.weights import Array


class OnePass(Hashable, Protocol):
    """A model whose graph counts everything per sequence: a sequence is a signal, an image."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def together(self) -> bool:
        """Whether the sockets of a group share every sequence (tensor parallel), or have whole ones of their own."""

    def graph(self, degree: int = 1, rank: int = 0) -> Graph:
        """What ``rank`` of ``degree`` sockets runs; the same for all where they do not work ``together``."""


class Learned(OnePass, Protocol):
    """A model of one pass with weights from a checkpoint: what ``node.functional`` needs of it."""

    def weights(self, operator: str, layer: int, tensors: Tensors) -> Array:
        """The whole weights of an operator, (rows, columns) with a bias as one row more, float32.

        ``layer``: the number of its block's iteration, counted from the block's ``first``. ``tensors``: by the
        checkpoint's own names; ``InputError`` where it lacks one, or one of the shape that the model has.
        """

    def shard(self, op: Operator, whole: Array, degree: int, rank: int) -> Array:
        """What ``rank`` of ``degree`` sockets holds of them; all of it where they do not work ``together``."""


# whether a name or a file is one of its kind, and how it is read
READERS: tuple[tuple[Callable[[str], bool], Callable[[str], OnePass]], ...] = (
    (is_transform, load_transform),
    (is_encoder, load_encoder),
    (is_expert, load_vision_expert),
)


def one_pass(name: str) -> OnePass | None:
    """The built-in model of one pass that is called so, or that of a file; None for a model that works on tokens.

    Raises ``InputError`` for a file that cannot be read, or is none of its kind.
    """
    return next((load(name) for knows, load in READERS if knows(name)), None)


def members(model: OnePass, sockets: int) -> int:
    """How many sockets make a group."""
    return sockets if model.together else 1


def pass_step(model: OnePass, batch: int, sockets: int) -> Step:
    """The pass over a ``batch`` on one of so many ``sockets``: all of it, or the most that one of them has."""
    return Step(0, 0, 0, batch if model.together else -(-batch // sockets))


def kinds(model: OnePass, degree: int) -> list[tuple[Graph, list[int]]]:
    """The graphs of a group's sockets that differ, each with the ranks that have it."""
    found: list[tuple[Graph, list[int]]] = []
    for rank in range(degree):
        graph = model.graph(degree, rank)
        known = next((ranks for other, ranks in found if other == graph), None)
        if known is None:
            found.append((graph, known := []))
        known.append(rank)
    return found

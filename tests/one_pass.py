"""A small model of one pass with a checkpoint, for tests of functional mode: two layers of an FFN over an image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from cluster.content import PassExpert
from node.dataflow.graph import Block, Graph, Operator, Tensor, share
from node.dataflow.matrix import Matrix
from node.dataflow.operators import activation, activation_function, collective, gemm
from node.errors import InputError
from node.models.checkpoint import Tensors
from node.models.weights import Array, columns_of, rows_of

WIDTH, FFN, ROWS, LAYERS = 6, 10, 4, 2


@dataclass(frozen=True)
class Ffn:
    """Of each of an image's rows, twice: down(gelu(up(x))), then the sum with what is ``given`` beside the image."""

    name: str
    together: bool = True

    def graph(self, degree: int = 1, rank: int = 0) -> Graph:
        """Columns of ``up`` are split over the sockets where they work together."""
        held = len(share(FFN, degree, rank)) if self.together else FFN
        image, other = (Tensor(name, "sequences", (ROWS * WIDTH,), given=True) for name in ("image", "other"))
        between = activation("made_0", ROWS * WIDTH, "sequences")
        blocks = [self._layer(image, held, 0, degree), self._layer(between, held, 1, degree)]
        made, out = (activation(name, ROWS * WIDTH, "sequences") for name in ("made_1", "out"))
        add = Operator("add", "elementwise", (made, other), (out,), flops=out.elements, function="add")
        return Graph(self.name, (*blocks, Block("head", (add,), in_decode=False)))

    def _layer(self, source: Tensor, held: int, number: int, degree: int) -> Block:
        up, activated = (activation(f"{name}_{number}", ROWS * held, "sequences") for name in ("up", "activated"))
        down, made = (activation(f"{name}_{number}", ROWS * WIDTH, "sequences") for name in ("partial", "made"))
        split = self.together and degree > 1
        operators = (
            gemm(f"up_{number}", source, up, Matrix(WIDTH, held, 2, bias=True), ROWS),
            activation_function(f"gelu_{number}", up, activated, "gelu_erf"),
            gemm(f"down_{number}", activated, down if split else made, Matrix(held, WIDTH, 2, bias=True), ROWS),
            *((collective(f"sum_{number}", "all_reduce", down, made),) if split else ()),
        )
        return Block(f"layer_{number}", operators, in_decode=False, first=number)

    def weights(self, operator: str, layer: int, tensors: Tensors) -> Array:
        """By the operator's name."""
        try:
            return tensors(operator)
        except KeyError:
            raise InputError(f"model {self.name}: its checkpoint has no tensor {operator}") from None

    def shard(self, op: Operator, whole: Array, degree: int, rank: int) -> Array:
        """Columns of ``up``, rows of ``down``."""
        if not self.together:
            return whole
        held = share(FFN, degree, rank)
        return columns_of(whole, held) if op.name.startswith("up") else rows_of(op, whole, held, rank)


@cache
def tensors(seed: int) -> Tensors:
    """Random weights, with a bias as one row more."""
    random = np.random.default_rng(seed)
    sizes = {"up": (WIDTH + 1, FFN), "down": (FFN + 1, WIDTH)}
    made = {
        f"{name}_{layer}": random.normal(size=size).astype(np.float32)
        for layer in range(LAYERS)
        for name, size in sizes.items()
    }
    return made.__getitem__


def expert(seed: int, *, together: bool) -> PassExpert:
    """A model with random weights."""
    return PassExpert(Ffn(f"ffn {seed}", together), partial(tensors, seed))

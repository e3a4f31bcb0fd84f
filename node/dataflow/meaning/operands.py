"""What an operator reads besides the tensors that enter it: its weights, the tokens, the KV cache."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from node.dataflow.batch import Batch, Ints

Array = npt.NDArray[np.float32]


class Operands(Protocol):
    """What a block's operators find on their socket. Shapes: ``batch`` says how many tokens and sequences."""

    @property
    def batch(self) -> Batch:
        """The sequences of the pass."""

    @property
    def tokens(self) -> Ints:
        """(tokens,): the word of each token; below 0 stands a patch of the sequence's image."""

    @property
    def targets(self) -> Ints:
        """(tokens,): the word that should follow each token, in training."""

    def weights(self, operator: str) -> Array:
        """The weights of an operator, (rows, columns) with a bias as one row more."""

    def append(self, keys: Array, values: Array) -> None:
        """The new tokens' keys and values, each (tokens, KV heads x elements of a head), go to the KV cache."""

    def keys(self, sequence: int) -> Array:
        """All keys of a sequence, (before + new, KV heads x elements of a head)."""

    def values(self, sequence: int) -> Array:
        """All values of a sequence, of the same shape."""

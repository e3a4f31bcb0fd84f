"""Weights of an operator: how many there are, and the bytes they take."""

from __future__ import annotations

from dataclasses import dataclass

from node.units import Bytes


@dataclass(frozen=True, slots=True)
class Matrix:
    """Weights of a linear layer: rows x columns elements of ``element_bytes``, with a ``bias`` one row more.

    Also the table of an embedding, and of a norm its weight and, in a second row, its bias. ``density``: the share of
    elements that are not zero; of a sparse matrix only those are held and multiplied, each with ``index_bytes`` that
    say where it is.
    """

    rows: int
    columns: int
    element_bytes: float
    bias: bool = False
    density: float = 1.0
    index_bytes: float = 0.0

    @property
    def non_zeros(self) -> float:
        """Elements held, without the bias."""
        return self.rows * self.columns * self.density

    @property
    def elements(self) -> int:
        """Elements that training learns: those held, and the bias."""
        return round(self.non_zeros) + self.bias * self.columns

    @property
    def size(self) -> Bytes:
        """Bytes."""
        return round(
            self.non_zeros * (self.element_bytes + self.index_bytes) + self.bias * self.columns * self.element_bytes
        )

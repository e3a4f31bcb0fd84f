"""What kernels move to and from HBM: the one account by which they are timed, and operational intensity is worked out.

A tensor made and used inside a kernel never touches HBM. Every other one is read once by each kernel that takes it and
written once by the one that makes it. Stationary operands, weights and a sequence's keys and values, stream once, and
again with every further tile as far as they find no room in SRAM.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from node.dataflow.form import ZERO, Form, Step, total
from node.dataflow.graph import Operator, Tensor

Floats = npt.NDArray[np.float64]
FORM = len(ZERO.parts)


class Traffic:
    """Bytes of many kernels in one ``step``: ``ranges`` (first, last) of consecutive ``operators`` of a block."""

    def __init__(self, operators: Sequence[Operator], ranges: Sequence[tuple[int, int]], step: Step) -> None:
        self._parts = np.array(step.parts, dtype=np.float64)
        self._sequences = max(step.sequences, 1)
        self._operators, self._ranges = operators, ranges
        first, last = np.array(ranges).T
        index = np.arange(len(operators))
        self._inside = (index >= first[:, None]) & (index <= last[:, None])
        self._entering = {i: _entering(operators, i) for i in sorted(set(first.tolist()))}
        self._stationary = {i: _entering(operators, i, stationary=True) for i in self._entering}
        always = _rows(op.kv_write + Form(tokens=op.weight_read.tokens) for op in operators)
        leaving = _leaving(operators)
        self._once = np.array(
            [(self._entering[i] + leaving[j] + always)[i : j + 1].sum(axis=0) for i, j in ranges]
        ).reshape(len(ranges), FORM)
        self._weights = np.array([op.weight_read.constant for op in operators], dtype=np.float64)
        self._kv = _rows(op.kv_read for op in operators)

    def forms(self, index: int, tiles: int, resident: float) -> Form:
        """HBM bytes of one kernel with a pass in ``tiles`` and a share of its stationary operands ``resident``."""
        inside = self._inside[index]
        weights, kv = self._again(tiles, resident)
        moved = self._once[index] + self._kv[inside].sum(axis=0) * kv
        moved[0] += self._weights[inside].sum() * weights
        return Form(*moved.tolist())

    def _again(self, tiles: Floats | int, resident: Floats | float) -> tuple[Floats, Floats]:
        """How often weights, and keys and values, stream."""
        missing, parts = 1 - np.asarray(resident, dtype=np.float64), np.asarray(tiles, dtype=np.float64)
        return 1 + (parts - 1) * missing, 1 + (np.maximum(parts / self._sequences, 1) - 1) * missing

    def bytes(self, tiles: Floats, resident: Floats) -> Floats:
        """HBM bytes of each kernel (rows) for each number of ``tiles`` (columns), as ``resident`` is."""
        weights, kv = self._again(tiles, resident)
        held, cached = self._inside @ self._weights, self._inside @ (self._kv @ self._parts)
        return np.asarray((self._once @ self._parts)[:, None] + held[:, None] * weights + cached[:, None] * kv)

    @cached_property
    def operands(self) -> Floats:
        """Stationary bytes of each operator, which would have to stay over all tiles: of K and V a sequence's."""
        return np.asarray(self._weights + self._kv @ self._parts / self._sequences)

    @cached_property
    def stationary(self) -> Floats:
        """The same for each kernel."""
        return np.asarray(self._inside @ self.operands)

    @cached_property
    def apart(self) -> Floats:
        """Bytes of each kernel's operators, each a kernel of its own that streams nothing twice."""
        alone = [
            _distinct(op.inputs) + total(t.size for t in op.outputs) + op.kv_write + op.kv_read + op.weight_read
            for op in self._operators
        ]
        return np.asarray(self._inside @ (_rows(alone) @ self._parts))

    def buffers(self, tiles: Floats) -> tuple[Floats, Floats]:
        """Bytes of a tile: what each operator makes (tiles x operators), what enters (ranges x tiles x operators)."""
        part = self._parts / tiles[:, None]
        parts = np.repeat(part[:, None], len(self._operators), axis=1)
        parts[:, ~_cut(self._operators), 0] = 1.0  # what there is once in a pass is held whole
        made = (parts * _rows(total(tensor.size for tensor in op.outputs) for op in self._operators)).sum(axis=-1)
        most = self._sequences * np.array([op.stencil.lines if op.stencil else 1 for op in self._operators])
        whole = self._parts / np.minimum(tiles[:, None], most)[..., None]
        by_first = {
            first: (parts * (entering - self._stationary[first]) + whole * self._stationary[first]).sum(axis=-1)
            for first, entering in self._entering.items()
        }
        entering = np.array([by_first[first] for first, _ in self._ranges])
        return made, np.where(self._inside[:, None, :], entering, 0.0)


def _rows(forms: Iterable[Form]) -> Floats:
    return np.array([form.parts for form in forms], dtype=np.float64).reshape(-1, FORM)


def _cut(operators: Sequence[Operator]) -> npt.NDArray[np.bool_]:
    """Which operators work on weights alone, element by element: tiles cut those too.

    Not if one of their inputs is made here as a sum over all tiles, a gradient of weights.
    """
    whole: set[str] = set()
    found = []
    for op in operators:
        alone = all(tensor.per == "constant" and tensor.name not in whole for tensor in (*op.inputs, *op.outputs))
        found.append(op.kind == "elementwise" and alone)
        if not found[-1]:
            whole |= {tensor.name for tensor in op.outputs}
    return np.array(found, dtype=np.bool_)


def _distinct(tensors: Sequence[Tensor]) -> Form:
    return total(tensor.size for tensor in {tensor.name: tensor for tensor in tensors}.values())


def _entering(operators: Sequence[Operator], first: int, *, stationary: bool = False) -> Floats:
    """Of kernels that begin with operator ``first``: what enters with each operator, as coefficients of a form.

    Of what enters maybe only what is ``stationary`` to the operator with which it does.
    """
    known: set[str] = set()
    found = []
    for index, op in enumerate(operators):
        if index < first:
            found.append(ZERO)
            continue
        new = [tensor for tensor in op.inputs if tensor.name not in known]
        found.append(_distinct([tensor for tensor in new if tensor.name in op.stationary or not stationary]))
        known |= {tensor.name for tensor in (*op.inputs, *op.outputs)}
    return _rows(found)


def _leaving(operators: Sequence[Operator]) -> list[Floats]:
    """Of kernels that end with each operator: what leaves of each operator: read later, in the block or beyond."""
    last_use = {tensor.name: index for index, op in enumerate(operators) for tensor in op.inputs}
    found = []
    for last in range(len(operators)):
        leaves = [[t for t in op.outputs if t.kept or last_use.get(t.name, len(operators)) > last] for op in operators]
        found.append(_rows(total(tensor.size for tensor in of_operator) for of_operator in leaves))
    return found

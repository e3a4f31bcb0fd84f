"""What a stage is to its pipeline, before anything is placed: work, depth, how often and how long tensors are held."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

from node.collectives import COLLECTIVES, all_gather
from node.dataflow.form import ZERO, Form, Step
from node.dataflow.graph import DTYPES, Operator
from node.dataflow.traffic import Floats
from node.spec import Machine

Range = tuple[int, int]  # of operators in a block: first, last


def work(op: Operator, step: Step, tiles: Floats, machine: Machine) -> tuple[Floats, Floats]:
    """PCU cycles of a tile, and blocks of rows that share a stationary operand, by number of tiles."""
    assert machine.pipeline is not None
    macs, lanes = machine.compute.macs_per_cycle, machine.pipeline.lanes
    if op.mode == "memory":
        return np.zeros(len(tiles)), np.ones(len(tiles))
    if op.mode == "simd":
        words = op.streamed.at(step) / DTYPES["bf16"]  # a lane takes two cycles for an FP32 number
        cycles = max(words * op.passes / lanes, op.flops.at(step) / macs)
        return cycles / tiles, np.ones(len(tiles))
    array_rows = macs / lanes
    groups = max(op.groups.at(step), 1.0)
    parts = op.stencil.lines if op.stencil is not None else 1  # of a sequence, between which tiles may cut
    apart = max(step.sequences, 1) * parts if op.groups.sequences else 1  # groups that tiles keep whole
    once = op.rows.constant  # rows of a weight's gradient: tiles cut what is summed, not them
    cut = (op.rows.at(step) - once) / np.maximum(1.0, tiles / apart)
    rows = np.maximum((once + cut) / groups, 1.0)
    columns = max(op.columns.at(step) / groups, 1.0)
    blocks = np.ceil(rows / array_rows - 1e-9)
    wasted = blocks * array_rows / rows * (np.ceil(columns / lanes) * lanes / columns)
    return op.flops.at(step) / 2 / macs * wasted / tiles, blocks


@cache
def feeding(units: int, lanes: int, array_rows: float) -> Floats:
    """The fewest PMUs that feed a grid of PCUs: by blocks of rows from 1 on, and by PCUs from none to ``units``.

    Over all grids no wider than there are blocks of rows, so that more PCUs never need fewer PMUs.
    """
    ratio = lanes / array_rows
    pcus = np.arange(units + 1.0)
    widths = np.arange(1.0, math.ceil(math.sqrt(units * ratio)) + 1)
    across = np.minimum(widths[:, None], np.maximum(pcus, 1.0))
    pmus: Floats = np.minimum.accumulate(np.ceil(pcus / across) + np.ceil(across / ratio), axis=0)
    return pmus


def sending(op: Operator, machine: Machine, members: int) -> tuple[Form, float]:
    """Of a collective in a group of ``members``: seconds that the link is sending, and seconds of hops."""
    if not op.collective:
        return ZERO, 0.0
    transfer = (all_gather if op.direct else COLLECTIVES[op.collective])(1.0, op.members or members)
    return op.message * (transfer.bytes_sent / machine.peer.bandwidth), transfer.hops * machine.peer.latency


def reads(operators: Sequence[Operator]) -> Floats:
    """How often a stage's output is read from its buffers: as often as the hungriest SIMD stage takes it."""
    passes = np.ones(len(operators))
    for index, op in enumerate(operators):
        names = {tensor.name for tensor in op.outputs}
        takers = [c.passes for c in operators[index + 1 :] if names & {tensor.name for tensor in c.inputs}]
        passes[index] = max(takers, default=1)
    return passes


def tile_counts(operators: Sequence[Operator], step: Step, array_rows: float) -> Floats:
    """Into how many tiles a pass may go: tiles of one, two, four ... arrays' rows, up to one tile."""
    rows = max([step.tokens, step.sequences, *(op.rows.at(step) / max(op.groups.at(step), 1.0) for op in operators)])
    doublings = max(0, math.ceil(math.log2(max(rows / array_rows, 1.0))))
    counts = np.maximum(1.0, np.ceil(rows / (array_rows * 2.0 ** np.arange(doublings + 1))))
    return np.unique(
        [*counts, *(max(1.0, np.ceil(step.sequences / 2.0**n)) for n in range(step.sequences.bit_length()))]
    )


def depths(operators: Sequence[Operator], ranges: Sequence[Range], *, cut: bool) -> Floats:
    """Of each range, the most operators that follow from one another; ``cut``: tiles are parts of a sequence."""
    reach = {first: np.maximum.accumulate(_depth(operators[first:], cut)) for first in {first for first, _ in ranges}}
    return np.array([reach[first][last - first] for first, last in ranges], dtype=np.float64)


def _depth(operators: Sequence[Operator], cut: bool) -> list[int]:
    """Of each operator, the most operators in a row that lead to it, itself included.

    Where images are ``cut``, one that reads lines of the next tile too counts twice: it is a tile later.
    """
    made: dict[str, int] = {}
    found = []
    for op in operators:
        late = cut and op.stencil is not None and op.stencil.ahead
        found.append(1 + late + max((made.get(tensor.name, 0) for tensor in op.inputs), default=0))
        made.update((tensor.name, found[-1]) for tensor in op.outputs)
    return found


def kept(operators: Sequence[Operator], *, cut: bool) -> tuple[Floats, Floats]:
    """How many tiles are held of what each operator makes, and of what enters with it; ``cut`` as of ``depths``."""
    depth = _depth(operators, cut)
    last_use = {tensor.name: at for op, at in zip(operators, depth, strict=True) for tensor in op.inputs}
    made, entering = [], []
    for op, at in zip(operators, depth, strict=True):
        made.append(1 + max((last_use.get(tensor.name, at + 1) - at for tensor in op.outputs), default=1))
        late = cut and op.stencil is not None and op.stencil.ahead
        entering.append(2 + late + max((last_use[tensor.name] - at for tensor in op.inputs), default=0))
    return np.array(made, dtype=np.float64), np.array(entering, dtype=np.float64)


def behind(operators: Sequence[Operator]) -> Floats:
    """Bytes that each operator reads of the tile before its own."""
    return np.array([op.stencil.behind if op.stencil is not None else 0.0 for op in operators], dtype=np.float64)


def most_tiles(operators: Sequence[Operator], ranges: Sequence[Range], sequences: int) -> Floats:
    """Into how many tiles a pass over so many ``sequences`` may go in each range.

    As many as there are sequences where an operator is ``whole``, or reads what one of the range ``reduces``; as many
    as there are lines of images where there are stencils, unless what has to be whole is ``stationary`` and enters.
    """
    made = {tensor.name: at for at, op in enumerate(operators) for tensor in op.outputs}
    held = [max((made.get(name, -1) for name in op.stationary), default=len(operators)) for op in operators]
    makers = {tensor.name: at for at, op in enumerate(operators) if op.reduces for tensor in op.outputs}
    reduced = [max((makers.get(tensor.name, -1) for tensor in op.inputs), default=-1) for op in operators]
    lines = [op.stencil.lines if op.stencil is not None else np.inf for op in operators]
    most = {}
    for first in sorted({first for first, _ in ranges}):
        wholes = [op.whole or at >= first for op, at in zip(operators[first:], reduced[first:], strict=True)]
        of_each = [line if at >= first else np.inf for line, at in zip(lines[first:], held[first:], strict=True)]
        most[first] = np.minimum.accumulate(np.where(wholes, 1.0, of_each))
    return np.array([most[first][last - first] for first, last in ranges]) * max(1, sequences)

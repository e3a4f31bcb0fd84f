"""The stages of kernels as a picture: each kernel is a grid of its socket's PCUs and PMUs, coloured by stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cluster.chart import BOLD, document, text
from cluster.kernels import Pass
from node.dataflow.placement import Stage
from node.spec import Machine
from node.units import show_seconds

COLUMNS = 52  # units in a row of the grid
CELL, GAP, LABEL, LINE, MARGIN = 7, 12, 190, 15, 12
COLOURS = (
    "#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#ff9da7", "#9c755f", "#86bcb6",
    "#d37295", "#a0cbe8", "#8cd17d", "#b6992d", "#499894", "#d4a6c8", "#f1ce63", "#79706e", "#fabfd2", "#d7b5a6",
)  # fmt: skip
IDLE = "#80808038"  # grey that lets a light or a dark page through


def svg(found: Pass) -> str:
    """An SVG document; kernels one below the other, PCUs on the left, PMUs on the right, a legend beside them."""
    parts, top = [], MARGIN
    grid = COLUMNS * (CELL + 1)
    for row, kernel in zip(found.rows(), found.kernels, strict=True):
        if kernel.placement is None:
            continue
        title = (
            f"{row.kernel}: {row.launches} x {row.iterations}, {show_seconds(row.seconds)}, bound by {row.bound_by}; "
            f"PCUs {row.pcu_share:.0%}, PMUs {row.pmu_share:.0%}"
        )
        parts.append(text(MARGIN, top + LINE, title, BOLD))
        head = top + 2 * LINE + 4
        stages = kernel.placement.stages
        machine = found.machine
        parts += [text(MARGIN, head, "PCUs"), text(MARGIN + grid + GAP, head, "PMUs")]
        parts += _grid(MARGIN, head + 5, machine.compute.units, [stage.pcus for stage in stages])
        parts += _grid(MARGIN + grid + GAP, head + 5, machine.sram.banks, [stage.pmus for stage in stages])
        parts += _legend(MARGIN + 2 * (grid + GAP), head, stages)
        top = head + max(_height(machine), LINE * (len(stages) + 1)) + 2 * GAP
    width = 2 * MARGIN + 2 * (grid + GAP) + 2 * LABEL
    return document(width, top + MARGIN, parts, font_px=11)


def _height(machine: Machine) -> int:
    rows = -(-max(machine.compute.units, machine.sram.banks) // COLUMNS)
    return rows * (CELL + 1) + LINE


def _grid(left: int, top: int, count: int, of_stage: Sequence[int]) -> Iterator[str]:
    """Units in rows; runs of one colour in a row are one rectangle."""
    owners = [index for index, held in enumerate(of_stage) for _ in range(held)]
    owners += [-1] * (count - len(owners))
    for first in range(0, count, COLUMNS):
        row, start = owners[first : first + COLUMNS], 0
        for end in range(1, len(row) + 1):
            if end == len(row) or row[end] != row[start]:
                colour = IDLE if row[start] < 0 else COLOURS[row[start] % len(COLOURS)]
                x, y = left + start * (CELL + 1), top + first // COLUMNS * (CELL + 1)
                width = (end - start) * (CELL + 1) - 1
                yield f'<rect x="{x}" y="{y}" width="{width}" height="{CELL}" fill="{colour}"/>'
                start = end


def _legend(left: int, top: int, stages: Sequence[Stage]) -> Iterator[str]:
    for index, stage in enumerate(stages):
        y, colour = top + 5 + index * LINE, COLOURS[index % len(COLOURS)]
        yield f'<rect x="{left}" y="{y}" width="{CELL + 3}" height="{CELL + 3}" fill="{colour}"/>'
        said = f"{stage.operator.name} ({stage.operator.mode}): {stage.pcus} PCUs, {stage.pmus} PMUs, "
        yield text(left + CELL + 8, y + 9, said + show_seconds(stage.seconds))

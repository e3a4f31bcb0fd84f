"""What is to be seen: cells, mitochondria, vesicles and what may be taken for mitochondria, as fields over an image.

Schematic neuropil as in electron micrographs at about 9 nm a pixel. Cells are the regions of an additively weighted
Voronoi diagram of ellipses, on coordinates that smooth fields warp. Lengths are in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from samda.synthetic.fields import Array, smooth

Mask = npt.NDArray[np.bool_]
MARGIN = 60  # around the image, where cells have their centres, too
CLEAR = 3.5  # between an organelle and its cell's outline
TRIES = 400  # places at which a mitochondrion is tried


@dataclass(frozen=True)
class Anatomy:
    """How a tissue is built: ranges are (least, most)."""

    cell_radius: float  # the median; radii are log-normal
    cell_spread: float  # deviation of the radius' logarithm
    mitochondrion_width: tuple[float, float]  # half the shorter axis
    elongation: tuple[float, float]
    share: float = 0.07  # of the area that mitochondria have, where there is room
    with_vesicles: float = 0.25  # share of the cells
    vesicle_spacing: float = 6.0


@dataclass
class Organelle:
    """Within a window: ``inside`` is 1 in its middle, 0 on its outline, below outside; and its own coordinates."""

    window: tuple[slice, slice]
    inside: Array
    along: Array
    across: Array
    width: float


@dataclass
class Tissue:
    """Fields (H, W): the number of the cell, the distance to its outline, and what lies in cells."""

    cell: npt.NDArray[np.int64]
    depth: Array
    mitochondria: list[Organelle] = field(default_factory=list)
    dark_bodies: list[Organelle] = field(default_factory=list)
    vacuoles: list[Organelle] = field(default_factory=list)
    vesicles: list[tuple[float, float]] = field(default_factory=list)
    bouton: Mask | None = None  # cells with vesicles

    @property
    def mask(self) -> Mask:
        """Where mitochondria are, outlines included."""
        found = np.zeros(self.cell.shape, bool)
        for one in self.mitochondria:
            found[one.window] |= one.inside >= 0
        return found


def grow(rng: np.random.Generator, size: int, anatomy: Anatomy) -> Tissue:
    """A tissue of ``size`` x ``size`` pixels."""
    shape = (size, size)
    rows, columns = np.indices(shape).astype(float)
    for amplitude, length in ((0.35, 1.6), (0.1, 0.5)):
        rows = rows + anatomy.cell_radius * amplitude * smooth(rng, shape, length * anatomy.cell_radius)
        columns = columns + anatomy.cell_radius * amplitude * smooth(rng, shape, length * anatomy.cell_radius)
    cell, depth = _cells(rng, rows, columns, anatomy)
    tissue = Tissue(cell, depth)
    taken = np.zeros(shape, bool)
    wanted = anatomy.share * size * size
    for _ in range(TRIES):
        if taken.sum() >= wanted:
            break
        one = _organelle(rng, tissue, taken, anatomy.mitochondrion_width, anatomy.elongation)
        if one is not None:
            tissue.mitochondria.append(one)
    for bodies, width in ((tissue.dark_bodies, (3.0, 7.0)), (tissue.vacuoles, (4.0, 10.0))):
        for _ in range(size * size // 20_000):
            one = _organelle(rng, tissue, taken, width, (1.0, 1.5))
            if one is not None:
                bodies.append(one)
    _vesicles(rng, tissue, taken, anatomy)
    return tissue


def _cells(
    rng: np.random.Generator, rows: Array, columns: Array, anatomy: Anatomy
) -> tuple[npt.NDArray[np.int64], Array]:
    """The nearest of ellipses, and half of how much farther the second is: on an outline both are as far."""
    first, second = np.full(rows.shape, np.inf), np.full(rows.shape, np.inf)
    cell = np.zeros(rows.shape, np.int64)
    for number, (row, column, radius) in enumerate(_centres(rng, len(rows), anatomy)):
        angle, stretch = rng.uniform(0, np.pi), rng.uniform(1, 1.8)
        window = _around(len(rows), row, column, 2.5 * radius + 2 * anatomy.cell_radius)
        along, across = _turned(rows[window] - row, columns[window] - column, angle)
        distance = np.hypot(along / stretch, across * stretch) - radius
        nearer = distance < first[window]
        second[window] = np.where(nearer, first[window], np.minimum(second[window], distance))
        cell[window][nearer] = number
        first[window] = np.minimum(first[window], distance)
    return cell, (second - first) / 2


def _around(size: int, row: float, column: float, reach: float) -> tuple[slice, slice]:
    """The window of an image of ``size`` x ``size`` that reaches so far from a place, which may be outside."""
    top, left = max(0, round(row - reach)), max(0, round(column - reach))
    return slice(top, max(top, round(row + reach) + 1)), slice(left, max(left, round(column + reach) + 1))


def _turned(y: Array, x: Array, angle: float) -> tuple[Array, Array]:
    """Along an axis, and across."""
    return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x


def _centres(rng: np.random.Generator, size: int, anatomy: Anatomy) -> list[tuple[float, float, float]]:
    """(row, column, radius) of ellipses that overlap little, the largest placed first."""
    span = size + 2 * MARGIN
    count = int(8 * span**2 / (np.pi * anatomy.cell_radius**2))
    radii = np.sort(np.exp(rng.normal(np.log(anatomy.cell_radius), anatomy.cell_spread, count)))[::-1]
    placed = np.empty((0, 3))
    for radius in np.minimum(radii, 4 * anatomy.cell_radius):
        row, column = rng.uniform(-MARGIN, size + MARGIN, 2)
        apart = np.hypot(placed[:, 0] - row, placed[:, 1] - column)
        if (apart > 0.6 * (placed[:, 2] + radius)).all():
            placed = np.vstack([placed, (row, column, radius)])
    return [(row, column, radius) for row, column, radius in placed]


def _organelle(
    rng: np.random.Generator,
    tissue: Tissue,
    taken: Mask,
    width: tuple[float, float],
    elongation: tuple[float, float],
) -> Organelle | None:
    """A warped ellipse at a random place, if it fits into a cell beside others; its room is then taken."""
    size = len(taken)
    row, column = rng.integers(0, size, 2)
    short, angle = rng.uniform(*width), rng.uniform(0, np.pi)
    long, phase, bend = short * rng.uniform(*elongation), rng.uniform(0, 2 * np.pi, 2), rng.uniform(-0.25, 0.25)
    if tissue.depth[row, column] < short * 0.7:
        return None
    window = _around(size, row, column, 1.3 * long + 6)
    y, x = np.mgrid[window][:, : size - window[0].start, : size - window[1].start].astype(float)
    along, across = _turned(y - row, x - column, angle)
    across = across + bend * along**2 / long
    turn = np.arctan2(across / short, along / long)
    outline = 1 + 0.06 * np.sin(2 * turn + phase[0]) + 0.05 * np.sin(3 * turn + phase[1])
    inside = 1 - np.hypot(along / long, across / short) / outline
    body = inside >= 0
    if (body & (tissue.depth[window] < CLEAR)).any() or (taken[window] & (inside > -3 / short)).any():
        return None
    taken[window] |= body
    return Organelle(window, inside, along, across, short)


def _vesicles(rng: np.random.Generator, tissue: Tissue, taken: Mask, anatomy: Anatomy) -> None:
    """Fill some cells with vesicles, on a shaken lattice, where nothing else is."""
    chosen = rng.random(tissue.cell.max() + 1) < anatomy.with_vesicles
    tissue.bouton = chosen[tissue.cell]
    free = tissue.bouton & ~taken & (tissue.depth > 5)
    rows, columns = np.meshgrid(*[np.arange(3, len(taken) - 3, anatomy.vesicle_spacing)] * 2, indexing="ij")
    shaken = (
        np.stack([rows.ravel(), columns.ravel()], 1) + rng.uniform(-0.4, 0.4, (rows.size, 2)) * anatomy.vesicle_spacing
    )
    crowd = smooth(rng, taken.shape, 5 * anatomy.vesicle_spacing)
    for row, column in shaken:
        place = round(row), round(column)
        if min(place) >= 0 and max(place) < len(taken) and free[place] and crowd[place] > -0.3:
            tissue.vesicles.append((row, column))

"""What was in HBM when: a run's commands summed up in bins of time as they pass, in a few arrays of fixed size.

How long a run will be is not known while it is observed, so the bins begin at a microsecond and double, two by two
becoming one, whenever time has outgrown them. All is sums and maxima of integers, so windows change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from node.deployment import Deployment
from node.events import ROW, Ints, Kind, Tier
from node.hardware.tiers import Completion
from node.planned import Planned
from node.units import Picoseconds

MOST_BINS = 128  # a whole run has more than half as many, if it is longer than 64 us
SHOWN = 16  # experts by themselves, those most asked for
PS_PER_US = 10**6
US_PER_S = 10**6
OCCUPANCY = Completion._fields.index("occupancy")
COPY, LOAD, FREE, HBM = int(Kind.COPY), int(Kind.LOAD), int(Kind.FREE), int(Tier.HBM)
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Residents:
    """A run in bins between ``edges`` (s): ``activations`` (copies that were complete) and ``evictions`` in each.

    ``resident[i]``: on the average over each bin, how many groups had expert ``experts[i]`` in HBM, from the end of its
    copy to its eviction; the last row, how many of all other experts were there. ``hbm_peak[group]``: the most bytes.
    """

    width_us: int
    edges: Floats
    experts: Ints
    resident: Floats
    activations: Ints
    evictions: Ints
    hbm_peak: Ints


class Sums(NamedTuple):
    """What was observed, whole: up to ``end_us``, in bins of ``width_us``, of ``experts`` and of all others.

    ``time_us``: by expert and bin the time that it was in HBM, of all groups. All else: see ``Residents``.
    """

    width_us: int
    end_us: int
    experts: Ints
    time_us: Ints
    activations: Ints
    evictions: Ints
    hbm_peak: Ints

    def residents(self) -> Residents:
        """As means over each bin."""
        edges = np.minimum(np.arange(len(self.activations) + 1) * self.width_us, self.end_us)
        return Residents(
            width_us=self.width_us,
            edges=edges / US_PER_S,
            experts=self.experts,
            resident=self.time_us / np.diff(edges),
            activations=self.activations,
            evictions=self.evictions,
            hbm_peak=self.hbm_peak,
        )


def joined(parts: Sequence[Sums]) -> Sums:
    """Of several nodes, observed for the same time, with their groups numbered through."""
    first = parts[0]
    time, activations, evictions = (
        np.sum([getattr(part, what) for part in parts], axis=0) for what in ("time_us", "activations", "evictions")
    )
    peaks = np.concatenate([part.hbm_peak for part in parts])
    return Sums(first.width_us, first.end_us, first.experts, time, activations, evictions, peaks)


def most_asked(requested: Ints, most: int) -> Ints:
    """The experts that are shown by themselves, most asked for first; ``requested``: of each request its expert."""
    uses = np.bincount(requested)
    order = np.argsort(-uses, kind="stable")[:most]
    return order[uses[order] > 0]


class Residency:
    """Observes windows; ``experts`` by themselves, all others together."""

    def __init__(self, deployment: Deployment, experts: Ints) -> None:
        self._count = deployment.catalogue.count
        self._experts = experts
        rest = len(self._experts)
        self._row = np.full(self._count, rest)
        self._row[self._experts] = np.arange(rest)
        self._width = 1  # us
        self._activations, self._evictions = (np.zeros(MOST_BINS, dtype=np.int64) for _ in range(2))
        # by expert and bin: net arrivals, and their time from then to the end of the bin (us)
        self._net, self._partial = (np.zeros((rest + 1, MOST_BINS), dtype=np.int64) for _ in range(2))
        # by group and bin: most bytes after a command, bytes after the last one; -1 where there was none
        self._most, self._last = (np.full((deployment.groups, MOST_BINS), -1, dtype=np.int64) for _ in range(2))

    def observe(self, planned: dict[int, Planned]) -> None:
        """Take a window's commands, by group."""
        for group, plan in planned.items():
            symbol, issued = plan.columns[ROW["symbol"]], plan.columns[ROW["issued"]]
            weights = np.flatnonzero(symbol < self._count)
            kind, in_hbm = plan.columns[ROW["kind"], weights], plan.columns[ROW["tier"], weights] == HBM
            copied = weights[kind == COPY]
            came, left = weights[(kind == COPY) | ((kind == LOAD) & in_hbm)], weights[(kind == FREE) & in_hbm]
            self._grow(max(int(issued[-1]), int(plan.ends[came].max(initial=0))) // PS_PER_US)
            self._occupancy(group, plan)
            self._move(symbol[came], plan.ends[came], 1)
            self._move(symbol[left], issued[left], -1)
            np.add.at(self._activations, self._bin(plan.ends[copied]), 1)
            np.add.at(self._evictions, self._bin(issued[left]), 1)

    def sums(self, makespan: Picoseconds) -> Sums:
        """What was observed of a run that took so long."""
        end = makespan // PS_PER_US + 1
        self._grow(end - 1)
        count = -(-end // self._width)
        before = np.cumsum(self._net, axis=1) - self._net
        time = (self._partial + self._width * before)[:, :count]
        time[:, -1] -= (count * self._width - end) * self._net.sum(axis=1)
        counts = (self._activations[:count], self._evictions[:count])
        return Sums(self._width, end, self._experts, time, *counts, self._peaks()[:, :count])

    def _move(self, experts: Ints, times: Ints, sign: int) -> None:
        """They come to HBM (1) or leave it (-1)."""
        rows, bins = self._row[experts], self._bin(times)
        np.add.at(self._net, (rows, bins), sign)
        np.add.at(self._partial, (rows, bins), sign * ((bins + 1) * self._width - times // PS_PER_US))

    def _occupancy(self, group: int, plan: Planned) -> None:
        """Commands are in the order in which they were issued, so those of a bin are side by side."""
        issued, used = plan.columns[ROW["issued"]], plan.expected[0][OCCUPANCY]
        elsewhere = plan.columns[ROW["tier"]] != HBM
        if elsewhere.any():
            issued, used = issued[~elsewhere], used[~elsewhere]
            if not len(issued):
                return
        first, last = (int(self._bin(issued[place])) for place in (0, -1))
        bins = np.arange(first, last + 1)
        begins = np.searchsorted(issued, bins * (self._width * PS_PER_US))
        ends = np.append(begins[1:], len(issued))
        some = ends > begins
        bins, begins, ends = bins[some], begins[some], ends[some]
        peaks = np.maximum.reduceat(used, begins)
        self._most[group, bins] = np.maximum(self._most[group, bins], peaks)
        self._last[group, bins] = used[ends - 1]

    def _peaks(self) -> Ints:
        """By group and bin the most bytes of HBM; where no command is, what the one before left."""
        bins = np.where(self._last >= 0, np.arange(MOST_BINS), -1)
        latest = np.maximum.accumulate(bins, axis=1)
        level = np.where(latest >= 0, np.take_along_axis(self._last, np.maximum(latest, 0), axis=1), 0)
        carried = np.concatenate([np.zeros_like(level[:, :1]), level[:, :-1]], axis=1)
        peaks: Ints = np.maximum(self._most, carried)
        return peaks

    def _bin(self, times: Ints) -> Ints:
        bins: Ints = times // (self._width * PS_PER_US)
        return bins

    def _grow(self, time_us: int) -> None:
        while time_us >= MOST_BINS * self._width:
            self._partial[:, ::2] += self._width * self._net[:, ::2]
            self._activations, self._evictions, self._net, self._partial = (
                _halved(np.add, array, 0) for array in (self._activations, self._evictions, self._net, self._partial)
            )
            self._most = _halved(np.maximum, self._most, -1)
            late = self._last[:, 1::2]
            self._last[:, ::2] = np.where(late >= 0, late, self._last[:, ::2])
            self._last[:, 1::2] = -1
            self._last = _halved(np.maximum, self._last, -1)
            self._width *= 2


def _halved(join: np.ufunc, bins: Ints, nothing: int) -> Ints:
    """Each two bins joined into one; the second half has observed nothing."""
    found = np.full_like(bins, nothing)
    found[..., : MOST_BINS // 2] = join(bins[..., ::2], bins[..., 1::2])
    return found

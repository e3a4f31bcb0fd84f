"""Where the stages of a kernel go: PCUs by their work, PMUs by what they hold and by what passes through them.

A kernel is a pipeline of stages, an operator each, through which a pass flows in equal tiles: a stage works on one
while the next stage works on the one before. T tiles take T + D - 1 times the slowest stage's time for one, D being the
depth of the pipeline. A stage's work on a tile is cut into units of ``pipeline.grain`` cycles; in ``rounds`` rounds of
a unit a stage with u units keeps u / rounds PCUs at work, so that all stages take about as long. Fewer rounds need more
PCUs, and more PMUs:

- the tensors between stages, and those that enter, are held twice (one is filled while the other is read) and once more
  for each stage that they bypass (a residual), in PMUs for their bytes or, if that needs more, for the bytes per cycle
  that are read of them;
- a systolic PCU takes one operand of ``lanes`` elements and one of ``macs_per_cycle / lanes`` each cycle; PCUs in a
  grid share the former by row and the latter by column (the RDN multicasts), and each stream needs its PMUs;
- what PMUs are left hold stationary operands, weights or a sequence's keys and values. Those that find no room stream
  from HBM again with every tile.

The search takes the tiles and rounds with the least time, over many kernels at once: columns of numpy arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from node.dataflow.form import Step
from node.dataflow.graph import Operator
from node.dataflow.stages import (
    Range,
    behind,
    depths,
    feeding,
    kept,
    most_tiles,
    reads,
    sending,
    tile_counts,
    work,
)
from node.dataflow.traffic import Floats, Traffic
from node.dataflow.whole_numbers import apportion, least, within
from node.spec import Machine


@dataclass(frozen=True, slots=True)
class Stage:
    """An operator in a kernel: its PCUs and PMUs, and the PCU cycles that a tile takes on all of them together."""

    operator: Operator
    pcus: int
    pmus: int
    cycles: float
    seconds: float  # for all tiles of the pass that the placement is for


@dataclass(frozen=True, slots=True)
class Placement:
    """The stages of a kernel, the number of ``tiles`` of a pass, the most stages that a tile goes through (``depth``).

    ``resident``: the share of stationary operands that stays in SRAM over all tiles; ``limit``: what more of would make
    the pipeline quicker, PCUs (``compute``) or PMUs (``sram``).
    """

    stages: tuple[Stage, ...]
    tiles: int
    depth: int
    resident: float
    limit: str
    sram_bytes: int

    @property
    def pcus(self) -> int:
        """PCUs in use."""
        return sum(stage.pcus for stage in self.stages)

    @property
    def pmus(self) -> int:
        """PMUs in use."""
        return sum(stage.pmus for stage in self.stages)


class Search:
    """The best placement of each of many ``ranges`` of a block's operators, for one ``step``.

    ``members`` share a collective. With several ``iterations`` all operators are one kernel and a loop: the next
    iteration's stationary operands are loaded while this one runs, so that they are held twice, and its first tile may
    enter as this one's leaves.
    """

    def __init__(
        self, operators: Sequence[Operator], ranges: Sequence[Range], step: Step, machine: Machine, members: int,
        iterations: int = 1,
    ) -> None:  # fmt: skip
        assert machine.pipeline is not None and (iterations == 1 or len(ranges) == 1)
        self._operators, self._ranges, self._machine = operators, ranges, machine
        self._grain, self._lanes = machine.pipeline.grain, machine.pipeline.lanes
        self._array_rows = machine.compute.macs_per_cycle / self._lanes
        self._step, self._iterations, self._looped = step, iterations, iterations > 1
        self.tiles = tile_counts(operators, step, self._array_rows)
        self.traffic = Traffic(operators, ranges, step)
        first, last = np.array(ranges).T
        index = np.arange(len(operators))
        self._inside = (index >= first[:, None]) & (index <= last[:, None])
        self._single = first == last
        self._measure()
        self._link_s = self._links(members)
        with np.errstate(over="ignore"):  # what takes for ever is infinite
            self._solve()

    def _measure(self) -> None:
        """Per number of tiles and operator: units of work, rows that share a multicast; per range also the buffers."""
        step, machine = self._step, self._machine
        cycles, rows = zip(*(work(op, step, self.tiles, machine) for op in self._operators), strict=True)
        self._cycles = np.array(cycles).T
        units = np.ceil(self._cycles / self._grain - 1e-9)
        self._units = np.where(self._inside[:, None, :], units, 0.0)
        self._row_blocks = np.array(rows).T
        self._systolic = np.array([op.mode == "systolic" for op in self._operators])
        cut = (self.tiles > max(1, step.sequences))[:, None]  # tiles are parts of sequences
        uncut_depth, cut_depth = (depths(self._operators, self._ranges, cut=parts) for parts in (False, True))
        self._depth = np.where(cut, cut_depth, uncut_depth).T
        self._legal = self.tiles <= most_tiles(self._operators, self._ranges, step.sequences)[:, None]
        made, entering = self.traffic.buffers(self.tiles)
        (uncut_held, uncut_waiting), (cut_held, cut_waiting) = (kept(self._operators, cut=p) for p in (False, True))
        held, waiting = np.where(cut, cut_held, uncut_held), np.where(cut, cut_waiting, uncut_waiting)
        beside = np.where(cut, behind(self._operators), 0.0)
        self._held = np.where(self._inside[:, None, :], held * made + beside, 0.0) + waiting * entering
        passes = reads(self._operators)
        self._passing = np.where(self._inside[:, None, :], made * passes, 0.0) + entering
        whole = self._holding = np.ceil(self._held / machine.sram.bank_capacity)
        # one that is alone in its kernel makes do with parts of a tile
        self._holding_least = np.where(self._single[:, None, None], np.minimum(whole, 1.0), whole)

    def _links(self, members: int) -> tuple[Floats, Floats]:
        """Seconds of sending, and of hops, of each range."""
        of_each = [sending(op, self._machine, members) for op in self._operators]
        link_s, hops_s = np.array([(link.at(self._step), hops) for link, hops in of_each], dtype=np.float64).T
        return self._inside @ link_s, self._inside @ hops_s

    def _pcus(self, rounds: Floats) -> Floats:
        return np.ceil(self._units / rounds[..., None])

    def _streams(self, pcus: Floats) -> Floats:
        """PMUs that feed the operands of systolic stages."""
        known = feeding(self._machine.compute.units, self._lanes, self._array_rows)
        rows = np.clip(self._row_blocks, 1, len(known)).astype(np.intp) - 1
        fed = known[rows, np.minimum(pcus, known.shape[1] - 1).astype(np.intp)]
        return np.where(self._systolic & (pcus > 0), fed, 0.0)

    def _buffers(self, rounds: Floats) -> Floats:
        """PMUs of the tensors that a kernel holds, for their bytes and for the rate at which they are read."""
        for_rate = np.ceil(self._passing / (rounds[..., None] * self._grain * self._machine.sram.bank_bandwidth))
        return np.maximum(self._holding_least, for_rate)

    def _fits(self, rounds: Floats, buffers: Floats) -> npt.NDArray[np.bool_]:
        pcus = self._pcus(rounds)
        pmus = (self._streams(pcus) + buffers).sum(axis=-1)
        enough = pmus <= self._machine.sram.banks
        return np.asarray((pcus.sum(axis=-1) <= self._machine.compute.units) & (enough | self._last_resort(rounds)))

    def _may_take(self, rounds: Floats) -> npt.NDArray[np.bool_]:
        """Whether a kernel fits, and moves no more than its operators would apart: one alone must run, if unlooped."""
        buffers = self._buffers(rounds)
        moved = self.traffic.bytes(self.tiles, self._resident(buffers))
        must = self._single[:, None] & (not self._looped)
        return np.asarray(self._fits(rounds, buffers) & ((moved <= self.traffic.apart[:, None]) | must))

    def _last_resort(self, rounds: Floats) -> npt.NDArray[np.bool_]:
        """A single operator runs on whatever there is, in as many rounds as it takes."""
        return np.asarray(self._single[:, None] & (rounds >= self._most))

    def _resident(self, buffers: Floats) -> Floats:
        """The share of stationary operands for which there is room beside the ``buffers``."""
        sram = self._machine.sram
        held = np.where(self._single[:, None, None], self._holding, buffers)
        room = np.maximum(sram.banks - held.sum(axis=-1), 0.0) * sram.bank_capacity
        needed = (1 + self._looped) * self.traffic.stationary[:, None]
        return np.where(needed > 0, np.minimum(room / np.maximum(needed, 1.0), 1.0), 1.0)

    def _tile_s(self, rounds: Floats) -> Floats:
        """Seconds of a stage for a tile; a kernel that only moves data has no such stage."""
        compute = self._machine.compute
        return np.where(self._busy, rounds * self._grain / (compute.clock * compute.efficiency), 0.0)

    def _pipeline_s(self, rounds: Floats) -> Floats:
        tile, depth = self._tile_s(rounds), self._depth
        if not self._looped:
            return np.asarray(tile * (self.tiles + depth - 1), dtype=np.float64)
        through = np.where(self._busy, tile * depth + self.fixed_s[:, None], 0.0)
        return np.maximum(tile * self.tiles, through)

    def _hbm_s(self, rounds: Floats) -> Floats:
        hbm = self._machine.hbm
        moved = self.traffic.bytes(self.tiles, self._resident(self._buffers(rounds)))
        return np.asarray(moved / (hbm.bandwidth * hbm.efficiency))

    def _solve(self) -> None:
        """The fewest rounds that fit, or more of them where HBM would wait for the PMUs that this frees."""
        shape = (len(self._ranges), len(self.tiles))
        self._most = np.maximum(self._units.max(axis=-1), 1.0)
        self._busy = self._units.max(axis=-1) > 0
        fewest = least(np.ones(shape), self._most, self._may_take)
        self._feasible = self._legal & self._may_take(fewest)
        floor = self._hbm_s(self._most)
        wait = least(fewest, self._most, lambda r: self._hbm_s(r) <= np.maximum(self._pipeline_s(r), floor))
        before = np.maximum(wait - 1, fewest)
        self._rounds = np.where(self._steady(before) <= self._steady(wait), before, wait)
        if self._looped:
            self._rounds = self._quickest_loop(fewest, wait)
        self._fewest = fewest
        times = np.where(self._feasible, self._steady(self._rounds) + self._filling(self._rounds), np.inf)
        self._chosen = times.argmin(axis=1)
        self.steady_s = times.min(axis=1)

    def _steady(self, rounds: Floats) -> Floats:
        """Seconds of the slowest bound, in all iterations."""
        link = self._link_s[0][:, None]
        slowest: Floats = np.maximum(np.maximum(self._pipeline_s(rounds), self._hbm_s(rounds)), link)
        return slowest * self._iterations

    def _filling(self, rounds: Floats) -> Floats:
        """Seconds that a loop takes once, beside its iterations, to fill its pipeline."""
        if not self._looped:
            return np.zeros_like(rounds)
        return np.asarray(self._tile_s(rounds) * (np.minimum(self.tiles, self._depth) - 1))

    def _quickest_loop(self, fewest: Floats, wait: Floats) -> Floats:
        """The rounds in which a loop and its filling take the least time.

        Where HBM waits that changes by steps, a buffer that needs one PMU less: all of them are tried.
        """
        needed = self._passing[0] / (self._grain * self._machine.sram.bank_bandwidth)  # PMUs in one round
        tried = []
        for of_tile, low, high in zip(needed, fewest[0], wait[0], strict=True):
            counts = np.ceil(of_tile / low).astype(int) if low < high else np.zeros(0, dtype=int)
            steps = [np.ceil(one / np.arange(1.0, count + 1)) for one, count in zip(of_tile, counts, strict=False)]
            tried.append(np.unique(np.clip(np.concatenate([[low, high], *steps]), low, high)))
        most = max(len(rounds) for rounds in tried)
        rounds = np.array([np.pad(rounds, (0, most - len(rounds)), "edge") for rounds in tried]).T
        best = (self._steady(rounds) + self._filling(rounds)).argmin(axis=0)
        return np.asarray(rounds[best, np.arange(len(self.tiles))][None])

    @property
    def least_s(self) -> float:
        """Seconds that all operators take at least, in whatever kernels: work, HBM and link at their peaks."""
        compute, hbm = self._machine.compute, self._machine.hbm
        cycles = (self._cycles * self.tiles[:, None]).min(axis=0).sum()
        busy = cycles / (compute.units * compute.clock * compute.efficiency)
        once = self.traffic.bytes(np.ones(1), np.ones((len(self._ranges), 1))).min() / (hbm.bandwidth * hbm.efficiency)
        return float(max(busy, once, self._link_s[0].max()))

    @property
    def fixed_s(self) -> Floats:
        """Seconds that each range takes beside: the latency of its stages and the hops of its collectives."""
        assert self._machine.pipeline is not None
        seconds: Floats = self._inside.sum(axis=1) * self._machine.pipeline.stage_latency + self._link_s[1]
        return seconds

    def placement(self, index: int) -> Placement:
        """The best placement of one range."""
        chosen = int(self._chosen[index])
        tiles = int(self.tiles[chosen])
        rounds, sram = self._rounds, self._machine.sram
        all_pcus, all_buffers = self._pcus(rounds), self._buffers(rounds)
        pcus, buffers = all_pcus[index, chosen], all_buffers[index, chosen]
        streams = self._streams(all_pcus)[index, chosen]
        resident = float(self._resident(all_buffers)[index, chosen])
        operands = (1 + self._looped) * self.traffic.operands * self._inside[index]
        free = max(0.0, sram.banks - buffers.sum())
        lent = apportion(operands * resident / sram.bank_capacity, free)
        pmus = within(np.maximum(streams, lent) + buffers, sram.banks)
        room = float(pmus.sum()) * sram.bank_capacity
        return Placement(
            stages=self._stages(index, chosen, pcus, pmus),
            tiles=tiles,
            depth=int(self._depth[index, chosen]),
            resident=resident,
            limit=self._limit(index, chosen),
            sram_bytes=round(min(self._held[index, chosen].sum() + resident * operands.sum(), room)),
        )

    def _stages(self, index: int, chosen: int, pcus: Floats, pmus: Floats) -> tuple[Stage, ...]:
        compute = self._machine.compute
        first, last = self._ranges[index]
        rounds = -(-self._units[index, chosen] // np.maximum(pcus, 1.0))
        # all wait for the buffers that can be read in no fewer rounds
        paced = float(self._rounds[index, chosen] / max(rounds.max(), 1.0))
        stages = []
        for position in range(first, last + 1):
            held = int(pcus[position])
            taken = float(rounds[position]) * self._grain * paced
            seconds = taken * int(self.tiles[chosen]) / (compute.clock * compute.efficiency)
            cycles = float(self._cycles[chosen, position])
            stages.append(Stage(self._operators[position], held, int(pmus[position]), cycles, seconds))
        return tuple(stages)

    def _limit(self, index: int, chosen: int) -> str:
        """What the next fewer rounds would lack."""
        fewer = np.maximum(self._fewest - 1, 1.0)
        short = self._pcus(fewer)[index, chosen].sum() > self._machine.compute.units
        return "compute" if short or self._fewest[index, chosen] == 1 else "sram"

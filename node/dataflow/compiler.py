"""From a graph to the kernels of one pass: partition, placement, launches, for one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from node.collectives import goes_direct
from node.dataflow.form import Step
from node.dataflow.fusion import LEVELS, blocks_at, candidates, conventional, quickest
from node.dataflow.graph import Block, Operator
from node.dataflow.kernel import Kernel, Launch, placed_kernel, shared_kernel
from node.dataflow.placement import Search
from node.dataflow.traffic import Traffic
from node.spec import Machine


@dataclass(frozen=True, slots=True)
class Compiler:
    """How graphs are compiled: for a ``machine`` with ``members`` in a group.

    ``level`` is one of ``fusion.LEVELS``, no more than the machine can; ``by_hardware``: the schedule is the AGCU's,
    not the host's.
    """

    machine: Machine
    members: int
    level: str
    by_hardware: bool

    @classmethod
    def of(cls, machine: Machine, members: int, fusion: str, orchestration: str) -> Compiler:
        """``orchestration`` is ``ho`` or ``so``.

        Only a fused schedule can be run by the hardware, and only where the machine has a time for it.
        """
        level = min(fusion, machine.kernel.fusion, key=LEVELS.index)
        fused = LEVELS.index(level) >= LEVELS.index("fused")
        return cls(machine, members, level, fused and orchestration == "ho" and machine.kernel.launch_ho is not None)

    def kernels(self, blocks: Sequence[Block], step: Step, direct: frozenset[str] | None = None) -> tuple[Kernel, ...]:
        """The kernels of one pass over ``blocks``, made for ``step``; ``direct``: as of another step of its bucket."""
        of_block = self._placed if self.machine.pipeline is not None else self._shared
        direct = self.direct(blocks, step) if direct is None else direct
        decided = [one_hop(block, direct, self.members) for block in blocks]
        return tuple(kernel for block in blocks_at(decided, self.level) for kernel in of_block(block, step))

    def direct(self, blocks: Sequence[Block], step: Step) -> frozenset[str]:
        """The all-reduces that go in one hop in ``step``, by their operators' names.

        Not those of fewer than all members: of uneven shares their messages are, and all must go alike.
        """
        worth = self.machine.peer.hop_worth
        found = [op for block in blocks for op in block.operators if op.collective == "all_reduce" and not op.members]
        return frozenset(op.name for op in found if goes_direct(op.message.at(step), self.members, worth))

    def _launch(self, block: Block) -> Launch:
        kernel = self.machine.kernel
        seconds = kernel.launch_ho if self.by_hardware else kernel.launch_so
        assert seconds is not None
        return Launch(block, self.machine, seconds, self.members)

    def _shared(self, block: Block, step: Step) -> list[Kernel]:
        """Operators of a kernel in turn on all units: there is nothing to place."""
        ranges = candidates(block.operators, "unfused") if self.level == "unfused" else conventional(block.operators)
        traffic = Traffic(block.operators, ranges, step)
        made = []
        for index, (first, last) in enumerate(ranges):
            operators = block.operators[first : last + 1]
            name = _name(block, operators)
            made.append(shared_kernel(name, operators, traffic, index, step, self._launch(block)))
        return made

    def _placed(self, block: Block, step: Step) -> list[Kernel]:
        launch, ranges = self._launch(block), candidates(block.operators, self.level)
        whole = (0, len(block.operators) - 1)
        if whole in ranges and len(ranges) > 1 and self._best_whole(block, step, launch):
            ranges = [whole]
        search = Search(block.operators, ranges, step, self.machine, self.members)
        seconds = search.steady_s + search.fixed_s + launch.seconds + self.machine.kernel.sync
        made = []
        for index in quickest(ranges, seconds):
            first, last = ranges[index]
            name = _name(block, block.operators[first : last + 1])
            placement = search.placement(index)
            made.append(placed_kernel(name, search.traffic, index, placement, step, launch))
        if self.level == "looped" and block.repeat > 1:
            made = min([made, *self._looped(block, step, launch)], key=lambda kernels: _seconds(kernels, step))
        return made

    def _best_whole(self, block: Block, step: Step, launch: Launch) -> bool:
        """Whether the whole block is one kernel that no cut could beat: at its best a cut costs one more launch."""
        search = Search(block.operators, [(0, len(block.operators) - 1)], step, self.machine, self.members)
        return bool(search.steady_s[0] <= search.least_s + launch.seconds + self.machine.kernel.sync)

    def _looped(self, block: Block, step: Step, launch: Launch) -> list[list[Kernel]]:
        """The whole block in one launch, if it fits with the next iteration's weights beside this one's."""
        whole = [(0, len(block.operators) - 1)]
        search = Search(block.operators, whole, step, self.machine, self.members, iterations=block.repeat)
        if not np.isfinite(search.steady_s[0]):
            return []
        placement, name = search.placement(0), f"{block.name} x {block.repeat}"
        return [[placed_kernel(name, search.traffic, 0, placement, step, launch, looped=True)]]


def one_hop(block: Block, direct: frozenset[str], members: int) -> Block:
    """``block`` with the all-reduces named ``direct`` in one hop: each of ``members`` then adds up what all have."""
    operators = tuple(
        replace(op, direct=True, flops=op.flops * (members - 1)) if op.name in direct else op for op in block.operators
    )
    return replace(block, operators=operators)


def _name(block: Block, operators: Sequence[Operator]) -> str:
    if len(operators) == len(block.operators):
        return block.name
    first, last = operators[0].name, operators[-1].name
    return f"{block.name}.{first}" if len(operators) == 1 else f"{block.name}.{first}..{last}"


def _seconds(kernels: Sequence[Kernel], step: Step) -> float:
    return sum(kernel.repeat * kernel.cost(step).seconds for kernel in kernels)

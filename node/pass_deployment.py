"""Models of one pass on a machine with content: programs of every socket, and where their weights lie.

All weights are in HBM from the start; what is left of it is the workspace. Addresses are the same on all sockets: where
shards differ in size, room is made for the largest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

from node.dataflow.form import Step
from node.dataflow.program import Program, compile_graph
from node.errors import InputError, OutOfMemoryError
from node.functional.planned import Planned
from node.functional.socket import ContentSocket, Range, Shards
from node.functional.store import Store
from node.models.one_pass import OnePass, kinds, members, pass_step
from node.options import RuntimeOptions
from node.spec import Machine
from node.units import Bytes, Picoseconds, show_bytes, to_ps

ALIGNMENT: Bytes = 64  # as in the memory plan of a pass


@dataclass(frozen=True)
class PassDeployment:
    """``models`` on all sockets of ``machine``; of the options fusion, orchestration and precision count."""

    machine: Machine
    models: tuple[OnePass, ...]
    options: RuntimeOptions = field(default_factory=RuntimeOptions)

    @property
    def degree(self) -> int:
        """Sockets."""
        return self.machine.sockets

    @property
    def expert_programs(self) -> tuple[int, ...]:
        """Of each model its program."""
        return tuple(range(len(self.models)))

    @cached_property
    def programs(self) -> tuple[tuple[Program, ...], ...]:
        """Of each model the program of each rank; equal graphs are one program."""
        return tuple(self._programs(model) for model in self.models)

    def _programs(self, model: OnePass) -> tuple[Program, ...]:
        group, found = members(model, self.degree), dict[int, Program]()
        for graph, ranks in kinds(model, group):
            program = compile_graph(graph, self.machine, group, self.options.fusion, self.options.orchestration)
            found |= dict.fromkeys(ranks, program)
        return tuple(found[rank if model.together else 0] for rank in range(self.degree))

    @cached_property
    def addresses(self) -> tuple[int, ...]:
        """Of each model's weights in DDR, and in HBM; then where the workspace begins there."""
        sizes = [max(program.weight_bytes for program in of_model) for of_model in self.programs]
        return tuple(accumulate((-(-size // ALIGNMENT) * ALIGNMENT for size in sizes), initial=0))

    def content(self, rank: int, tiers: tuple[Store, Store], shards: Shards) -> ContentSocket:
        """The content of a rank's socket: its ``tiers`` (DDR, HBM), and where weights come from at first."""
        programs = [of_model[rank] for of_model in self.programs]
        rounds = self.options.precision == "bf16"
        return ContentSocket(programs, tiers, shards, self.workspace, [0] * len(programs), rounds=rounds)

    @property
    def workspace(self) -> Range:
        """What HBM has beside the weights."""
        start = self.addresses[-1]
        return Range(start, self.machine.hbm.capacity - start)

    def check_fits(self) -> None:
        """``OutOfMemoryError`` where the weights do not fit HBM or DDR."""
        needed = self.addresses[-1]
        for tier, room in (("HBM", self.machine.hbm.capacity), ("DDR", self.machine.ddr.capacity)):
            if needed > room:
                hint = "the weights of all models of one pass; take more sockets"
                raise OutOfMemoryError(tier, "every socket", asked=needed, free=room, largest_hole=room, hint=hint)

    def check_rows(self, model: int, rows: int) -> None:
        """``InputError`` where a pass over so many ``rows`` on one socket has no room between its kernels."""
        for program in {id(program): program for program in self.programs[model]}.values():
            size = Planned.of(program, Step(0, 0, 0, rows), decoding=False).size
            if size > self.workspace.size:
                raise InputError(
                    f"{show_bytes(size)} lie between the kernels of a pass of {program.name} over {rows} images, but "
                    f"HBM has {show_bytes(self.workspace.size)} beside the weights: lower the batch, or their size"
                )

    def activation_ps(self, model: int) -> Picoseconds:
        """Time to copy a model's weights from DDR to HBM: that of the largest shard."""
        sharers = self.degree
        return max(self.machine.copy_ps(program.weight_bytes, sharers) for program in self.programs[model])

    def call_ps(self, model: int, batch: int) -> Picoseconds:
        """Time of a call with one pass over a ``batch``: that of the slowest socket."""
        step = pass_step(self.models[model], batch, self.degree)
        overhead = to_ps(self.machine.host.call_overhead, "a call")
        return overhead + max(program.prefill(step)[0] for program in self.programs[model])

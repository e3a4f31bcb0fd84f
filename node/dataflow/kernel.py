"""How long a kernel takes, and what bounds it.

A kernel is a pipeline of operators. Its time is that of the slowest of tile compute, HBM traffic, on-chip memory
and peer links, plus what no overlap hides: launch, synchronisation, the filling of its stages, the hops of its
collectives. A tensor made and used inside the kernel never touches HBM; every other one does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from node.collectives import COLLECTIVES
from node.dataflow.graph import Block, Form, Operator, Step, Tensor, total
from node.spec import Machine

BOUNDS = ("compute", "hbm", "sram", "link")


@dataclass(frozen=True, slots=True)
class Cost:
    """One run of a kernel: steady-state seconds by resource, in the order of ``BOUNDS``, and what no overlap hides."""

    bounds: tuple[float, ...]
    fixed: float

    @property
    def seconds(self) -> float:
        """The slowest bound and what is fixed."""
        return max(self.bounds) + self.fixed

    @property
    def link(self) -> float:
        """Seconds that the link is sending."""
        return self.bounds[-1]


@dataclass(frozen=True, slots=True)
class Kernel:
    """Operators that run as one program on one socket, ``repeat`` times in a pass over the model.

    ``flops``, ``hbm`` (bytes but for streamed weights), ``sram`` (bytes between stages) are forms over a step;
    ``weights``: of each operator the bytes that stream at least once per run, and the bytes of activations that
    it works on; ``launch_s`` is the time to start it; ``in_decode``: whether a decode step runs it.
    """

    name: str
    repeat: int
    stages: int
    flops: Form
    hbm: Form
    sram: Form
    weights: tuple[tuple[float, Form], ...]
    messages: tuple[tuple[str, Form], ...]
    launch_s: float
    in_decode: bool = True

    def hbm_bytes(self, machine: Machine, step: Step) -> float:
        """HBM traffic of one run in bytes.

        An operator's weights stream once if they fit on chip; else once for every part of its activations that does.
        """
        room = machine.sram.capacity
        moved = self.hbm.at(step)
        for size, activations in self.weights:
            moved += size if size <= room else size * max(1, math.ceil(activations.at(step) / room))
        return moved

    def link_s(self, machine: Machine, step: Step, members: int) -> tuple[float, float]:
        """Seconds that one run keeps the link sending, and seconds of hops, over all its collectives."""
        transfers = [COLLECTIVES[kind](form.at(step), members) for kind, form in self.messages]
        sending = sum(transfer.bytes_sent for transfer in transfers) / machine.peer.bandwidth
        return sending, sum(transfer.hops for transfer in transfers) * machine.peer.latency

    def cost(self, machine: Machine, step: Step, members: int) -> Cost:
        """What one run costs."""
        moved = self.hbm_bytes(machine, step)
        sending, hopping = self.link_s(machine, step, members)
        flops_rate, hbm_rate, sram_rate = _rates(machine)
        bounds = (
            self.flops.at(step) / flops_rate,
            moved / hbm_rate,
            (moved + self.sram.at(step)) / sram_rate,
            sending,
        )
        fixed = self.launch_s + machine.kernel.sync + self.stages * machine.kernel.stage_latency + hopping
        return Cost(bounds, fixed)

    def slopes(self, machine: Machine) -> tuple[float, ...]:
        """Seconds that one more token of decode context adds to each bound, in the order of ``BOUNDS``."""
        flops_rate, hbm_rate, sram_rate = _rates(machine)
        return (
            self.flops.per_context / flops_rate,
            self.hbm.per_context / hbm_rate,
            (self.hbm.per_context + self.sram.per_context) / sram_rate,
            0.0,
        )


def _rates(machine: Machine) -> tuple[float, float, float]:
    """Reached FLOP/s, HBM bytes/s and SRAM bytes/s of one socket."""
    return (
        machine.compute.flops_per_s,
        machine.hbm.bandwidth * machine.hbm.efficiency,
        machine.sram.banks * machine.sram.bank_bandwidth * machine.compute.clock,
    )


def build(name: str, block: Block, operators: tuple[Operator, ...], used_later: set[str], launch_s: float) -> Kernel:
    """The kernel of some ``operators`` of a block; ``used_later`` names the tensors that its later kernels read."""
    made = {tensor.name: tensor for op in operators for tensor in op.outputs}
    read = {tensor.name: tensor for op in operators for tensor in op.inputs}
    inside = [tensor for tensor in made.values() if tensor.name in read]
    boundary: list[Tensor] = [tensor for tensor in read.values() if tensor.name not in made]
    boundary += [t for t in made.values() if t.name not in read or t.name in used_later]
    kv = total(form for op in operators for form in (op.kv_read, op.kv_write))
    gathered = total(op.weight_read for op in operators).tokens
    moved = total(tensor.size for tensor in boundary)
    return Kernel(
        name=name,
        repeat=block.repeat,
        stages=len(operators),
        flops=total(op.flops for op in operators),
        hbm=moved + kv + Form(tokens=gathered),
        sram=total(tensor.size for tensor in inside),
        weights=tuple((op.weight_read.constant, _activations(op)) for op in operators if op.weight_read.constant),
        messages=tuple((op.collective, op.message) for op in operators if op.collective),
        launch_s=launch_s,
        in_decode=block.in_decode,
    )


def _activations(operator: Operator) -> Form:
    """Bytes of an operator's inputs and outputs."""
    return total(tensor.size for tensor in (*operator.inputs, *operator.outputs))

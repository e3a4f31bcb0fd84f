"""How long a kernel takes, and what bounds it.

A kernel's time is that of its slowest bound plus what no overlap hides. Each bound is seconds, linear in a step: the
stages of its pipeline, HBM traffic, peer links. What nothing hides: launch, synchronisation, the latency of its stages,
the hops of its collectives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from node.dataflow.form import Form, Step, total
from node.dataflow.graph import Block, Operator
from node.dataflow.placement import Placement
from node.dataflow.stages import sending
from node.dataflow.traffic import Traffic
from node.spec import Machine

BOUNDS = ("compute", "sram", "hbm", "link", "latency")


@dataclass(frozen=True, slots=True)
class Cost:
    """One launch of a kernel in seconds; ``bound_by`` is one of ``BOUNDS``, ``bound`` how long that takes.

    ``fixed``: what no overlap hides; ``link``: how long the link is sending.
    """

    bound_by: str
    bound: float
    fixed: float
    link: float

    @property
    def seconds(self) -> float:
        """The slowest bound and what is fixed."""
        return self.bound + self.fixed


@dataclass(frozen=True, slots=True)
class Kernel:
    """Operators of a ``block`` that run as one program on one socket, launched ``repeat`` times in a pass.

    ``bounds``: (one of ``BOUNDS``, seconds of one iteration); ``iterations`` in one launch; ``fixed_s`` per launch;
    ``hbm`` bytes, ``flops`` and seconds of ``link`` of one iteration; ``placement`` where stages are side by side.
    """

    block: Block
    name: str
    repeat: int
    iterations: int
    operators: tuple[Operator, ...]
    bounds: tuple[tuple[str, Form], ...]
    fixed_s: float
    hbm: Form
    flops: Form
    link: Form
    placement: Placement | None = None

    def cost(self, step: Step, hbm_share: float = 1.0) -> Cost:
        """What one launch costs while kernels get ``hbm_share`` of HBM bandwidth, the rest being a copy's."""
        found = [(form.at(step) / (hbm_share if label == "hbm" else 1.0), label) for label, form in self.bounds]
        bound, label = max(found, key=lambda pair: pair[0])
        return Cost(label, self.iterations * bound, self.fixed_s, self.iterations * self.link.at(step))


@dataclass(frozen=True, slots=True)
class Launch:
    """How a ``block``'s kernels are run: seconds to start one, ``members`` of the socket's group."""

    block: Block
    machine: Machine
    seconds: float
    members: int


def placed_kernel(
    name: str, traffic: Traffic, index: int, placement: Placement, step: Step, launch: Launch, *, looped: bool = False
) -> Kernel:
    """The kernel of ``placement``, made for ``step``, with range ``index`` of ``traffic``.

    ``looped``: one launch with all iterations. The pipeline is filled once; an iteration takes T times the slowest
    stage's time for one of T tiles, or as long as its first tile is on its way through D stages, latencies included:
    the next iteration needs what comes out.
    """
    machine = launch.machine
    assert machine.pipeline is not None
    operators = tuple(stage.operator for stage in placement.stages)
    tiles, depth = placement.tiles, placement.depth
    hbm = traffic.forms(index, tiles, placement.resident)
    link, hops_s = _link(operators, machine, launch.members)
    latency_s = len(operators) * machine.pipeline.stage_latency + hops_s
    stages = [
        (work * (s.seconds / work.at(step))) for s in placement.stages if s.seconds and (work := _work(s.operator))
    ]
    turns = tiles if looped else tiles + depth - 1
    bounds = [(placement.limit, seconds * (turns / tiles)) for seconds in stages]
    bounds += [("hbm", hbm * (1 / (machine.hbm.bandwidth * machine.hbm.efficiency)))]
    bounds += [("link", link)] if link.parts != Form().parts else []
    fixed_s = launch.seconds + machine.kernel.sync
    if looped:
        slowest = max((seconds.at(step) for seconds in stages), default=0.0)
        bounds += [("latency", s * (depth / tiles) + Form(constant=latency_s)) for s in stages] if stages else []
        fixed_s += latency_s + (min(tiles, depth) - 1) / tiles * slowest
    else:
        fixed_s += latency_s
    return Kernel(
        block=launch.block,
        name=name,
        repeat=1 if looped else launch.block.repeat,
        iterations=launch.block.repeat if looped else 1,
        operators=operators,
        bounds=tuple(bounds),
        fixed_s=fixed_s,
        hbm=hbm,
        flops=total(op.flops for op in operators),
        link=link,
        placement=placement,
    )


def _work(operator: Operator) -> Form:
    """What a stage's time grows with."""
    return operator.flops if operator.mode == "systolic" else operator.streamed


def shared_kernel(
    name: str, operators: Sequence[Operator], traffic: Traffic, index: int, step: Step, launch: Launch
) -> Kernel:
    """The kernel of operators that run one after another, each on all units; ``traffic`` is of range ``index``.

    An operator's weights stream once if they fit on chip; else once for every part of its activations that does.
    """
    machine = launch.machine
    room, sram = machine.sram.capacity, machine.sram
    hbm = traffic.forms(index, 1, 1.0)
    made = {tensor.name for op in operators for tensor in op.outputs}
    read = {tensor.name for op in operators for tensor in op.inputs}
    for op in operators:
        activations = total(tensor.size for tensor in (*op.inputs, *op.outputs)).at(step)
        if op.weight_read.constant > room:
            hbm += Form(constant=op.weight_read.constant * (max(1, math.ceil(activations / room)) - 1))
    inside = total(t.size for op in operators for t in op.outputs if t.name in made & read)
    flops = total(op.flops for op in operators)
    link, hops_s = _link(operators, machine, launch.members)
    bounds = [
        ("compute", flops * (1 / machine.compute.flops_per_s)),
        ("sram", (hbm + inside) * (1 / (sram.banks * sram.bank_bandwidth * machine.compute.clock))),
        ("hbm", hbm * (1 / (machine.hbm.bandwidth * machine.hbm.efficiency))),
        ("link", link),
    ]
    return Kernel(
        block=launch.block,
        name=name,
        repeat=launch.block.repeat,
        iterations=1,
        operators=tuple(operators),
        bounds=tuple(bounds),
        fixed_s=launch.seconds + machine.kernel.sync + hops_s,
        hbm=hbm,
        flops=flops,
        link=link,
    )


def _link(operators: Sequence[Operator], machine: Machine, members: int) -> tuple[Form, float]:
    """Seconds that the link is sending, and seconds of hops, over all collectives."""
    found = [sending(op, machine, members) for op in operators]
    return total(link for link, _ in found), sum(hops_s for _, hops_s in found)

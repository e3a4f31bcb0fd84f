"""The kernels of one pass of a model and its memory plan, as rows for tables and JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from node.dataflow.form import Step
from node.dataflow.graph import Graph
from node.dataflow.kernel import Kernel
from node.dataflow.memory_plan import MemoryPlan, plan_memory
from node.dataflow.program import compile_graph
from node.dataflow.schedule import schedule
from node.errors import InputError
from node.estimate import Call, prefill_step
from node.models.composition import is_composition, load_composition
from node.models.decoder import decoder
from node.models.hugging_face import load_shape
from node.models.one_pass import members, one_pass, pass_step
from node.models.training import train, training_step
from node.spec import Machine
from node.units import PS_PER_S

TOKENS = 4096
PHASES = ("prefill", "decode", "train")


@dataclass(frozen=True)
class KernelRow:
    """A kernel of a pass: seconds and bytes are of one launch; shares are of what the socket has."""

    kernel: str
    launches: int
    iterations: int
    operators: int
    tiles: int
    pcus: int
    pmus: int
    pcu_share: float
    pmu_share: float
    sram_bytes: int
    seconds: float
    fixed_seconds: float
    bound_by: str
    slowest_stage: str
    hbm_bytes: float
    flops: float
    flops_per_byte: float


@dataclass(frozen=True)
class Memory:
    """The static memory plan in bytes; ``spill_seconds``: what the spilled symbols' moves cost more than from HBM."""

    symbols: int
    hbm_bytes: int
    lifetime_bound_bytes: int
    unshared_bytes: int
    saved_by_sharing_bytes: int
    spilled_symbols: int
    ddr_bytes: int
    spilled_moved_bytes: int
    spill_seconds: float


@dataclass(frozen=True)
class Pass:
    """One pass of a model on one socket."""

    model: str
    machine: Machine
    rank: int
    step: Step
    kernels: tuple[Kernel, ...]
    plan: MemoryPlan

    @property
    def seconds(self) -> float:
        """Seconds of all kernels."""
        return sum(kernel.repeat * kernel.cost(self.step).seconds for kernel in self.kernels)

    def rows(self) -> list[KernelRow]:
        """A row per kernel."""
        return [_row(kernel, self.machine, self.step) for kernel in self.kernels]

    def memory(self) -> Memory:
        """The memory plan in figures."""
        plan, hbm = self.plan, self.machine.hbm
        slower = self.machine.copy_ps(plan.spilled_moved, self.machine.sockets) / PS_PER_S
        return Memory(
            symbols=len(plan.hbm) + len(plan.ddr),
            hbm_bytes=plan.hbm_bytes,
            lifetime_bound_bytes=plan.lifetime_bound,
            unshared_bytes=plan.unshared_bytes,
            saved_by_sharing_bytes=plan.saved_bytes,
            spilled_symbols=len(plan.ddr),
            ddr_bytes=plan.ddr_bytes,
            spilled_moved_bytes=plan.spilled_moved,
            spill_seconds=max(0.0, slower - plan.spilled_moved / (hbm.bandwidth * hbm.efficiency)),
        )

    def as_json(self) -> dict[str, object]:
        """Everything as JSON."""
        return {
            "model": self.model,
            "machine": self.machine.name,
            "sockets": self.machine.sockets,
            "rank": self.rank,
            "seconds": self.seconds,
            "kernels": [asdict(row) | {"stages": _stages(k)} for row, k in zip(self.rows(), self.kernels, strict=True)],
            "memory": asdict(self.memory()),
        }


@dataclass(frozen=True)
class Asked:
    """What of a model: ``phase``, tokens of a ``sequence`` (of a decode: context), ``batch``, fusion, who launches.

    ``rank``: which socket's shard.
    """

    phase: str
    sequence: int | None  # 4096 if not said
    batch: int
    fusion: str
    orchestration: str
    rank: int = 0


def pass_of(model: str, machine: Machine, asked: Asked) -> Pass:
    """The kernels of a pass of ``model`` over all sockets of ``machine``, on one of them; raises ``InputError``."""
    if asked.rank >= machine.sockets:
        raise InputError(f"--rank {asked.rank}: must be below {machine.sockets}, the sockets of {machine.name}")
    if is_composition(model):
        parts = load_composition(model)
        raise InputError(
            f"model {model!r}: is composed of several; coe kernels has each by itself: {parts.encoder.name}, "
            f"{parts.shape.name}"
        )
    found = one_pass(model)
    if found is not None:
        if asked.sequence is not None:
            raise InputError(f"--sequence {asked.sequence}: {model} has no tokens; give --batch alone")
        if asked.phase != "prefill":
            raise InputError(f"--phase {asked.phase!r}: {model} has no tokens to decode or learn; it has phase prefill")
        group = members(found, machine.sockets)
        graph = found.graph(group, asked.rank if found.together else 0)
        step = pass_step(found, asked.batch, machine.sockets)
    else:
        make = train if asked.phase == "train" else decoder
        graph, group = make(load_shape(model), machine.sockets, asked.rank), machine.sockets
        step = _step(asked, graph)
    program = compile_graph(graph, machine, group, asked.fusion, asked.orchestration)
    if asked.phase == "decode":
        kernels = program.decode_kernels(asked.batch, step.context)
    else:
        kernels = program.prefill_kernels(step)
    plan = plan_memory(schedule(kernels, step).symbols, machine.hbm.capacity, machine.ddr.capacity)
    return Pass(model, machine, asked.rank, step, kernels, plan)


def _step(asked: Asked, graph: Graph) -> Step:
    tokens = asked.sequence or TOKENS
    if asked.phase == "decode":
        seen = tokens if graph.window is None else min(tokens, graph.window)
        return Step(asked.batch, asked.batch * seen, asked.batch * seen, asked.batch)
    if asked.phase == "train":
        return training_step(asked.batch, tokens, graph.window)
    return prefill_step(Call(tokens, 1, asked.batch), graph.window)


def _row(kernel: Kernel, machine: Machine, step: Step) -> KernelRow:
    cost, placement = kernel.cost(step), kernel.placement
    pcus, pmus = (placement.pcus, placement.pmus) if placement else (machine.compute.units, machine.sram.banks)
    slowest = max(placement.stages, key=lambda stage: stage.seconds).operator.name if placement else ""
    moved, flops = kernel.iterations * kernel.hbm.at(step), kernel.iterations * kernel.flops.at(step)
    return KernelRow(
        kernel=kernel.name,
        launches=kernel.repeat,
        iterations=kernel.iterations,
        operators=len(kernel.operators),
        tiles=placement.tiles if placement else 1,
        pcus=pcus,
        pmus=pmus,
        pcu_share=pcus / machine.compute.units,
        pmu_share=pmus / machine.sram.banks,
        sram_bytes=placement.sram_bytes if placement else 0,
        seconds=cost.seconds,
        fixed_seconds=cost.fixed,
        bound_by=cost.bound_by,
        slowest_stage=slowest,
        hbm_bytes=moved,
        flops=flops,
        flops_per_byte=flops / moved if moved else 0.0,
    )


def _stages(kernel: Kernel) -> list[dict[str, object]]:
    stages = kernel.placement.stages if kernel.placement else ()
    return [
        {
            "operator": stage.operator.name,
            "kind": stage.operator.kind,
            "mode": stage.operator.mode,
            "pcus": stage.pcus,
            "pmus": stage.pmus,
            "seconds": stage.seconds,
        }
        for stage in stages
    ]

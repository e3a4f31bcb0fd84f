"""One call of one model, with nothing around it: how long, what for, and what bounds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from node.dataflow.form import Step, causal_pairs
from node.dataflow.graph import Graph
from node.dataflow.kernel import BOUNDS, Kernel
from node.dataflow.program import compile_graph
from node.errors import OutOfMemoryError
from node.models.decoder import decoder
from node.models.one_pass import OnePass, kinds, members, pass_step
from node.models.served import Model
from node.models.shape import Shape
from node.models.shard import Shard
from node.spec import Machine
from node.units import seconds

FIXED = "fixed"  # launch, synchronisation, filling of stages, hops: what no overlap hides


@dataclass(frozen=True, slots=True)
class Call:
    """A batch of equal prompts: tokens in and out of each; fusion and orchestration as in the config."""

    input_tokens: int
    output_tokens: int
    batch: int = 1
    fusion: str = "fused"
    orchestration: str = "ho"


@dataclass(frozen=True, slots=True)
class Estimate:
    """Times in seconds; ``total_s`` is with the call overhead, the others are without.

    Over prefill and decode: fractions of the sockets' peak, and in ``bound_by`` what bounds most of the time.
    """

    call_overhead_s: float
    prefill_s: float
    decode_s_per_token: float
    total_s: float
    kernel_launches_per_token: int
    hbm_bandwidth_fraction: float
    flops_fraction: float
    bound_by: str


def estimate(machine: Machine, shape: Shape, call: Call) -> Estimate:
    """The call on all sockets of ``machine``; of sockets whose shards differ, the slowest counts.

    Raises ``OutOfMemoryError`` where weights and KV cache do not fit HBM.
    """
    degree = machine.sockets
    shards = [Shard.of(shape, degree, rank) for rank in range(degree)]
    ranks = sorted({shards.index(shard) for shard in shards})
    return max((_on_rank(machine, shape, call, rank) for rank in ranks), key=lambda found: found.total_s)


def _on_rank(machine: Machine, shape: Shape, call: Call, rank: int) -> Estimate:
    graph = decoder(shape, machine.sockets, rank)
    _check_fits(machine, graph, call, f"socket {rank}")
    program = compile_graph(graph, machine, machine.sockets, call.fusion, call.orchestration)
    prompt, runs = prefill_step(call, graph.window), _decode_runs(call, graph.window)
    prefill = seconds(program.prefill(prompt)[0])
    decode = seconds(sum(program.decode(call.batch).run_ps(*run) for run in runs))
    steps = call.output_tokens - 1  # the first token comes with the prefill
    parts = [(1, prompt, program.prefill_kernels(prompt))]
    for run in runs:
        middle = _mean_step(call, *run)
        parts.append((run[2], middle, program.decode_kernels(call.batch, middle.context)))
    tally = _tally(parts)
    busy = prefill + decode
    return Estimate(
        call_overhead_s=machine.host.call_overhead,
        prefill_s=prefill,
        decode_s_per_token=decode / steps if steps else 0.0,
        total_s=machine.host.call_overhead + busy,
        kernel_launches_per_token=sum(kernel.repeat for kernel in program.decode_kernels(call.batch, runs[0][0])),
        hbm_bandwidth_fraction=tally.moved / busy / machine.hbm.bandwidth,
        flops_fraction=tally.flops / busy / machine.compute.peak_flops_per_s,
        bound_by=tally.bound_by,
    )


def estimate_model(machine: Machine, model: Model, call: Call) -> Estimate:
    """``estimate`` or ``estimate_one_pass``, whichever the model is for."""
    return estimate(machine, model, call) if isinstance(model, Shape) else estimate_one_pass(machine, model, call)


def estimate_one_pass(machine: Machine, model: OnePass, call: Call) -> Estimate:
    """A batch of signals or images through a model of one pass; tokens in and out have no meaning here.

    On all sockets of ``machine``; of sockets whose shards differ, the slowest counts. Raises ``OutOfMemoryError``.
    """
    degree, step = members(model, machine.sockets), pass_step(model, call.batch, machine.sockets)
    found = []
    for graph, ranks in kinds(model, degree):
        _check_fits(machine, graph, call, f"socket {ranks[0]}")
        program = compile_graph(graph, machine, degree, call.fusion, call.orchestration)
        seconds_s = seconds(program.prefill(step)[0])
        tally = _tally([(1, step, program.prefill_kernels(step))])
        found.append(
            Estimate(
                call_overhead_s=machine.host.call_overhead,
                prefill_s=seconds_s,
                decode_s_per_token=0.0,
                total_s=machine.host.call_overhead + seconds_s,
                kernel_launches_per_token=0,
                hbm_bandwidth_fraction=tally.moved / seconds_s / machine.hbm.bandwidth,
                flops_fraction=tally.flops / seconds_s / machine.compute.peak_flops_per_s,
                bound_by=tally.bound_by,
            )
        )
    return max(found, key=lambda one: one.total_s)


@dataclass(frozen=True, slots=True)
class _Tally:
    """HBM bytes, FLOPs, and what bounds most of the time."""

    moved: float
    flops: float
    bound_by: str


def _tally(parts: Sequence[tuple[int, Step, Sequence[Kernel]]]) -> _Tally:
    """Over passes: how often, which step, which kernels."""
    shares, moved, flops = dict.fromkeys((*BOUNDS, FIXED), 0.0), 0.0, 0.0
    for count, step, kernels in parts:
        for kernel in kernels:
            cost, times = kernel.cost(step), count * kernel.repeat
            shares[cost.bound_by] += times * cost.bound
            shares[FIXED] += times * cost.fixed
            moved += times * kernel.iterations * kernel.hbm.at(step)
            flops += times * kernel.iterations * kernel.flops.at(step)
    return _Tally(moved, flops, max(shares, key=lambda bound: shares[bound]))


def _check_fits(machine: Machine, graph: Graph, call: Call, socket: str) -> None:
    tokens = call.input_tokens + call.output_tokens
    kept = tokens if graph.window is None else min(tokens, graph.window)
    needed, room = graph.weight_bytes + call.batch * graph.kv_bytes_per_token * kept, machine.hbm.capacity
    if needed > room:
        hint = "weights and KV cache of the call; take more sockets, a smaller batch or shorter prompts"
        raise OutOfMemoryError("HBM", socket, asked=needed, free=room, largest_hole=room, hint=hint)


def prefill_step(call: Call, window: int | None) -> Step:
    """The pass over the prompts of a call."""
    tokens = call.batch * call.input_tokens
    return Step(tokens, call.batch * causal_pairs(call.input_tokens, window), tokens, call.batch)


def _decode_runs(call: Call, window: int | None) -> list[tuple[int, int, int]]:
    """(context, growth, steps) of the decode steps: until attention's window is full, and from then on."""
    steps, first, batch = call.output_tokens - 1, call.input_tokens + 1, call.batch
    growing = steps if window is None else max(0, min(steps, window - first))
    runs = [(batch * first, batch, growing)]
    return runs if window is None else [*runs, (batch * min(first + growing, window), 0, steps - growing)]


def _mean_step(call: Call, context: int, growth: int, steps: int) -> Step:
    """The step in the middle of a run: its bytes and FLOPs, linear in context, are the mean's."""
    middle = context + growth * (steps - 1) // 2
    return Step(call.batch, middle, middle, call.batch)

"""The paper's fusion study and operational intensities: fused kernels beside unfused ones, on our own shapes.

Batch sizes and the shapes of the FFTs are unpublished; those taken here are named in each row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cluster.published import Inputs, Row, Runs
from node.dataflow.compiler import Compiler
from node.dataflow.form import Step
from node.dataflow.graph import Block, Graph
from node.dataflow.kernel import Kernel
from node.dataflow.program import compile_graph
from node.estimate import Call, estimate, estimate_one_pass
from node.models.decoder import decoder
from node.models.hugging_face import load_shape
from node.models.monarch import Transform, load_transform, monarch
from node.models.training import train, training_step
from node.spec import Machine
from node.units import seconds

# P Table III: benchmark and tokens; prefill and decode of each
BENCHMARKS = (
    ("llama-2-7b", 4096),
    ("llama-2-70b", 4096),
    ("bloom-176b", 8192),
    ("mistral-7b", 2048),
    ("mistral-7b", 4096),
    ("falcon-40b", 2048),
    ("llava-1.5-7b", 4096),
)
TRAINED = (("llama-2-7b", 4096), ("sparsegpt-13b", 2048))
BY_KIND = {"prefill": (1.5, 3.0), "decode": (1.0, 13.0), "train": (1.5, 3.0)}
HEADLINE = (2.0, 13.0)
ANSWER = 20  # tokens over which decode is averaged
USED = 0.9  # P: almost 90 % of PCUs and PMUs
FFT_SPEEDUP, FFT_BATCH = 13.0, 32
FFT_BATCHES = (16, 32, 64, 256)
INTENSITY = {"unfused": 39.5, "Gemm0-Mul-Transpose fused": 102.6, "all fused": 410.4}
MONARCH_BATCH = 16


@dataclass(frozen=True)
class Speedup:
    """How many times quicker fused kernels are than unfused, host-launched ones, without call overhead."""

    model: str
    tokens: int
    phase: str
    orchestration: str
    times: float


def speedups(machine: Machine) -> list[Speedup]:
    """Every benchmark of the study on ``machine``, batch 1, launched by host (so) and hardware (ho)."""
    found = []
    for model, tokens in BENCHMARKS:
        shape = load_shape(model)
        unfused = estimate(machine, shape, Call(tokens, ANSWER, 1, "unfused", "so"))
        for orchestration in ("so", "ho"):
            fused = estimate(machine, shape, Call(tokens, ANSWER, 1, "fused", orchestration))
            for phase, slow, quick in (
                ("prefill", unfused.prefill_s, fused.prefill_s),
                ("decode", unfused.decode_s_per_token, fused.decode_s_per_token),
            ):
                found.append(Speedup(model, tokens, phase, orchestration, slow / quick))
    for model, tokens in TRAINED:
        graph, step = train(load_shape(model), machine.sockets), training_step(1, tokens)
        slow = _pass_s(graph, step, machine, "unfused", "so")
        for orchestration in ("so", "ho"):
            times = slow / _pass_s(graph, step, machine, "fused", orchestration)
            found.append(Speedup(model, tokens, "train", orchestration, times))
    return found


def _pass_s(graph: Graph, step: Step, machine: Machine, fusion: str, orchestration: str) -> float:
    return seconds(compile_graph(graph, machine, machine.sockets, fusion, orchestration).prefill(step)[0])


def fusion_rows(runs: Runs) -> Iterator[Row]:
    """The fusion study: each speed-up beside the range of its kind and beside the headline's."""
    inputs = runs.inputs("coe estimate", ("sn40l-node",))
    for one in speedups(runs.machine("sn40l-node")):
        name = f"{one.model} {one.tokens} {one.phase} {one.orchestration.upper()}"
        key = f"fusion-{one.model}-{one.tokens}-{one.phase}-{one.orchestration}"
        for label, published in (("by kind", BY_KIND[one.phase]), ("headline", HEADLINE)):
            metric = f"fused/unfused, {name}, {label}"
            suffix = label.replace(" ", "-")
            yield Row(f"{key}-{suffix}", "fusion", metric, published, one.times, 0.10, "predicted", inputs)
    for orchestration in ("so", "ho"):
        times = fft_speedup(runs.machine("sn40l-socket"), FFT_BATCH, orchestration)
        metric = f"fused/unfused, FlashFFTConv 1M {orchestration.upper()}, {FFT_BATCH} sequences, one socket"
        inputs = runs.inputs("coe estimate flashfftconv-1m", ("sn40l-socket",))
        yield Row(
            f"fusion-flashfftconv-1m-{orchestration}", "fusion", metric, FFT_SPEEDUP, times, 0.25, "fitted", inputs
        )


def placement_rows(runs: Runs) -> Iterator[Row]:
    """How much of a socket a fused decoder kernel uses, by the placer's own decision."""
    machine = runs.machine("sn40l-node")
    program = compile_graph(decoder(load_shape("llama-2-7b"), machine.sockets), machine, machine.sockets, "fused", "ho")
    placement = max(program.decode_kernels(1, 4096), key=lambda kernel: kernel.repeat).placement
    if placement is None:
        return
    shares = {"PCUs": placement.pcus / machine.compute.units, "PMUs": placement.pmus / machine.sram.banks}
    inputs = runs.inputs("coe kernels llama-2-7b --phase decode", ("sn40l-node",))
    for unit, share in shares.items():
        metric = f"share of {unit} that a fused decoder kernel uses, llama-2-7b decode"
        yield Row(f"placement-{unit.lower()}", "placement", metric, USED, share, 0.15, "predicted", inputs)


def fft_speedup(machine: Machine, batch: int, orchestration: str, factors: tuple[int, ...] = ()) -> float:
    """Fused over unfused of the long convolution; ``factors``: another decomposition of its points."""
    transform = load_transform("flashfftconv-1m")
    if factors:
        transform = Transform(transform.name, transform.kind, factors)
    unfused = estimate_one_pass(machine, transform, Call(1, 1, batch, "unfused", "so"))
    return (
        unfused.prefill_s / estimate_one_pass(machine, transform, Call(1, 1, batch, "fused", orchestration)).prefill_s
    )


def monarch_rows(runs: Runs) -> Iterator[Row]:
    """Operational intensity of Gemm0-Mul-Transpose-Gemm1, from the traffic that times kernels."""
    found = intensities(runs.machine("sn40l-socket"))
    inputs: Inputs = runs.inputs("coe kernels monarch-fft", ("sn40l-socket",))
    for name, published in INTENSITY.items():
        metric = f"FLOPs per byte, Monarch FFT 256 x 256, {MONARCH_BATCH} sequences, {name}"
        key = f"monarch-{name.split()[0].lower()}"
        yield Row(key, "monarch", metric, published, found[name], 0.10, "fitted", inputs)


def intensities(machine: Machine) -> dict[str, float]:
    """FLOPs per byte: every operator a kernel; the first three one kernel; all four one kernel."""
    (block,) = monarch(load_transform("monarch-fft")).blocks
    step = Step(tokens=0, pairs=0, context=0, sequences=MONARCH_BATCH)
    first, last = Block("first", block.operators[:3]), Block("last", block.operators[3:])
    cuts: dict[str, tuple[str, tuple[Block, ...]]] = {
        "unfused": ("unfused", (block,)),
        "Gemm0-Mul-Transpose fused": ("fused", (first, last)),
        "all fused": ("fused", (block,)),
    }
    found = {}
    for name, (level, blocks) in cuts.items():
        compiler = Compiler.of(machine, 1, level, "ho")
        kernels: list[Kernel] = [kernel for one in blocks for kernel in compiler.kernels((one,), step)]
        found[name] = sum(k.flops.at(step) for k in kernels) / sum(k.hbm.at(step) for k in kernels)
    return found

"""Is a tensor between kernels alive from the kernel that makes it to the last that reads it, and does that all fit?"""

from __future__ import annotations

import pytest

from cluster.kernels import Asked, Pass, pass_of
from node.dataflow.form import ZERO, Form, Step
from node.dataflow.graph import Block, Operator, Tensor
from node.dataflow.kernel import Kernel
from node.dataflow.memory_plan import ALIGNMENT
from node.dataflow.program import compile_graph
from node.dataflow.schedule import schedule
from node.errors import OutOfMemoryError
from node.models.decoder import decoder
from node.models.hugging_face import load_shape, model_names
from node.spec_file import load_machine

NODE = load_machine("sn40l-node")
STEP = Step(tokens=5, pairs=0, context=7, sequences=1)


def tensor(name: str, *, kept: bool = False) -> Tensor:
    """8 bytes a token: 40 in ``STEP``."""
    return Tensor(name, "tokens", (4,), kept=kept)


def operator(name: str, inputs: str, output: Tensor, **more: object) -> Operator:
    return Operator(name, "gemm", tuple(map(tensor, inputs.split())), (output,), **more)  # type: ignore[arg-type]


EMBED = operator("embed", "", tensor("a"), weights=100, weight_read=Form(tokens=10))
NORM = operator("norm", "x", tensor("n"))
MIX = operator("mix", "n", tensor("m"), weights=64, weight_read=Form(constant=64), kv_read=Form(context=6))
ADD = operator("add", "x m", tensor("out"))
FIRST, LAYER = Block("first", (EMBED,)), Block("layer", (NORM, MIX, ADD), repeat=3)


def kernel(block: Block, *operators: Operator, looped: bool = False) -> Kernel:
    repeat, iterations = (1, block.repeat) if looped else (block.repeat, 1)
    return Kernel(block, "", repeat, iterations, operators, bounds=(), fixed_s=0, hbm=ZERO, flops=ZERO, link=ZERO)


def found(*kernels: Kernel) -> dict[str, tuple[int, int, int, int]]:
    """Of each symbol: size, first, last, moved."""
    every = schedule(kernels, STEP).symbols
    assert len({symbol.name for symbol in every}) == len(every)
    return {symbol.name: (symbol.size, symbol.first, symbol.last, symbol.moved) for symbol in every}


def held(last: int) -> dict[str, tuple[int, int, int, int]]:
    """Weights and cache of the two blocks: of the table 10 bytes are read for each of 5 tokens."""
    each = {"mix.weights": (64, 0, last, 64), "mix.cache": (42, 0, last, 42)}
    layers = {f"layer[{at}].{name}": numbers for at in range(3) for name, numbers in each.items()}
    return {"first.embed.weights": (100, 0, last, 50)} | layers


def test_one_kernel_an_operator_by_hand() -> None:
    """Kernel 0 embeds; layers are kernels 1-3, 4-6, 7-9, of which the first and the last read what enters."""
    expected = held(9) | {"first.a": (40, 0, 3, 3 * 40)}
    for at, start in enumerate((1, 4, 7)):
        expected |= {
            f"layer[{at}].n": (40, start, start + 1, 2 * 40),
            f"layer[{at}].m": (40, start + 1, start + 2, 2 * 40),
            f"layer[{at}].out": (40, start + 2, start + 5, 3 * 40) if at < 2 else (40, 9, 9, 40),
        }
    assert found(kernel(FIRST, EMBED), kernel(LAYER, NORM), kernel(LAYER, MIX), kernel(LAYER, ADD)) == expected


def test_what_stays_in_a_kernel_has_no_place_but_the_residual_spans_both() -> None:
    expected = held(6) | {"first.a": (40, 0, 2, 3 * 40)}
    for at, start in enumerate((1, 3, 5)):
        expected[f"layer[{at}].n"] = (40, start, start + 1, 2 * 40)
        expected[f"layer[{at}].out"] = (40, start + 1, start + 3, 3 * 40) if at < 2 else (40, 6, 6, 40)
    assert found(kernel(FIRST, EMBED), kernel(LAYER, NORM), kernel(LAYER, MIX, ADD)) == expected


@pytest.mark.parametrize("looped", [False, True])
def test_a_layer_of_one_kernel_reads_what_enters_once_looped_or_not(looped: bool) -> None:
    expected = held(3) | {"first.a": (40, 0, 1, 80)}
    expected |= {"layer[0].out": (40, 1, 2, 80), "layer[1].out": (40, 2, 3, 80), "layer[2].out": (40, 3, 3, 40)}
    assert found(kernel(FIRST, EMBED), kernel(LAYER, NORM, MIX, ADD, looped=looped)) == expected


def test_what_nobody_makes_is_there_from_the_beginning() -> None:
    assert found(kernel(Block("one", (NORM,)), NORM)) == {"one.x": (40, 0, 0, 40), "one.n": (40, 0, 0, 40)}
    assert schedule([], STEP).symbols == []


# Built-in models

PHASES = [(model, phase) for model in model_names() for phase in ("prefill", "decode")]
TRAINED = [(model, "train") for model in ("llama-2-7b", "sparsegpt-13b")]


def planned(model: str, phase: str, **numbers: str) -> Pass:
    machine = load_machine("sn40l-node", {f"{tier}.capacity": size for tier, size in numbers.items()})
    return pass_of(model, machine, Asked(phase, 2048, 1, "fused", "ho"))


@pytest.mark.parametrize(("model", "phase"), [*PHASES, *TRAINED])
def test_the_plan_of_a_model_is_within_a_tenth_of_what_is_alive_at_once(model: str, phase: str) -> None:
    one = planned(model, phase)
    assert one.plan is not None
    there = [symbol for symbol in schedule(one.kernels, one.step).symbols if symbol.name in one.plan.hbm]
    sizes = [-(-symbol.size // ALIGNMENT) * ALIGNMENT for symbol in there]
    passes = sum(kernel.repeat * kernel.iterations for kernel in one.kernels)
    change = [0] * (passes + 1)
    for symbol, size in zip(there, sizes, strict=True):
        change[symbol.first] += size
        change[symbol.last + 1] -= size
    most = max(sum(change[: at + 1]) for at in range(passes))
    assert one.plan.lifetime_bound == most
    assert most <= one.plan.hbm_bytes <= min(1.1 * most, 64 * 2**30)


@pytest.mark.parametrize("model", model_names())
def test_weights_and_cache_are_those_of_the_shard_and_alive_throughout(model: str) -> None:
    graph, step = decoder(load_shape(model), 8), Step(tokens=3, pairs=300, context=300, sequences=3)
    kernels = compile_graph(graph, NODE, 8, "fused", "ho").prefill_kernels(step)
    every, last = schedule(kernels, step).symbols, sum(kernel.repeat * kernel.iterations for kernel in kernels) - 1
    of = {what: [s for s in every if s.name.endswith(what)] for what in (".weights", ".cache")}
    assert sum(symbol.size for symbol in of[".weights"]) == graph.weight_bytes
    assert sum(symbol.size for symbol in of[".cache"]) == 300 * graph.kv_bytes_per_token
    assert {(s.first, s.last) for same in of.values() for s in same} == {(0, last)}


def test_a_byte_less_than_the_plan_and_the_table_of_embeddings_spills() -> None:
    """Of all symbols the table and the norms' weights are moved least, 8192 bytes, and the table is the largest."""
    ample = planned("llama-2-7b", "decode").plan
    assert planned("llama-2-7b", "decode", hbm=f"{ample.hbm_bytes} B").plan == ample
    short = planned("llama-2-7b", "decode", hbm=f"{ample.hbm_bytes - 1} B")
    assert short.plan.ddr == {"embedding.embedding.weights": 0}
    assert short.plan.hbm_bytes == ample.hbm_bytes - 32_000 // 8 * 4096 * 2
    assert (short.memory().spilled_symbols, short.memory().spilled_moved_bytes) == (1, 8192)
    assert short.memory().spill_seconds == pytest.approx(8192 / (200e9 * 0.62) - 8192 / (1.8e12 * 0.85), rel=1e-4)


def test_half_the_weights_in_too_little_hbm_go_to_ddr_or_nowhere() -> None:
    short = planned("llama-2-7b", "decode", hbm="1 GiB").plan
    assert 0.9 * 2**30 < short.hbm_bytes <= 2**30
    assert short.hbm_bytes + short.ddr_bytes >= decoder(load_shape("llama-2-7b"), 8).weight_bytes
    with pytest.raises(OutOfMemoryError, match="DDR"):
        planned("llama-2-7b", "decode", hbm="1 GiB", ddr="256 MiB")

"""Is all that a training step reads alive, of the right layer, and nothing alive for longer? By a replay of its own.

The replay knows which layer an iteration works on, and what is called differently where it is made and where it is
read. It knows nothing of how blocks are related in the graph, or of how the schedule finds a tensor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.dataflow.form import Step
from node.dataflow.fusion import LEVELS
from node.dataflow.graph import DTYPES, Block, Graph, Operator, Tensor
from node.dataflow.kernel import Kernel
from node.dataflow.memory_plan import plan_memory
from node.dataflow.program import compile_graph
from node.dataflow.schedule import schedule
from node.models.hugging_face import load_shape
from node.models.training import STATE, train, training_step
from node.spec_file import load_machine

MACHINE = load_machine("sn40l-node")
MODELS = {
    name: replace(load_shape(name), hidden=256, heads=8, kv_heads=kv_heads, head_dim=32, ffn=512, vocabulary=1000)
    for name, kv_heads in (("llama-2-7b", 2), ("sparsegpt-13b", 8), ("falcon-40b", 4), ("bloom-176b", 8))
}
Made = tuple[str, int, str]  # block, iteration, tensor


@dataclass
class Launch:
    """An iteration of a kernel."""

    block: str
    iteration: int
    operators: tuple[Operator, ...]

    def outside(self) -> list[Tensor]:
        """What enters, each tensor once."""
        made = {tensor.name for op in self.operators for tensor in op.outputs}
        entering = {t.name: t for op in self.operators for t in op.inputs if t.name not in made and not in_place(t)}
        return list(entering.values())


def in_place(tensor: Tensor) -> bool:
    """Master weights, moments, and what Adam writes."""
    return tensor.name.endswith((*STATE, "_updated"))


def launches(kernels: tuple[Kernel, ...]) -> list[Launch]:
    found: list[Launch] = []
    names = list(dict.fromkeys(kernel.block.name for kernel in kernels))
    for name in names:
        of_block = [kernel for kernel in kernels if kernel.block.name == name]
        for iteration in range(of_block[0].repeat * of_block[0].iterations):
            found += [Launch(name, iteration, kernel.operators) for kernel in of_block]
    return found


class Replay:
    """Who makes what a launch reads."""

    def __init__(self, graph: Graph) -> None:
        blocks: dict[str, Block] = {block.name: block for block in graph.blocks}
        self.last = blocks["layer"].repeat - 1
        self.maker = {t.name: b.name for b in graph.blocks for op in b.operators for t in op.outputs if not in_place(t)}
        self.embedded = blocks["embedding"].operators[-1].outputs[0].name
        self.head = blocks["head"].operators[-1].outputs[0].name

    def layer(self, launch: Launch) -> int:
        """Backward goes through the layers in reverse."""
        return self.last - launch.iteration if launch.block == "layer_backward" else launch.iteration

    def made(self, launch: Launch, name: str) -> Made:
        """What a launch reads as ``name``."""
        layer = self.layer(launch)
        if name == "hidden":
            return ("layer", layer - 1, "layer_output") if layer else ("embedding", 0, self.embedded)
        if name == "last_hidden":
            return ("layer", self.last, "layer_output")
        if name == "layer_output_gradient":
            at = self.last - (layer + 1)  # when the layer above was gone through
            return ("layer_backward", at, "hidden_gradient") if layer < self.last else ("head", 0, self.head)
        if name == f"{self.embedded}_gradient" and launch.block == "embedding_backward":
            return ("layer_backward", self.last, "hidden_gradient")
        block = self.maker[name]
        iteration = {"layer": layer, "layer_backward": self.last - layer}.get(block, 0)
        return (block, iteration, name)


def expected(graph: Graph, kernels: tuple[Kernel, ...], step: Step) -> dict[str, tuple[int, int, int, int]]:
    """Of each tensor between kernels: size, first, last, moved."""
    replay, run = Replay(graph), launches(kernels)
    reads: dict[Made, list[int]] = {}
    for now, launch in enumerate(run):
        for tensor in launch.outside():
            reads.setdefault(replay.made(launch, tensor.name), []).append(now)
    used = {tensor.name for block in graph.blocks for op in block.operators for tensor in op.inputs}
    found = {}
    for now, launch in enumerate(run):
        for tensor in (tensor for op in launch.operators for tensor in op.outputs if not in_place(tensor)):
            made = (launch.block, launch.iteration, tensor.name)
            readers = reads.pop(made, [])
            assert all(reader > now for reader in readers), f"{made} is read before it is written"
            if not readers and tensor.name in used:
                continue  # it stays inside
            part = {"tokens": step.tokens, "pairs": step.pairs, "constant": 1}[tensor.per]
            size = part * math.prod(tensor.shape) * DTYPES[tensor.dtype]
            repeated = launch.block.startswith("layer") and replay.last > 0
            label = f"{launch.block}[{launch.iteration}]" if repeated else launch.block
            found[f"{label}.{tensor.name}"] = (size, now, max([now, *readers]), size * (1 + len(readers)))
    assert not reads, "read but never written"
    return found


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(MODELS)),
    layers=st.integers(1, 4),
    degree=st.sampled_from([1, 3, 8]),
    level=st.sampled_from(LEVELS),
    batch=st.integers(1, 3),
)
def test_what_is_between_kernels_lives_from_its_maker_to_its_last_reader(
    name: str, layers: int, degree: int, level: str, batch: int
) -> None:
    graph, step = train(replace(MODELS[name], layers=layers), degree), training_step(batch, 64)
    kernels = compile_graph(graph, MACHINE, degree, level, "ho").prefill_kernels(step)
    every = schedule(kernels, step).symbols
    end = len(launches(kernels)) - 1
    held = [symbol for symbol in every if symbol.name.endswith(".weights")]
    between = {s.name: (s.size, s.first, s.last, s.moved) for s in every if not s.name.endswith(".weights")}
    assert between == expected(graph, kernels, step)
    assert sum(symbol.size for symbol in held) == graph.weight_bytes
    assert {(symbol.first, symbol.last) for symbol in held} == {(0, end)}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("tied", [False, True])
def test_weights_are_moved_forward_backward_and_by_the_optimizer(level: str, tied: bool) -> None:
    """Three times 2 bytes a parameter, of the state twice 12; of the table the rows of tokens, and what Adam writes."""
    shape, tokens = replace(MODELS["llama-2-7b"], layers=2, tied_embeddings=tied), 64
    graph, step = train(shape, 8), training_step(1, tokens)
    kernels = compile_graph(graph, MACHINE, 8, level, "ho").prefill_kernels(step)
    moved = {s.name: s.moved for s in schedule(kernels, step).symbols if s.name.endswith(".weights")}
    table = 125 * 256
    sizes = {"q_proj": 256 * 32, "v_proj": 256 * 32, "down_proj": 64 * 256, "attention_norm": 256}
    for layer in range(2):
        for op, elements in sizes.items():
            assert moved[f"layer[{layer}].{op}.weights"] == 6 * elements
            assert moved[f"layer_optimizer[{layer}].{op}_adam.weights"] == 24 * elements
    assert moved["optimizer.embedding_adam.weights"] == 24 * table
    assert moved["embedding.embedding.weights"] == 2 * 256 * tokens + 2 * table + (4 * table if tied else 0)
    assert moved.get("head.lm_head.weights") == (None if tied else 6 * table)
    assert moved["head.final_norm.weights"] == 6 * 256


@pytest.mark.parametrize("room", [1.0, 0.9, 0.5])
def test_what_does_not_fit_spills_in_the_order_of_bytes_moved(room: float) -> None:
    graph, step = train(replace(MODELS["llama-2-7b"], layers=3), 8), training_step(2, 64)
    every = schedule(compile_graph(graph, MACHINE, 8, "fused", "ho").prefill_kernels(step), step).symbols
    ample = plan_memory(every, 2**30, 2**30)
    plan = plan_memory(every, round(room * ample.hbm_bytes), 2**30)
    assert bool(plan.ddr) == (room < 1) and plan.hbm_bytes <= room * ample.hbm_bytes
    kept = [symbol.moved for symbol in every if symbol.name in plan.hbm]
    assert all(symbol.moved <= min(kept) for symbol in every if symbol.name in plan.ddr)

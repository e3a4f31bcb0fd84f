"""Does a training step do the work it should: twice forward in backward, gradients, collectives, Adam, kept tensors?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from node.dataflow.backward import backward
from node.dataflow.form import Step, total
from node.dataflow.graph import Graph, Operator, Tensor
from node.dataflow.program import compile_graph
from node.dataflow.traffic import Traffic
from node.errors import InputError
from node.models.decoder import decoder
from node.models.hugging_face import load_shape
from node.models.training import train, training_step
from node.spec_file import load_machine

MODELS = ("llama-2-7b", "llama-2-70b", "sparsegpt-13b", "falcon-40b", "bloom-176b", "mistral-7b")
STEP = training_step(2, 64)
LLAMA = load_shape("llama-2-7b")


def block(graph: Graph, name: str) -> tuple[Operator, ...]:
    return next(block.operators for block in graph.blocks if block.name == name)


def flops(operators: tuple[Operator, ...], kind: str, mode: str = "systolic") -> float:
    return total(op.flops for op in operators if (op.kind, op.mode) == (kind, mode)).at(STEP)


def named(operators: tuple[Operator, ...]) -> dict[str, Operator]:
    return {op.name: op for op in operators}


def test_a_step_of_two_sequences_attends_within_each() -> None:
    assert training_step(2, 4) == Step(tokens=8, pairs=2 * (1 + 2 + 3 + 4), context=8, sequences=2)
    assert training_step(1, 4, window=2).pairs == 1 + 2 + 2 + 2


@pytest.mark.parametrize("degree", [1, 3, 8])
@pytest.mark.parametrize("name", MODELS)
def test_backward_is_exactly_twice_the_gemms_of_forward(name: str, degree: int) -> None:
    graph = train(load_shape(name), degree)
    forward, back = block(graph, "layer"), block(graph, "layer_backward")
    biases = sum(op.matrix.columns for op in forward if op.kind == "gemm" and op.matrix and op.matrix.bias)
    assert flops(back, "gemm") == 2 * flops(forward, "gemm") - biases * STEP.tokens  # a bias: one sum either way
    assert flops(back, "attention") == 2 * flops(forward, "attention")
    head = named(block(graph, "head"))
    both = (head["lm_head_input_gradient"], head["lm_head_weight_gradient"])
    assert flops(both, "gemm") == 2 * head["lm_head"].flops.at(STEP)


def test_the_gemms_of_a_llama_step_by_hand() -> None:
    elements = 32 * (4 * 4096**2 + 3 * 4096 * 11008) + 32000 * 4096
    operators = [op for b in train(LLAMA).blocks for op in b.operators * b.repeat if op.kind == "gemm"]
    assert total(op.flops for op in operators).at(STEP) == 3 * 2 * elements * 128
    attention = [op for b in train(LLAMA).blocks for op in b.operators * b.repeat if op.kind == "attention"]
    pairs = 2 * 64 * 65 // 2
    products = total(op.flops for op in attention if op.mode == "systolic").at(STEP)
    assert products == 32 * 32 * pairs * 3 * (2 * 2 * 128)


@pytest.mark.parametrize("degree", [1, 8])
@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_is_made_once_before_it_is_read_or_enters(name: str, degree: int) -> None:
    graph = train(load_shape(name), degree)
    assert not any(b.in_decode for b in graph.blocks)
    assert total(op.kv_read + op.kv_write for b in graph.blocks for op in b.operators).at(STEP) == 0
    kept = {t.name for b in graph.blocks for op in b.operators for t in op.outputs if t.kept}
    for forward, back in (("layer", "layer_backward"), ("embedding", "embedding_backward")):
        entering = {t.name for op in block(graph, forward) for t in op.inputs}
        entering -= {t.name for op in block(graph, forward) for t in op.outputs}
        made: set[str] = set()
        outside: set[str] = set()
        for op in block(graph, back):
            outside |= {t.name for t in op.inputs} - made
            assert not made & {t.name for t in op.outputs}
            made |= {t.name for t in op.outputs}
        upstream = f"{block(graph, forward)[-1].outputs[0].name}_gradient"
        assert outside - kept - entering - {"lm_head_weight_gradient"} == {upstream}


@pytest.mark.parametrize("degree", [1, 2, 8])
@pytest.mark.parametrize("name", MODELS)
def test_every_weight_has_a_gradient_and_twelve_bytes_of_state(name: str, degree: int) -> None:
    shape = load_shape(name)
    graph, served = train(shape, degree), decoder(shape, degree)
    parameters = sum(op.matrix.elements * b.repeat for b in served.blocks for op in b.operators
                     if op.matrix and op.weights)  # fmt: skip
    assert graph.weight_bytes == served.weight_bytes + 12 * parameters
    adam = [op for b in graph.blocks for op in b.operators * b.repeat if op.name.endswith("_adam")]
    assert total(t.size for op in adam for t in op.inputs).constant == (2 + 12) * parameters
    assert total(t.size for op in adam for t in op.outputs).constant == (12 + 2) * parameters
    assert total(op.flops for op in adam).constant == 12 * parameters
    made = {t.name for b in graph.blocks for op in b.operators for t in op.outputs}
    assert {op.inputs[0].name for op in adam} <= made


def test_a_dense_step_trains_the_published_parameters() -> None:
    assert train(LLAMA).weight_bytes == (2 + 12) * 6_738_415_616


def test_sparse_weights_have_gradients_only_where_they_are_not_zero() -> None:
    layer = named(block(train(load_shape("sparsegpt-13b")), "layer_backward"))
    elements = 5120 * 20480 // 8
    weights, source = layer["up_proj_weight_gradient"], layer["up_proj_input_gradient"]
    assert weights.outputs[0].elements.constant == elements + 20480  # and the bias
    assert weights.flops.tokens == 2 * elements + 20480
    assert weights.weight_read.constant == 2 * elements  # the indices
    assert source.flops.tokens == 2 * elements
    assert source.weight_read.constant == 4 * elements


@pytest.mark.parametrize(
    ("name", "forward", "back"), [("llama-2-7b", 2, 2), ("bloom-176b", 2, 2), ("falcon-40b", 1, 2)]
)
def test_megatron_reduces_as_often_backward(name: str, forward: int, back: int) -> None:
    """Falcon's two norms each need the whole gradient of what they made."""
    for degree in (1, 8):
        graph = train(load_shape(name), degree)
        found = [
            [op for op in block(graph, which) if op.collective == "all_reduce"] for which in ("layer", "layer_backward")
        ]
        assert [len(ops) for ops in found] == ([0, 0] if degree == 1 else [forward, back])
        assert all(op.message.tokens == 2 * load_shape(name).hidden for ops in found for op in ops)


def test_the_head_works_on_all_tokens_and_reduces_three_numbers_of_each() -> None:
    head = named(block(train(LLAMA, 8), "head"))
    assert head["lm_head"].flops == head["lm_head"].rows * (2 * 4096 * 4000)
    assert head["lm_head"].rows.tokens == 1 and head["lm_head"].rows.sequences == 0
    assert head["loss_all_reduce"].message.at(STEP) == 128 * 3 * 4
    assert "logits_all_gather" not in head and "loss_all_reduce" not in named(block(train(LLAMA), "head"))
    assert head["normed_gradient_all_reduce"].message.tokens == 2 * 4096


def test_a_tied_head_adds_its_gradient_to_the_embeddings() -> None:
    graph = train(load_shape("sparsegpt-13b"), 8)
    table = named(block(graph, "embedding_backward"))["embedding_weight_gradient"]
    assert [tensor.name for tensor in table.inputs][-1] == "lm_head_weight_gradient"
    assert table.flops.constant == table.outputs[0].elements.constant == 6283 * 5120
    assert [op.name for op in block(graph, "optimizer")] == ["embedding_adam", "positions_adam", "final_norm_adam"]


def test_what_backward_reads_leaves_the_kernel_that_makes_it() -> None:
    layer = block(train(LLAMA), "layer")
    kept = {t.name for op in layer for t in op.outputs if t.kept}
    assert kept == {
        "attention_input", "q_rotated", "k_rotated", "v", "probabilities", "attended",
        "residual", "ffn_input", "gate", "up", "activated", "gated",
    }  # fmt: skip
    whole = [(0, len(layer) - 1)]
    unkept = tuple(replace(op, outputs=tuple(replace(t, kept=False) for t in op.outputs)) for op in layer)
    more = Traffic(layer, whole, STEP).forms(0, 1, 1.0) + Traffic(unkept, whole, STEP).forms(0, 1, 1.0) * -1
    assert more.tokens == 2 * (7 * 4096 + 4 * 11008)
    assert more.pairs == 2 * 32


def test_gradients_are_as_large_as_what_they_are_of() -> None:
    forward = {t.name: t for op in block(train(LLAMA, 8), "layer") for t in (*op.inputs, *op.outputs)}
    for op in block(train(LLAMA, 8), "layer_backward"):
        for tensor in op.outputs:
            source = forward.get(tensor.name.split("_gradient", maxsplit=1)[0])
            if source and tensor.per != "constant":
                assert (tensor.per, tensor.shape) == (source.per, source.shape)


def test_tiles_cut_what_adam_reads_and_writes_but_not_a_sum_over_all_of_them() -> None:
    """A quarter of 4096 x 4096 elements: 2 bytes of gradient and 12 of state in, 2 of weight and 12 of state out."""
    adam, back = (named(block(train(LLAMA), of)) for of in ("layer_optimizer", "layer_backward"))
    update, product = adam["o_proj_adam"], back["o_proj_weight_gradient"]
    made, entering = Traffic([update], [(0, 0)], STEP).buffers(np.array([1.0, 4.0]))
    assert made.tolist() == entering[0].tolist() == [[14 * 4096**2], [14 * 4096**2 / 4]]
    made, entering = Traffic([product, update], [(0, 1)], STEP).buffers(np.array([4.0]))
    assert made.tolist() == [[2 * 4096**2, 14 * 4096**2]]
    assert entering[0].tolist() == [[2 * 2 * 4096 * 128 / 4, 12 * 4096**2]]


@pytest.mark.parametrize("name", ["llama-2-7b", "sparsegpt-13b"])
def test_fused_the_optimizer_of_a_layer_is_one_kernel_that_moves_what_it_must(name: str) -> None:
    graph, machine = train(load_shape(name), 8), load_machine("sn40l-node")
    kernels = compile_graph(graph, machine, 8, "fused", "ho").prefill_kernels(STEP)
    for of in ("layer_optimizer", "optimizer"):
        (kernel,) = (kernel for kernel in kernels if kernel.block.name == of)
        elements = total(op.inputs[0].elements for op in block(graph, of)).constant
        assert kernel.hbm.at(STEP) == 28 * elements


def test_what_has_no_gradient_is_told() -> None:
    with pytest.raises(ValueError, match="operator sort: rowwise has no gradient; these have: gemm"):
        backward(Operator("sort", "rowwise", (), ()), (Tensor("x", "tokens", (1,)),))
    with pytest.raises(InputError, match=r"model llava-1.5-7b: training of a model with a vision tower"):
        train(load_shape("llava-1.5-7b"))

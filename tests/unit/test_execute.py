"""Does a compiled pass mean the same however it is cut: into kernels, into shards, into steps?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from node.dataflow.batch import Batch
from node.dataflow.execute import run
from node.dataflow.fusion import LEVELS
from node.dataflow.graph import Operator
from node.dataflow.meaning.compute import MEANINGS
from node.dataflow.meaning.exchange import EXCHANGES, exchange
from node.dataflow.operators import activation, collective
from node.dataflow.schedule import schedule
from node.errors import InputError, InvariantError
from node.models.checkpoint import weights_of
from node.models.decoder import decoder
from node.models.hugging_face import load_shape, model_names
from node.models.monarch import load_transform, monarch, transform_names
from node.models.shape import Shape
from node.models.training import train
from node.models.weights import shard
from tests.functional import Array, Group, group
from tests.lockstep import lockstep

LENGTHS, TOKENS = (5, 2), [3, 1, 4, 1, 5, 9, 2]
X, Y = activation("x", 2), activation("y", 2)


def _shape(family: str) -> Shape:
    return Shape("tiny", 2, 20, 5, 5 if family == "bloom" else 1, 4, 30, 11, 64, family=family)


def _served(shape: Shape, degree: int, level: str) -> Group:
    """Random weights, the same for every degree: by the operator's name and layer."""
    graph = decoder(shape)
    wholes: dict[tuple[str, int], Array] = {}
    random = np.random.default_rng(4)
    for block in graph.blocks:
        for layer in range(block.repeat):
            for op in block.operators:
                if op.matrix is not None and op.weights:
                    size = (op.matrix.rows + op.matrix.bias, op.matrix.columns)
                    wholes[op.name, layer] = random.normal(size=size).astype(np.float32) / 3

    def weights(rank: int, _: str, layer: int, op: Operator) -> Array:
        return shard(op, wholes[op.name, layer], shape, degree, rank)

    return group(lambda rank: decoder(shape, degree, rank), weights, degree, level)


def _prefilled(sockets: Group) -> Array:
    sockets.run(Batch(LENGTHS, (0, 0)), TOKENS)
    return sockets.made("head.all_logits" if len(sockets.graphs) > 1 else "head.logits")


@pytest.mark.parametrize("family", ["llama", "falcon", "bloom", "gpt"])
def test_shards_and_kernels_change_nothing(family: str) -> None:
    expected = _prefilled(_served(_shape(family), 1, "unfused"))
    for degree, level in ((1, "fused"), (2, "unfused"), (3, "conventional"), (5, "looped"), (7, "fused")):
        np.testing.assert_allclose(_prefilled(_served(_shape(family), degree, level)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("degree", [1, 3])
def test_a_model_of_one_layer_is_one_block_to_a_fuser_and_means_the_same(degree: int) -> None:
    """Its layer reads what the embedding hands on, and the head what the layer does, though neither is named so."""
    shape = replace(_shape("llama"), layers=1)
    expected = _prefilled(_served(shape, 1, "unfused"))
    np.testing.assert_allclose(_prefilled(_served(shape, degree, "fused")), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("level", LEVELS)
def test_a_prompt_token_by_token_is_the_prompt_at_once(level: str) -> None:
    expected, sockets = _prefilled(_served(_shape("llama"), 2, level)), _served(_shape("llama"), 2, level)
    sockets.run(Batch((2, 1), (0, 0)), [3, 1, 9])
    for before, tokens in (((2, 1), [4, 2]), ((3,), [1]), ((4,), [5])):
        sockets.run(Batch((1,) * len(before), before), tokens, decoding=True)
        if len(before) == 2:
            second = sockets.made("head.all_logits")[1]
    np.testing.assert_allclose(sockets.made("head.all_logits")[0], expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(second, expected[1], rtol=1e-4, atol=1e-5)


def test_every_operator_of_every_model_has_a_meaning() -> None:
    graphs = [decoder(load_shape(name), 8) for name in model_names()]
    graphs += [train(load_shape(name), 8) for name in ("llama-2-7b", "llama-3-8b", "sparsegpt-13b")]
    graphs += [monarch(load_transform(name)) for name in transform_names()]
    for graph in graphs:
        for block in graph.blocks:
            for op in block.operators:
                assert op.meaning in (EXCHANGES if op.collective else MEANINGS), (graph.name, op.name)


def test_sockets_at_different_collectives_are_found() -> None:
    brought = [(collective(name, "all_reduce", X, Y), np.zeros((1, 2), np.float32)) for name in ("one", "other")]
    with pytest.raises(InvariantError, match=r"different collectives: \[\('one', 'all_reduce'\), \('other'"):
        exchange(brought)


def test_a_socket_that_ends_before_the_others_is_found() -> None:
    """One of two does not run its last all-reduce."""
    sockets = _served(_shape("llama"), 2, "unfused")
    runs = []
    for rank, content in enumerate(sockets.contents):
        content.batch, content.tokens = Batch(LENGTHS, (0, 0)), np.array(TOKENS)
        launches = schedule(sockets.kernels(rank, decoding=False), content.batch.step).launches
        runs.append(run(launches[: len(launches) - 4 * rank], content))
    with pytest.raises(InvariantError, match="1 of 2 sockets ended before the others"):
        lockstep(runs)


def test_a_collective_that_brings_too_little_is_found() -> None:
    sockets = _served(_shape("llama"), 2, "fused")
    content = sockets.contents[0]
    content.batch, content.tokens = Batch(LENGTHS, (0, 0)), np.array(TOKENS)
    going = run(schedule(sockets.kernels(0, decoding=False), content.batch.step).launches, content)
    next(going)
    with pytest.raises(
        InvariantError, match=r"embedding_all_reduce made embedding_sum of shape \(7, 19\), not \(7, 20\)"
    ):
        going.send(np.zeros((7, 19), np.float32))


def test_a_checkpoint_that_lacks_a_tensor_is_named() -> None:
    tensors: dict[str, Array] = {}
    with pytest.raises(InputError, match=r"tiny: its checkpoint has no tensor model.layers.1.self_attn.q_proj.weight"):
        weights_of("q_proj", 1, _shape("llama"), tensors.__getitem__)


def test_a_family_without_known_checkpoints_is_named() -> None:
    with pytest.raises(InputError, match="checkpoints of gpt are not known; llama, bloom, falcon"):
        weights_of("q_proj", 0, _shape("gpt"), {}.__getitem__)


@pytest.mark.parametrize("degree", [1, 2, 3, 5, 7])
def test_shards_of_a_matrix_are_the_matrix(degree: int) -> None:
    """Columns and rows of all ranks in order; a bias of split rows once."""
    shape = replace(_shape("bloom"), heads=5, kv_heads=5)
    graph = decoder(shape)
    layer = next(block for block in graph.blocks if block.name == "layer")
    for op in layer.operators:
        if op.matrix is None:
            continue
        whole = np.random.default_rng(5).normal(size=(op.matrix.rows + op.matrix.bias, op.matrix.columns))
        parts = [shard(op, whole.astype(np.float32), shape, degree, rank) for rank in range(degree)]
        if op.name in ("o_proj", "down_proj"):
            rows = np.concatenate([part[:-1] for part in parts])
            np.testing.assert_allclose(rows, whole[:-1], rtol=1e-6)
            np.testing.assert_allclose(sum(part[-1] for part in parts), whole[-1], rtol=1e-6)
        elif "norm" not in op.name:
            np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, rtol=1e-6)

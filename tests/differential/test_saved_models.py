"""Folders that transformers wrote: are its tensors read, and do our graphs compute its logits from them?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cluster.checkpoints.load import load_checkpoint
from node.dataflow.batch import Batch
from node.dataflow.graph import Operator
from node.models.checkpoint import weights_of
from node.models.decoder import decoder
from node.models.weights import Array, shard
from tests.functional import group

DECODERS = ("llama", "llama-3.1", "mistral", "falcon-40b", "falcon-7b", "bloom")


@pytest.mark.parametrize("name", DECODERS)
def test_tensors_and_logits(answers: Path, name: str) -> None:
    model, known = load_checkpoint(answers / name), np.load(answers / name / "answers.npz")
    weights = dict(np.load(answers / name / "weights.npz"))
    assert model.shape.name == name and set(model.stored) <= set(weights)
    for tensor in model.stored:
        np.testing.assert_array_equal(model.tensor(tensor), weights[tensor])
    assert model.parameters == sum(weights[tensor].size for tensor in model.stored)

    def of(rank: int, _: str, layer: int, op: Operator) -> Array:
        return shard(op, weights_of(op.name, layer, model.shape, model.tensor), model.shape, 2, rank)

    sockets = group(lambda rank: decoder(model.shape, 2, rank), of, 2)
    prompt = known["prompt2"]
    sockets.run(Batch((len(prompt),), (0,), model.shape.sliding_window), prompt)
    expected = known["logits2"][0]
    found = sockets.made("head.all_logits")[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * float(np.abs(expected).max()))


@pytest.mark.parametrize("name", DECODERS)
def test_half_precision_in_several_files(answers: Path, name: str) -> None:
    whole = load_checkpoint(answers / name)
    for kind, bits in (("bf16", 8), ("f16", 11)):
        folder = answers / name / kind
        assert len(list(folder.glob("*.safetensors"))) > 1
        model = load_checkpoint(folder)
        assert sorted(model.stored) == sorted(whole.stored) and model.parameters == whole.parameters
        for tensor in model.stored:
            found = model.tensor(tensor)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, whole.tensor(tensor), rtol=2.0**-bits, atol=2.0**-25, err_msg=tensor)
            if kind == "bf16":
                assert not (found.view(np.uint32) & 0xFFFF).any()


def test_bloom_as_it_was_published(answers: Path, tmp_path: Path) -> None:
    """bigscience/bloom leaves out the prefix that weights of other BLOOMs have."""
    content = (answers / "bloom" / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].replace(b'"transformer.', b'"').ljust(length)
    (tmp_path / "model.safetensors").write_bytes(content[:8] + header + content[8 + length :])
    (tmp_path / "config.json").write_bytes((answers / "bloom" / "config.json").read_bytes())
    found, known = load_checkpoint(tmp_path), load_checkpoint(answers / "bloom")
    assert sorted(found.stored) == sorted(known.stored)

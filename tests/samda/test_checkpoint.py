"""Is an expert on disk the one that was trained, to the emulator too, and what is said of one that is damaged?"""

import json
from dataclasses import replace

import pytest

pytest.importorskip("torch", reason="no PyTorch here: make samda installs it")

import torch

from cluster.checkpoints.safetensors_file import read_safetensors
from node.errors import InputError
from samda.checkpoint import Expert, load_expert, save_expert
from samda.composition import Composition, EncoderFacts, composed
from samda.inference import logits
from tests.samda.drawn import Blurred, Kept, disc_case, tiny_plan

PLAN = replace(tiny_plan([disc_case(0)]), batch=3)


def _expert(kind="adapter"):
    composition = Composition() if kind == "plain" else Composition(kind, EncoderFacts.of(Blurred()), 4)
    model = composed(PLAN.unet, composition, seed=7)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    if model.adapter is not None:
        model.adapter.standardise_by([torch.rand(2, 3, 3)])
    return Expert(PLAN, composition, model, {"images": 3})


@pytest.mark.parametrize("kind", ["plain", "concat", "adapter"])
def test_an_expert_comes_back_as_it_was(tmp_path, kind):
    expert = _expert(kind)
    save_expert(tmp_path, expert)
    found = load_expert(tmp_path)
    assert (found.plan, found.composition, found.trained) == (expert.plan, expert.composition, {"images": 3})
    embeddings, case = None if kind == "plain" else Kept(Blurred()), disc_case(2)
    assert torch.equal(logits(found.model, PLAN, case, embeddings), logits(expert.model, expert.plan, case, embeddings))


def test_the_files_are_what_the_emulator_reads(tmp_path):
    expert = _expert()
    save_expert(tmp_path, expert)
    record = json.loads((tmp_path / "expert.json").read_text())
    assert (record["format"], record["kind"], record["patch"]) == (1, "samda-expert", [64, 64])
    assert record["unet"] == {
        "input_channels": 1, "features": [4, 8, 8], "strides": [1, 2, 2], "kernel": 3, "convs_encoder": [2, 2, 2],
        "convs_decoder": [2, 2], "classes": 2, "norm_epsilon": 1e-5, "leaky_slope": 0.01,
    }  # fmt: skip
    encoder = {"name": "blurred", "hash": "0" * 64, "channels": 2, "stride": 8}
    assert record["composition"] == {"kind": "adapter", "encoder": encoder, "adapter": {"hidden": 4}}
    stored, state = read_safetensors(tmp_path / "expert.safetensors"), expert.model.state_dict()
    assert {"unet.encoder.stages.0.0.convs.0.conv.weight", "unet.decoder.seg_layers.1.bias", "adapter.mean"} < set(
        stored
    )
    for name, tensor in stored.items():
        assert torch.equal(torch.from_numpy(tensor.read().copy()), state[name])
    assert sum(torch.tensor(tensor.shape).prod() for tensor in stored.values()) == 2 * 2 + sum(
        weight.numel() for weight in expert.model.parameters()
    )


def _edit(path, change):
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda record: record.update(kind="llama"), "is no expert of format 1"),
        (lambda record: record.update(format=2), "is no expert of format 1"),
        (lambda record: record.pop("patch"), "describes no expert that can be made: KeyError"),
        (lambda record: record.update(patch=[62, 64]), r"patch 62 x 64 must be of multiples of 4"),
        (lambda record: record["composition"].update(kind="sum"), "must be of"),
        (lambda record: record["unet"].update(depth=4), "describes no expert"),
        (lambda record: record["unet"].update(features=[4, 8, 16]), r"is \(8, 8, 3, 3\), but .* \(16, 8, 3, 3\)"),
        (lambda record: record["unet"].update(features=[4, 8, 8, 8], strides=[1, 2, 2, 2], convs_encoder=[2] * 4,
                                              convs_decoder=[2] * 3), "lacks the tensor|but expert.json"),
    ],
)  # fmt: skip
def test_an_expert_that_cannot_be_used_is_one_line(tmp_path, change, said):
    save_expert(tmp_path, _expert())
    _edit(tmp_path / "expert.json", change)
    with pytest.raises(InputError, match=said) as told:
        load_expert(tmp_path)
    assert "\n" not in str(told.value)


def test_files_that_are_not_there_or_no_expert_are_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load_expert(tmp_path)
    save_expert(tmp_path, _expert())
    (tmp_path / "expert.safetensors").write_bytes(b"short")
    with pytest.raises(InputError, match="is no safetensors file"):
        load_expert(tmp_path)
    (tmp_path / "expert.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        load_expert(tmp_path)

"""Are Falcon, BLOOM and LLaVA the models that were published: parameters, layers, shards, HF configs?"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from node.dataflow.form import Step
from node.dataflow.program import compile_graph
from node.errors import InputError
from node.models.decoder import decoder
from node.models.hugging_face import load_shape
from node.models.shape import Shape
from node.spec_file import load_machine

KEYS = ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocabulary", "context")
SIZES = [f"{key} = 8" for key in KEYS]
Write = Callable[..., str]
# from the models' own config.json; what is left out here is what the file leaves to its defaults
FALCON_40B = {
    "model_type": "falcon",
    "num_hidden_layers": 60,
    "hidden_size": 8192,
    "num_attention_heads": 128,
    "num_kv_heads": 8,
    "new_decoder_architecture": True,
    "vocab_size": 65024,
    "parallel_attn": True,
    "bias": False,
    "alibi": False,
}
FALCON_7B = {
    "model_type": "falcon",
    "num_hidden_layers": 32,
    "hidden_size": 4544,
    "num_attention_heads": 71,
    "multi_query": True,
    "vocab_size": 65024,
}
BLOOM = {"model_type": "bloom", "n_layer": 70, "n_embed": 14336, "num_attention_heads": 112, "vocab_size": 250880}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(config: dict[str, object], **changed: object) -> str:
        path = tmp_path / "config.json"
        path.write_text(json.dumps({**config, **changed}))
        return str(path)

    return write


def parameters(shape: Shape) -> int:
    return decoder(shape, weight_bytes=1.0).weight_bytes


def test_falcon_40b_has_its_published_parameters() -> None:
    fused_qkv, dense, ffn, norms = 8192 * (128 + 2 * 8) * 64, 8192**2, 2 * 8192 * 4 * 8192, 2 * 2 * 8192
    by_hand = 60 * (fused_qkv + dense + ffn + norms) + 65024 * 8192 + 2 * 8192
    assert parameters(load_shape("falcon-40b")) == by_hand == 41_303_293_952


def test_bloom_has_its_published_parameters() -> None:
    hidden = 14336
    layer = 12 * hidden**2 + 9 * hidden + 4 * hidden  # four matrices of attention, FFN; their biases; two norms
    by_hand = 70 * layer + 250880 * hidden + 2 * 2 * hidden
    assert parameters(load_shape("bloom-176b")) == by_hand == 176_247_271_424


def test_llava_has_its_published_parameters() -> None:
    tower_layer = 4 * (1024**2 + 1024) + 2 * 1024 * 4096 + 4096 + 1024 + 4 * 1024
    tower = 24 * tower_layer + 3 * 14**2 * 1024 + 577 * 1024 + 1024 + 2 * 2 * 1024
    projector = 1024 * 4096 + 4096 + 4096**2 + 4096
    language = 6_738_415_616 + 64 * 4096 * 2  # Llama-2-7B with 64 more words, in and out
    assert parameters(load_shape("llava-1.5-7b")) == language + projector + tower == 7_063_427_072


def test_the_hugging_face_configs_are_the_built_in_models(write: Write) -> None:
    for name, config in (("falcon-40b", FALCON_40B), ("bloom-176b", BLOOM)):
        built_in = load_shape(name)
        assert load_shape(write(config)) == replace(built_in, name=load_shape(write(config)).name, parameters=None)


def test_falcon_7b_shares_one_kv_head_and_one_norm(write: Write) -> None:
    shape = load_shape(write(FALCON_7B))
    assert (shape.kv_heads, shape.traits.two_norms) == (1, False)
    assert parameters(shape) == 6_921_720_704
    assert len(decoder(shape).blocks[1].operators) == len(decoder(load_shape("falcon-40b")).blocks[1].operators) - 1


@pytest.mark.parametrize(
    ("config", "changed", "said"),
    [
        (FALCON_40B, {"alibi": True}, "alibi = true: is not supported; only false is"),
        (FALCON_40B, {"bias": True}, "bias = true"),
        (FALCON_7B, {"parallel_attn": False}, "parallel_attn = false: is not supported; only true is"),
        (FALCON_40B, {"num_kv_heads": 7}, "num_attention_heads = 128: must be a multiple of num_kv_heads = 7"),
        (FALCON_40B, {"num_hidden_layers": None}, "num_hidden_layers = None: must be a positive int"),
        (BLOOM, {"n_layer": 0}, "n_layer = 0: must be a positive int"),
        (BLOOM, {"apply_residual_connection_post_layernorm": True}, "only false is"),
    ],
)
def test_what_is_not_supported_is_told_in_the_files_own_words(
    write: Write, config: dict[str, object], changed: dict[str, object], said: str
) -> None:
    with pytest.raises(InputError) as caught:
        load_shape(write(config, **changed))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_parallel_layer_reduces_once_and_a_serial_one_twice() -> None:
    reduced = {
        name: sum(op.collective == "all_reduce" for op in decoder(load_shape(name), 8).blocks[-2].operators)
        for name in ("falcon-40b", "bloom-176b", "llava-1.5-7b")
    }
    assert reduced == {"falcon-40b": 1, "bloom-176b": 2, "llava-1.5-7b": 2}


@pytest.mark.parametrize("name", ["falcon-40b", "bloom-176b", "llava-1.5-7b"])
@pytest.mark.parametrize("degree", [2, 5, 8, 16])
def test_shards_add_up_but_for_what_every_socket_holds(name: str, degree: int) -> None:
    shape = load_shape(name)
    shards = [decoder(shape, degree, rank, weight_bytes=1.0).weight_bytes for rank in range(degree)]
    whole = parameters(shape)
    replicated = sum(shards) - whole
    assert 0 <= replicated < 0.02 * degree * whole
    assert max(shards) < whole / degree * 1.2


def test_what_a_layer_adds_is_read_by_the_next_operators() -> None:
    """No operator reads a tensor that nothing made, but for the input of its block."""
    for name in ("falcon-40b", "bloom-176b", "llava-1.5-7b", "llama-2-7b", "sparsegpt-13b"):
        for block in decoder(load_shape(name), 8).blocks:
            made: set[str] = set()
            outside = set()
            for operator in block.operators:
                outside |= {tensor.name for tensor in operator.inputs} - made
                made |= {tensor.name for tensor in operator.outputs}
            sources = 2 if block.name in ("image_tokens", "projector") else 1
            assert len(outside) <= sources, (name, block.name, outside)


def test_the_vision_tower_runs_with_the_prompt_and_not_with_each_token() -> None:
    machine = load_machine("sn40l-node")
    llava, llama = (
        compile_graph(decoder(load_shape(name), 8), machine, 8, "fused", "ho")
        for name in ("llava-1.5-7b", "llama-2-7b")
    )
    prompt = Step(1000, 1000 * 1001 // 2, 1000, 1)
    assert llava.prefill(prompt)[0] > llama.prefill(prompt)[0]
    launches = [sum(kernel.repeat for kernel in program.decode_kernels(1, 1000)) for program in (llava, llama)]
    assert launches == [34, 34]
    more_words = 64 * 4096 * 2 / 8 / (machine.hbm.bandwidth * machine.hbm.efficiency) * 1e12
    logits = 64 * 2 / (machine.hbm.bandwidth * machine.hbm.efficiency) * 1e12
    slower = llava.decode(1).run_ps(1000, 1, 1) - llama.decode(1).run_ps(1000, 1, 1)
    assert slower == pytest.approx(more_words + logits, rel=0.05)


def test_the_tower_does_the_work_of_577_positions() -> None:
    block = next(block for block in decoder(load_shape("llava-1.5-7b")).blocks if block.name == "vision_layer")
    flops = {op.name: op.flops.at(Step(0, 0, 0, 1)) for op in block.operators}
    assert flops["vision_q_proj"] == 577 * (2 * 1024 * 1024 + 1024)
    assert flops["vision_scores"] == 2 * 16 * 577 * 577 * 64
    assert flops["vision_up_proj"] == 577 * (2 * 1024 * 4096 + 4096)


@pytest.mark.parametrize(
    ("vision", "said"),
    [
        ("3", "must be a table of exactly layers, hidden"),
        ("{ layers = 1 }", "must be a table of exactly"),
        ("{ layers = 1, hidden = 8, heads = 2, ffn = 9, image = 4, patch = 0 }", "vision.patch = 0"),
        ("{ layers = 1, hidden = 9, heads = 2, ffn = 9, image = 4, patch = 2 }", "heads must divide hidden"),
    ],
)
def test_a_wrong_vision_tower_is_told(tmp_path: Path, vision: str, said: str) -> None:
    path = tmp_path / "m.toml"
    sizes = [
        f"{key} = 8" for key in ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocabulary", "context")
    ]
    path.write_text("\n".join(['name = "m"', *sizes, f"vision = {vision}"]))
    with pytest.raises(InputError) as caught:
        load_shape(str(path))
    assert said in str(caught.value) and str(path) in str(caught.value)


def test_an_unknown_family_is_told(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    sizes = [
        f"{key} = 8" for key in ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocabulary", "context")
    ]
    path.write_text("\n".join(['name = "m"', *sizes, 'family = "gpt-2"']))
    with pytest.raises(InputError, match="family = 'gpt-2': must be one of llama, falcon"):
        load_shape(str(path))

"""Has a model the size that was published, and do the shards of a tensor-parallel group add up to it?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.dataflow.form import Step
from node.dataflow.graph import share
from node.errors import InputError
from node.models.decoder import decoder
from node.models.hugging_face import load_shape
from node.models.shape import Shape, model_names
from node.models.shard import Shard

# name: layers, hidden, heads, KV heads, FFN, vocabulary, parameters; from the models' own config.json and weights
PUBLISHED = {
    "llama-2-7b": (32, 4096, 32, 32, 11008, 32000, 6_738_415_616),
    "llama-2-70b": (80, 8192, 64, 8, 28672, 32000, 68_976_648_192),
    "llama-3-8b": (32, 4096, 32, 8, 14336, 128256, 8_030_261_248),
    "llama-3-70b": (80, 8192, 64, 8, 28672, 128256, 70_553_706_496),
    "llama-3.1-405b": (126, 16384, 128, 8, 53248, 128256, 405_853_388_800),
    "mistral-7b": (32, 4096, 32, 8, 14336, 32000, 7_241_732_096),
}
HF = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 48,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 100,
    "vocab_size": 70,
    "max_position_embeddings": 512,
}
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A config.json with what differs from ``HF``; ``...`` leaves a key out."""

    def write(**changed: object) -> str:
        path = tmp_path / "config.json"
        path.write_text(json.dumps({key: value for key, value in {**HF, **changed}.items() if value is not ...}))
        return str(path)

    return write


def complaint(name: str) -> str:
    with pytest.raises(InputError) as caught:
        load_shape(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def weights(shape: Shape, degree: int, rank: int) -> int:
    """Bytes of a shard at one byte a weight."""
    return decoder(shape, degree, rank, weight_bytes=1.0).weight_bytes


# The built-in models


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_built_in_model_has_exactly_the_published_parameters(name: str) -> None:
    layers, hidden, heads, kv_heads, ffn, vocabulary, parameters = PUBLISHED[name]
    attention = 2 * hidden * heads * 128 + 2 * hidden * kv_heads * 128
    layer = attention + 3 * hidden * ffn + 2 * hidden
    assert layers * layer + 2 * vocabulary * hidden + hidden == parameters
    shape = load_shape(name)
    assert weights(shape, 1, 0) == parameters == shape.parameters
    assert decoder(shape).weight_bytes == 2 * parameters  # BF16
    assert (shape.name, shape.heads, shape.head_dim) == (name, heads, 128)
    assert decoder(shape).kv_bytes_per_token == 2 * layers * kv_heads * 128 * 2


def test_the_built_in_models_are_these_and_only_mistral_has_a_window() -> None:
    assert set(PUBLISHED) <= set(model_names())
    windows = {name: load_shape(name).sliding_window for name in PUBLISHED}
    assert windows == {**dict.fromkeys(PUBLISHED), "mistral-7b": 4096}
    assert decoder(load_shape("mistral-7b")).window == 4096
    contexts = [load_shape(name).context for name in sorted(PUBLISHED)]
    assert contexts == [4096, 4096, 8192, 8192, 131072, 32768]


def test_a_token_of_llama_takes_this_much_kv_cache() -> None:
    assert decoder(load_shape("llama-2-7b")).kv_bytes_per_token == 512 * 1024
    assert decoder(load_shape("llama-2-7b"), 8, 3).kv_bytes_per_token == 64 * 1024
    assert decoder(load_shape("llama-3-8b")).kv_bytes_per_token == 128 * 1024
    assert decoder(load_shape("llama-3-8b"), 8, 3).kv_bytes_per_token == 16 * 1024
    assert decoder(load_shape("llama-3-8b"), 16, 3).kv_bytes_per_token == 16 * 1024  # 8 KV heads, each held twice


@pytest.mark.parametrize(("degree", "operators"), [(1, 18), (2, 20), (8, 20)])
def test_a_layer_is_twenty_operators_two_of_them_collectives(degree: int, operators: int) -> None:
    graph = decoder(load_shape("llama-2-7b"), degree)
    embedding, layer, head = graph.blocks
    assert (len(layer.operators), layer.repeat) == (operators, 32)
    collectives = [[op.collective for op in block.operators if op.collective] for block in graph.blocks]
    assert collectives == ([["all_reduce"], ["all_reduce"] * 2, ["all_gather"]] if degree > 1 else [[], [], []])
    ends = len(embedding.operators) + len(head.operators)
    assert graph.operator_count == 32 * operators + ends and ends == (5 if degree > 1 else 3)


def test_a_collective_carries_the_activation_of_every_token() -> None:
    graph = decoder(load_shape("llama-2-7b"), 8, 0)
    step = Step(tokens=10, pairs=0, context=0, sequences=3)
    sizes = [op.message.at(step) for block in graph.blocks for op in block.operators if op.collective]
    assert sizes == [10 * 4096 * 2, 10 * 4096 * 2, 10 * 4096 * 2, 3 * 4000 * 2]


@pytest.mark.parametrize("model", model_names())
def test_no_collective_grows_with_the_context_of_a_decode_step(model: str) -> None:
    """Or one kind of all-reduce would not serve all steps of a batch, which are summed in closed form."""
    messages = [op.message for block in decoder(load_shape(model), 8).blocks for op in block.operators if op.collective]
    assert messages and all(message.per_context == 0 for message in messages)


# Shards

SHAPES = st.builds(
    lambda kv_heads, group, head_dim, layers, ffn, vocabulary, tied: Shape(
        name="random",
        layers=layers,
        hidden=24,
        heads=kv_heads * group,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn=ffn,
        vocabulary=vocabulary,
        context=128,
        tied_embeddings=tied,
    ),
    st.integers(1, 8),
    st.integers(1, 8),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 60),
    st.integers(1, 60),
    st.booleans(),
)


@given(items=st.integers(0, 100), parts=st.integers(1, 16))
def test_parts_follow_each_other_and_differ_by_one_at_most(items: int, parts: int) -> None:
    ranges = [share(items, parts, part) for part in range(parts)]
    assert [item for part in ranges for item in part] == list(range(items))
    sizes = [len(part) for part in ranges]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] - sizes[-1] <= 1


@given(shape=SHAPES, degree=st.integers(1, 16))
def test_the_shards_of_a_group_add_up_to_the_model(shape: Shape, degree: int) -> None:
    shards = [Shard.of(shape, degree, rank) for rank in range(degree)]
    assert sum(shard.heads for shard in shards) == shape.heads
    assert sum(shard.ffn for shard in shards) == shape.ffn
    assert sum(shard.vocabulary for shard in shards) == shape.vocabulary
    # a KV head is held wherever one of its query heads is
    queries = [share(shape.heads, degree, rank) for rank in range(degree)]
    kv_heads = [{head * shape.kv_heads // shape.heads for head in heads} for heads in queries]
    assert [shard.kv_heads for shard in shards] == [len(held) for held in kv_heads]
    assert set().union(*kv_heads) == set(range(shape.kv_heads))
    # in the whole group: the model, a copy of the norms for each other socket, and KV heads held more than once
    norms = (2 * shape.layers + 1) * shape.hidden
    replicas = sum(len(held) for held in kv_heads) - shape.kv_heads
    extra = (degree - 1) * norms + replicas * 2 * shape.layers * shape.hidden * shape.head_dim
    assert sum(weights(shape, degree, rank) for rank in range(degree)) == weights(shape, 1, 0) + extra
    of_token = [decoder(shape, degree, rank).kv_bytes_per_token for rank in range(degree)]
    assert of_token == [4 * shape.layers * len(held) * shape.head_dim for held in kv_heads]


@given(shape=SHAPES)
def test_tied_embeddings_are_stored_once_and_read_twice(shape: Shape) -> None:
    tied, untied = (Shape(**{**_fields(shape), "tied_embeddings": tied}) for tied in (True, False))
    assert weights(untied, 1, 0) - weights(tied, 1, 0) == shape.vocabulary * shape.hidden
    heads = [decoder(model).blocks[-1].operators[1] for model in (tied, untied)]
    assert heads[0].weight_read == heads[1].weight_read and heads[0].flops == heads[1].flops
    assert heads[0].weight_read.constant == 2 * shape.vocabulary * shape.hidden


def _fields(shape: Shape) -> dict[str, object]:
    return {name: getattr(shape, name) for name in Shape.__slots__}


# A Hugging Face config.json


def test_a_config_json_says_all_sizes(write: Write, tmp_path: Path) -> None:
    expected = Shape(tmp_path.name, 2, 48, 6, 2, 16, 100, 70, 512, norm_epsilon=1e-6)
    assert load_shape(write()) == expected
    assert load_shape(write(sliding_window=None, head_dim=16, attention_bias=False, mlp_bias=False)) == expected


def test_a_config_json_may_leave_out_kv_heads_and_head_dim(write: Write) -> None:
    shape = load_shape(write(num_key_value_heads=..., head_dim=...))
    assert (shape.kv_heads, shape.head_dim) == (6, 8)
    assert load_shape(write(head_dim=None)).head_dim == 8


def test_a_config_json_may_have_null_kv_heads(write: Write) -> None:
    assert load_shape(write(num_key_value_heads=None)).kv_heads == 6


@pytest.mark.parametrize("window", [256, None])
def test_a_mistral_may_have_a_window(write: Write, window: int | None) -> None:
    assert load_shape(write(model_type="mistral", sliding_window=window)).sliding_window == window


@pytest.mark.parametrize("tied", [True, False])
def test_a_config_json_may_tie_the_embeddings(write: Write, tied: bool) -> None:
    assert load_shape(write(tie_word_embeddings=tied)).tied_embeddings is tied


@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        ({"model_type": "qwen2"}, ["model_type = 'qwen2'", "llama, mistral, falcon, bloom"]),
        ({"model_type": ...}, ["model_type = None", "llama, mistral, falcon, bloom"]),
        ({"attention_bias": True}, ["attention_bias = true", "false"]),
        ({"mlp_bias": True}, ["mlp_bias = true", "false"]),
        ({"num_attention_heads": 7}, ["num_attention_heads = 7", "multiple of num_key_value_heads = 2"]),
        ({"num_hidden_layers": ...}, ["num_hidden_layers = None", "positive int"]),
        ({"num_attention_heads": ..., "num_key_value_heads": ...}, ["num_attention_heads = None", "positive int"]),
        ({"hidden_size": True}, ["hidden_size = True", "positive int"]),
        ({"num_attention_heads": True, "head_dim": ...}, ["num_attention_heads = True", "positive int"]),
        ({"intermediate_size": 100.0}, ["intermediate_size = 100.0", "positive int"]),
        ({"vocab_size": 0}, ["vocab_size = 0", "positive int"]),
        ({"num_attention_heads": 0, "head_dim": ...}, ["num_attention_heads = 0", "positive int"]),
        ({"max_position_embeddings": -1}, ["max_position_embeddings = -1", "positive int"]),
        ({"num_key_value_heads": "2"}, ["num_key_value_heads = '2'", "positive int"]),
        ({"sliding_window": 0}, ["sliding_window = 0", "positive int"]),
    ],
)
def test_a_mistake_in_a_config_json_is_answered_in_one_line(
    write: Write, changed: dict[str, object], parts: list[str]
) -> None:
    message = complaint(write(**changed))
    assert [part for part in ["config.json: ", *parts] if part not in message] == []


def test_what_is_no_json_object_is_refused(write: Write, tmp_path: Path) -> None:
    path = Path(write())
    for text, part in (("{", "cannot be read as JSON"), ("[1]", "model_type = 'list'")):
        path.write_text(text)
        assert part in complaint(str(path))
    path.write_bytes(b"\xff")
    assert "cannot be read as JSON" in complaint(str(path))
    assert complaint(str(tmp_path / "no.json")).endswith("no.json: cannot be read as JSON: No such file or directory")


def test_a_number_too_long_to_read_is_refused(write: Write) -> None:
    path = Path(write(vocab_size=7))
    path.write_text(path.read_text().replace("7", "7" * 5000))
    assert "cannot be read as JSON" in complaint(str(path))


# Our own TOML


def test_a_toml_model_is_checked_as_well(tmp_path: Path) -> None:
    path, lines = tmp_path / "m.toml", ['name = "m"', *(f"{key} = 8" for key in Shape.__slots__[1:9])]
    for text, part in (("", None), ("size = 3", "size: unknown key"), ("tied_embeddings = 1", "must be a bool")):
        path.write_text("\n".join([*lines, text]))
        assert (load_shape(str(path)).kv_heads == 8) if part is None else (part in complaint(str(path)))
    path.write_text("\n".join(lines[:-2]))
    assert complaint(str(path)) == f"{path}: vocabulary, context missing"
    assert "'llama-9'" in (message := complaint("llama-9")) and all(name in message for name in PUBLISHED)

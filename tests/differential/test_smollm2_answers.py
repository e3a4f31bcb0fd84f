"""Does a real model answer on emulated sockets as PyTorch does, token for token? SmolLM2-135M-Instruct, greedy."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from cluster.checkpoints.load import load_checkpoint
from cluster.checkpoints.smollm2 import cached
from cluster.content import Expert
from cluster.dialog import prompt_of, tensors_of
from cluster.generate import KV_RESERVE, Asked, Prompt, generate
from node.functional.serve import Sampling
from node.options import RuntimeOptions
from node.spec_file import load_machine
from tests.differential.conftest import run_reference

MOST = 48
QUESTIONS = (
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "Explain in two sentences how a transformer works.",
    "def fibonacci(n):",
    "Translate to German: The weather is nice today.",
)
TIE = 1e-4  # between the two best logits of the reference: below it, either token is right


@dataclass
class Known:
    """The reference's answers to ``prompts``: tokens, gaps between the two best logits, logits of the first token."""

    prompts: list[Prompt]
    answers: dict[str, npt.NDArray[np.float32]]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    if not cached().exists():
        pytest.skip(f"no {cached()}: make model fetches it")
    folder = tmp_path_factory.mktemp("greedy")
    tokenizer = load_checkpoint(cached()).tokenizer
    prompts = [prompt_of(question, 0, tokenizer) for question in QUESTIONS]
    asked = {"path": str(cached()), "prompts": [prompt.tokens for prompt in prompts], "most": MOST}
    (folder / "asked.json").write_text(json.dumps(asked))
    run_reference("smollm2_greedy.py", folder)
    return Known(prompts, dict(np.load(folder / "greedy.npz")))


def _asked(known: Known, sockets: int, most: int = MOST, **options: object) -> Asked:
    machine = replace(load_machine("sn40l-node"), sockets=sockets)
    expert = Expert("smollm2", load_checkpoint(cached()).shape, partial(tensors_of, cached()))
    chosen = RuntimeOptions(kv_reserve=KV_RESERVE, batch=len(QUESTIONS), **options)  # type: ignore[arg-type]
    return Asked(machine, [expert], known.prompts, most, Sampling(), chosen)


def _equal(known: Known, answers: list[list[int]], most: int = MOST) -> None:
    """Token for token, up to a tie in the reference; from there on another text would be as right."""
    for number, answer in enumerate(answers):
        expected, gaps = known.answers[f"tokens{number}"][:most].tolist(), known.answers[f"gaps{number}"]
        differs = next((at for at, (one, other) in enumerate(zip(answer, expected, strict=True)) if one != other), None)
        if differs is not None:
            assert gaps[differs] < TIE, f"prompt {number}, token {differs}: {answer[differs]}, not {expected[differs]}"
            print(f"prompt {number}, token {differs}: a tie in the reference, {gaps[differs]:.1e} apart")


def test_the_reference_has_no_tie_in_these_answers(known: Known) -> None:
    """So that the comparison is one of every token."""
    assert min(known.answers[f"gaps{number}"].min() for number in range(len(QUESTIONS))) > TIE


@pytest.mark.parametrize("sockets", [1, 8])
def test_answers_are_the_references_token_for_token(known: Known, sockets: int) -> None:
    _equal(known, generate(_asked(known, sockets)).answers)


@pytest.mark.parametrize(("sockets", "fusion"), [(2, "unfused"), (3, "looped"), (5, "conventional"), (16, "fused")])
def test_neither_sockets_nor_fusion_change_a_token(known: Known, sockets: int, fusion: str) -> None:
    _equal(known, generate(_asked(known, sockets, 6, fusion=fusion)).answers, 6)


def test_logits_of_the_first_token(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 1e-3 of the largest, as the sockets see them when they choose."""
    seen: dict[int, npt.NDArray[np.float32]] = {}
    choose = Sampling.choose

    def see(self: Sampling, logits: npt.NDArray[np.float32], request: int, position: int) -> int:
        seen.setdefault(request, logits.copy())
        return choose(self, logits, request, position)

    monkeypatch.setattr(Sampling, "choose", see)
    generate(_asked(known, 8, 1))
    for number in range(len(QUESTIONS)):
        expected = known.answers[f"first{number}"]
        assert np.abs(seen[number] - expected).max() < 1e-3 * np.abs(expected).max()


def test_a_question_by_the_command(known: Known) -> None:
    """One socket, in this process: what it prints is the answer, then the time of the emulated machine."""
    command = ["-m", "cluster", "generate", "--experts", str(cached()), "--prompt", QUESTIONS[0]]
    python = Path(__file__).parents[2] / ".venv" / "bin" / "python"
    said = subprocess.run(
        [python, *command, "--backend", "local", "--sockets", "1"], capture_output=True, text=True, check=True
    )
    assert said.stdout.startswith("The capital of France is Paris.")
    assert "Emulated: 1 sockets of sn40l-node" in said.stdout and "TTFT" in said.stdout

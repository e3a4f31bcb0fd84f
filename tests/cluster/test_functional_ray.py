"""Do sockets in Ray actors, linked over TCP, answer as those in one process? And what if one of them is wrong?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import ray

from cluster.backends import SocketLostError
from cluster.checkpoints.load import load_checkpoint
from cluster.checkpoints.smollm2 import cached
from cluster.content import Expert
from cluster.content_actor import RayMembers, ray_members
from cluster.dialog import prompt_of, tensors_of
from cluster.generate import KV_RESERVE, Asked, Prompt, generate
from cluster.peer_links.connection import LinkError
from node.errors import InputError, InvariantError
from node.functional.serve import Sampling, Work
from node.models.checkpoint import Tensors
from node.models.weights import Array
from node.options import RuntimeOptions
from node.spec_file import load_machine
from tests.tiny import alone, asked, expert, prompts, tensors

pytestmark = [pytest.mark.alone, pytest.mark.usefixtures("ray_cluster")]


@pytest.mark.parametrize("sockets", [1, 2, 3, 5, 8, 16])
def test_a_composition_over_ray_answers_as_its_experts_alone(sockets: int) -> None:
    given = prompts(12, 6)
    expected = [generate(alone(prompt)).answers[0] for prompt in given]
    seen: dict[int, list[int]] = {}
    found = generate(
        asked(sockets, 6, 2, given), lambda prompt, token: seen.setdefault(prompt, []).append(token), ray_members
    )
    assert found.answers == expected == [seen[number] for number in range(len(given))]
    assert found.simulation.groups[0].misses > 3


@pytest.mark.parametrize("level", ["unfused", "looped"])
def test_nor_does_fusion_change_a_token_over_ray(level: str) -> None:
    given = prompts(4, 3)
    question = asked(5, 3, 2, given)
    found = generate(replace(question, options=replace(question.options, fusion=level)), start=ray_members)
    assert found.answers == [generate(alone(prompt)).answers[0] for prompt in given]


@pytest.mark.parametrize("per_actor", [2, 3, 5])
def test_sockets_of_one_actor_need_no_connection(per_actor: int) -> None:
    given = prompts(6, 3)
    found = generate(asked(5, 3, 2, given), start=partial(ray_members, sockets_per_actor=per_actor))
    assert found.answers == [generate(alone(prompt)).answers[0] for prompt in given]


def test_times_are_those_of_one_process() -> None:
    """Timing is the planner's, wherever the content is."""
    given = prompts(8, 4)
    local, over_ray = generate(asked(2, 4, 2, given)), generate(asked(2, 4, 2, given), start=ray_members)
    for name, column in local.columns.items():
        np.testing.assert_array_equal(column, over_ray.columns[name])


def altered(number: int, name: str) -> Tensors:
    """An expert's tensors, one of them wrong, and in each process otherwise."""

    def tensor(asked_for: str) -> Array:
        found = tensors(number, expert(number).shape)(asked_for)
        return found * np.float32(2 + os.getpid() % 3) if asked_for == name else found

    return tensor


def test_a_socket_with_other_weights_is_found() -> None:
    """Each process scales its shard by a factor of its own, which is never 1."""
    given = prompts(6, 1)
    wrong = [replace(expert(0), open=partial(altered, 0, "model.layers.1.mlp.down_proj.weight"))]
    request = replace(asked(3, 1, 1, given), experts=wrong)
    try:
        found = generate(request, start=ray_members).answers
    except InvariantError as error:
        assert "generated" in str(error)
    else:
        assert found != [generate(alone(prompt)).answers[0] for prompt in given]


def short(number: int) -> Tensors:
    """An expert whose final norm is too short."""
    whole = tensors(number, expert(number).shape)
    return lambda name: whole(name)[:-1] if name == "model.norm.weight" else whole(name)


def test_what_an_actor_refuses_is_one_line_of_the_user() -> None:
    wrong = replace(asked(2, 1, 1, [Prompt(0, (1, 2))]), experts=[replace(expert(0), open=partial(short, 0))])
    with pytest.raises(
        InputError, match=r"expert 0: final_norm of layer 0 has shape \(1, 23\), not \(1, 24\)"
    ) as caught:
        generate(wrong, start=ray_members)
    assert "\n" not in str(caught.value)


def test_a_socket_that_dies_ends_the_run_with_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the weights are there; either Ray or a peer notices first."""
    began = RayMembers.serve

    def serve(self: RayMembers, work: Work) -> list[list[int]]:
        ray.kill(self._actors[1])
        return began(self, work)

    monkeypatch.setattr(RayMembers, "serve", serve)
    with pytest.raises((SocketLostError, LinkError), match="socket"):
        generate(asked(3, 2, 1, prompts(3, 2)), start=ray_members)


QUESTIONS: Sequence[str] = (
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "Explain in two sentences how a transformer works.",
    "def fibonacci(n):",
    "Translate to German: The weather is nice today.",
)


def test_smollm2_on_eight_ray_sockets_answers_as_on_one_in_this_process() -> None:
    """48 tokens for each of five prompts; tests/differential holds the one against PyTorch."""
    if not cached().exists():
        pytest.skip(f"no {cached()}: make model fetches it")
    checkpoint = load_checkpoint(cached())
    given = [prompt_of(question, 0, checkpoint.tokenizer) for question in QUESTIONS]
    smollm2 = [Expert("smollm2", checkpoint.shape, partial(tensors_of, cached()))]
    options = RuntimeOptions(kv_reserve=KV_RESERVE, batch=len(given))
    one, eight = (
        Asked(replace(load_machine("sn40l-node"), sockets=sockets), smollm2, given, 48, Sampling(), options)
        for sockets in (1, 8)
    )
    assert generate(eight, start=ray_members).answers == generate(one).answers

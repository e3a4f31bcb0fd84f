"""How is the next token chosen, and what of prompts that cannot be answered?"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from cluster.generate import Asked, Prompt, generate
from node.errors import InputError
from node.functional.serve import Sampling
from tests.tiny import SHAPE, asked, expert, node, prompts

LOGITS = np.log(np.array([0.1, 0.2, 0.3, 0.4], dtype=np.float32))


def test_the_likeliest_token_is_chosen_and_of_equal_ones_the_first() -> None:
    assert Sampling().choose(LOGITS, 0, 0) == 3
    assert Sampling().choose(np.array([1.0, 3.0, 3.0], np.float32), 5, 9) == 1


def test_a_temperature_draws_by_chance() -> None:
    """Of 4,000 draws each token has its share within 3 standard deviations; at half the temperature the squares."""
    for temperature, chances in ((1.0, [0.1, 0.2, 0.3, 0.4]), (0.5, [1 / 30, 4 / 30, 9 / 30, 16 / 30])):
        drawn = Counter(Sampling(temperature, 1).choose(LOGITS, 0, position) for position in range(4000))
        for token, chance in enumerate(chances):
            assert abs(drawn[token] - 4000 * chance) < 3 * (4000 * chance * (1 - chance)) ** 0.5


def test_draws_depend_on_seed_request_and_position_alone() -> None:
    def draws(seed: int, request: int) -> list[int]:
        return [Sampling(1.0, seed).choose(LOGITS, request, position) for position in range(50)]

    assert draws(1, 1) == draws(1, 1)
    assert len({tuple(draws(seed, request)) for seed in (1, 2) for request in (1, 2)}) == 4


def test_sampled_answers_do_not_depend_on_sockets_or_batch() -> None:
    given = prompts(8, 3)
    drawn = [
        generate(replace(asked(sockets, 3, 2, given, batch=batch), sampling=Sampling(0.8, 5))).answers
        for sockets, batch in ((1, 1), (3, 4))
    ]
    greedy = generate(replace(asked(1, 3, 2, given), sampling=Sampling())).answers
    assert drawn[0] == drawn[1] != greedy


def _asked(prompt: tuple[int, ...], most: int = 12, **changes: object) -> Asked:
    return asked(1, 1, 1, [Prompt(0, prompt)], most, **changes)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (_asked(()), "prompt 0 has no tokens: give a text"),
        (_asked((1,) * 117), "prompt 0: 117 tokens and 12 to generate exceed the context of 128 of expert 0; lower"),
        (_asked((1, 50)), "prompt 0: token 50 is not among the 50 of the model"),
        (_asked((1, -1)), "prompt 0: token -1 is not among the 50 of the model"),
        (_asked((1,) * 100, kv_reserve=8192), "lie between the kernels of a prefill of 100 tokens, but 2.0 KiB are"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_one_line(wrong: Asked, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        generate(wrong)
    assert "\n" not in str(caught.value)


def test_a_window_that_is_too_small_is_refused() -> None:
    shape = replace(SHAPE, sliding_window=16)
    machine = node(1, 1, 1, shape)
    prompt = [Prompt(0, (1,) * 5)]
    wrong = replace(asked(1, 1, 1, prompt), machine=machine, experts=[expert(0, shape)])
    with pytest.raises(InputError, match="prompt 0: 17 tokens exceed the attention window of 16"):
        generate(wrong)
    assert len(generate(replace(wrong, most=11, sampling=Sampling())).answers[0]) == 11


def test_weights_of_another_shape_are_named() -> None:
    wrong = asked(1, 1, 1, [Prompt(0, (1,))])
    tensors = expert(0).tensors
    cut = replace(expert(0), tensors=lambda name: tensors(name)[:-1] if "up_proj" in name else tensors(name))
    with pytest.raises(InputError, match=r"expert 0: up_proj of layer 0 has shape \(24, 39\), not \(24, 40\)"):
        generate(replace(wrong, experts=[cut]))

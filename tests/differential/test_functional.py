"""Does a composition of experts answer as each expert does by itself, whatever is switched, sharded or fused?"""

from __future__ import annotations

import pytest

from cluster.generate import generate
from node.dataflow.fusion import LEVELS
from tests.tiny import alone, asked, prompts

EXPERTS, IN_HBM = 150, 12


def test_every_answer_of_a_composition_is_that_of_its_expert_alone() -> None:
    """150 experts, HBM for 12, 300 requests on two sockets: most come after a switch and an eviction."""
    given = prompts(300, EXPERTS)
    found = generate(asked(2, EXPERTS, IN_HBM, given))
    group = found.simulation.groups[0]
    assert group.misses > 100 and group.misses + group.hits == 300
    assert len(set(map(tuple, found.answers))) > 200
    for prompt, answer in zip(given, found.answers, strict=True):
        assert generate(alone(prompt)).answers == [answer]


@pytest.mark.parametrize("sockets", [1, 2, 3, 5, 8, 16])
def test_the_number_of_sockets_changes_no_token(sockets: int) -> None:
    """3 heads: from 5 sockets on some have none."""
    given = prompts(12, 6)
    expected = [generate(alone(prompt)).answers[0] for prompt in given]
    assert generate(asked(sockets, 6, 2, given)).answers == expected


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "more", [{}, {"scheduler": "paper"}, {"prefetch": True}, {"partial": True}, {"batch": 1}], ids=str
)
def test_neither_fusion_nor_the_runtime_changes_a_token(level: str, more: dict[str, object]) -> None:
    given = prompts(12, 6)
    expected = [generate(alone(prompt)).answers[0] for prompt in given]
    assert generate(asked(2, 6, 2, given, fusion=level, **more)).answers == expected


def test_an_answer_ends_with_its_end_token() -> None:
    given = prompts(40, 6)
    answers = generate(asked(2, 6, 3, given)).answers
    ended = [answer for answer in answers if answer[-1] in (7, 8)]
    assert ended and len(ended) < len(answers)
    for answer in answers:
        assert not {7, 8} & set(answer[:-1])
        assert len(answer) == 12 or answer[-1] in (7, 8)


def test_tokens_come_in_order_and_once() -> None:
    given, seen = prompts(10, 3), dict[int, list[int]]()
    found = generate(asked(2, 3, 1, given), lambda prompt, token: seen.setdefault(prompt, []).append(token))
    assert [seen[number] for number in range(10)] == found.answers

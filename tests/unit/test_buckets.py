"""Which kernels does a pass run: those of its bucket of shapes, made once, and of no other bucket?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.dataflow.decode import MOST_CONTEXT
from node.dataflow.form import Step
from node.dataflow.program import Program, _nearest, compile_graph
from node.models.decoder import decoder
from node.models.shape import Shape
from node.spec_file import load_machine

NODE = load_machine("sn40l-node")
TINY = Shape("tiny", layers=2, hidden=256, heads=8, kv_heads=8, head_dim=32, ffn=512, vocabulary=1000, context=4097)


def program(context: int = TINY.context) -> Program:
    return compile_graph(decoder(replace(TINY, context=context), 1), NODE, 1, "fused", "ho")


@pytest.mark.parametrize(
    ("context", "bounds"),
    [
        (100, [MOST_CONTEXT]),
        (512, [MOST_CONTEXT]),
        (513, [512, MOST_CONTEXT]),
        (4096, [512, MOST_CONTEXT]),
        (4097, [512, 4096, MOST_CONTEXT]),
        (32_769, [512, 4096, 32_768, MOST_CONTEXT]),
    ],
)
def test_the_last_bucket_of_decode_takes_whatever_is_beyond_the_one_before(context: int, bounds: list[int]) -> None:
    assert program(context)._bounds() == bounds


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("bound", [512, 4096])
def test_a_decode_context_on_the_bound_of_a_bucket_is_in_it_and_one_token_more_is_not(batch: int, bound: int) -> None:
    made = program()
    below, on, above = (made.decode_kernels(batch, batch * bound + more) for more in (-1, 0, 1))
    assert on is below
    assert above is not on


def test_a_decode_context_counts_over_its_batch() -> None:
    made = program()
    assert made.decode_kernels(4, 2048) is made.decode_kernels(4, 1)
    assert made.decode_kernels(2, 2048) is not made.decode_kernels(2, 1)
    assert made.decode_kernels(1, 10**6) is made.decode_kernels(1, 4097)  # beyond the model's context


def test_decode_kernels_are_made_for_the_longest_of_their_bucket_and_no_longer_than_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, asked = program(), []
    monkeypatch.setattr(Program, "_made", lambda _self, key: asked.append(key[:2]))
    for batch, context in ((4, 1), (3, 3 * 512 + 1), (5, 5 * 4096 + 1), (6, 0)):
        made.decode_kernels(batch, context)
    by_hand = [(4, 4 * 512), (4, 4 * 4096), (4, 4 * 4097), (8, 8 * 512)]  # batches to the nearest power of two
    assert asked == [(True, Step(batch, context, context, batch)) for batch, context in by_hand]


@pytest.mark.parametrize(
    ("step", "nearest"),
    [
        (Step(90, 90, 90, 90), Step(64, 64, 64, 64)),  # 2^6.5 is 90.5
        (Step(91, 91, 91, 91), Step(128, 128, 128, 128)),
        (Step(100, 100 * 45, 46, 1), Step(128, 128 * 32, 64, 1)),  # pairs of a token, not all of them
        (Step(100, 100 * 46, 45, 3), Step(128, 128 * 64, 32, 4)),
        (Step(1, 1, 0, 1), Step(1, 1, 0, 1)),
        (Step(4, 2, 3, 2), Step(4, 4, 4, 2)),  # no less than one pair of a token
        (Step(0, 0, 0, 5), Step(0, 0, 0, 4)),  # a transform has no tokens
        (Step(0, 7, 0, 6), Step(0, 0, 0, 8)),
    ],
)
def test_the_bucket_of_a_pass_is_the_nearest_power_of_two_of_each(step: Step, nearest: Step) -> None:
    assert _nearest(step) == nearest


def test_passes_of_a_bucket_share_their_kernels() -> None:
    made = program()
    prompt = Step(100, 100 * 50, 0, 1)
    assert made.prefill_kernels(prompt) is made.prefill_kernels(replace(prompt, tokens=120, pairs=120 * 60))
    for other in (replace(prompt, tokens=300), replace(prompt, context=9), replace(prompt, sequences=2)):
        assert made.prefill_kernels(other) is not made.prefill_kernels(prompt)

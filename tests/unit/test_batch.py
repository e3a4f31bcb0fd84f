"""Which keys does each query of a batch see, and at which cost?"""

from __future__ import annotations

import numpy as np
import pytest

from node.dataflow.batch import Batch
from node.dataflow.form import Step, causal_pairs


def test_a_prefill_sees_all_before_and_itself() -> None:
    batch = Batch((3, 1), (0, 0))
    assert batch.step == Step(tokens=4, pairs=7, context=4, sequences=2)
    assert batch.positions.tolist() == [0, 1, 2, 0]
    assert batch.distances.tolist() == [0, 1, 0, 2, 1, 0, 0]
    assert batch.first_pairs.tolist() == [0, 1, 3, 6]


def test_a_decode_step_sees_the_cache() -> None:
    batch = Batch((1, 1), (4, 2))
    assert batch.step == Step(tokens=2, pairs=8, context=8, sequences=2)
    assert batch.positions.tolist() == [4, 2]
    assert batch.distances.tolist() == [4, 3, 2, 1, 0, 2, 1, 0]


def test_a_chunk_of_a_prompt_sees_what_came_before_it() -> None:
    batch = Batch((2,), (3,))
    assert batch.step == Step(tokens=2, pairs=9, context=5, sequences=1)
    assert batch.masks[0].tolist() == [[True, True, True, True, False], [True] * 5]


@pytest.mark.parametrize("length", [1, 3, 4, 9])
def test_a_window_leaves_out_older_keys(length: int) -> None:
    prefill, decode = Batch((length,), (0,), window=4), Batch((1,), (length,), window=4)
    assert prefill.step.pairs == causal_pairs(length, 4)
    assert prefill.step.context == length
    assert decode.step.pairs == decode.step.context == min(length + 1, 4)
    assert decode.distances.max() == min(length, 3)


def test_spans_lie_one_after_another() -> None:
    batch = Batch((2, 0, 3), (1, 4, 0))
    assert batch.of_tokens == [slice(0, 2), slice(2, 2), slice(2, 5)]
    assert batch.seen.tolist() == [2, 3, 1, 2, 3]
    assert batch.of_pairs == [slice(0, 5), slice(5, 5), slice(5, 11)]


def test_an_empty_batch_has_no_tokens() -> None:
    batch = Batch((), ())
    assert batch.step == Step(0, 0, 0, 0)
    assert batch.positions.dtype == np.int64
    assert batch.positions.size == batch.distances.size == 0


@pytest.mark.parametrize(("new", "before"), [((1, 2), (0,)), ((-1,), (0,)), ((1,), (-1,))])
def test_lengths_must_fit(new: tuple[int, ...], before: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be as many, and not negative"):
        Batch(new, before)

"""Are requests as columns what they are one by one?"""

from __future__ import annotations

import numpy as np

from node.request import Request, Requests

ROWS = [Request(3, 10, 5, 7, 0), Request(4, 10, 6, 1, 2), Request(9, 12, 8, 2, 1)]


def test_columns_are_a_sequence_of_requests() -> None:
    columns = Requests.of(ROWS)
    assert list(columns) == ROWS == columns and len(columns) == 3
    assert columns[1] == ROWS[1] and columns[-1] == ROWS[-1] and columns[1:] == ROWS[1:]
    assert {type(value) for value in (columns[0].id, next(iter(columns)).arrival)} == {int}
    assert columns != ROWS[:2] and Requests.of(columns) is columns


def test_those_that_are_chosen_keep_their_order() -> None:
    assert Requests.of(ROWS).where(np.array([True, False, True])) == [ROWS[0], ROWS[2]]


def test_none_are_columns_too() -> None:
    none = Requests.of([])
    assert len(none) == 0 and not none and none.id.dtype == np.int64

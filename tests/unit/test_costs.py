"""Columns that are alike: costs are worked out once for each different one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from node.hardware import costs
from node.hardware.costs import alike


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 1), st.integers(2**62, 2**62 + 1)), max_size=20))
def test_each_different_column_stands_once_for_all_that_are_equal_to_it(columns: list[tuple[int, ...]]) -> None:
    rows = np.array(columns, dtype=np.int64).reshape(-1, 3).T
    first, which = alike(rows)
    assert (rows[:, first[which]] == rows).all()
    assert len(first) == len(set(columns))


def test_columns_whose_mixtures_are_one_stand_each_for_itself() -> None:
    rows = np.array([[0, 1, 0], [costs._MIXER, 0, costs._MIXER]])
    first, which = alike(rows)
    assert (rows[:, first[which]] == rows).all()

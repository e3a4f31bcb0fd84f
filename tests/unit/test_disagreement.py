"""Is the first difference between plan and socket found, whatever differs, and told so that it can be understood?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.disagreement import DisagreementError, compare
from node.events import Command, Ints, Kind, to_columns
from node.hardware.tiers import Completion

FIELDS = ("time", "address", "bytes", "occupancy")
COUNT = 20
FIRST = 100  # sequence number of the first command in the window
PLANNED = to_columns(Command(FIRST + n, 0, Kind.COPY if n % 2 else Kind.FREE, 10 * n, symbol=n) for n in range(COUNT))
EXPECTED = np.array([Completion(1000 * n, 64 * n, 7 * n, 5 * n) for n in range(COUNT)], dtype=np.int64).T


def fault(found: Ints) -> list[str]:
    """The lines of the error."""
    with pytest.raises(DisagreementError) as caught:
        compare(5, PLANNED, EXPECTED, found)
    return str(caught.value).splitlines()


def histories(lines: list[str]) -> tuple[list[str], list[str]]:
    """The lines of each history."""
    cut = lines.index("  found:")
    assert lines[1] == "  planned:"
    return lines[2:cut], lines[cut + 1 :]


def test_the_fields_are_those_of_a_completion() -> None:
    assert Completion._fields == FIELDS


@pytest.mark.parametrize("found", [EXPECTED, EXPECTED.copy()])
def test_a_socket_that_did_as_planned_is_let_go(found: Ints) -> None:
    compare(5, PLANNED, EXPECTED, found)
    compare(5, to_columns([]), np.empty((4, 0), dtype=np.int64), np.empty((4, 0), dtype=np.int64))


@given(
    st.integers(0, 3), st.integers(0, COUNT - 1), st.sampled_from([1, -1, 2**40]), st.sampled_from(range(COUNT)),
)  # fmt: skip
def test_every_cell_counts_to_the_last_picosecond(field: int, command: int, by: int, later: int) -> None:
    found = EXPECTED.copy()
    found[field, command] += by
    found[:, max(later, command + 1) :] += 5  # what comes after the first difference is not told
    planned = int(EXPECTED[field, command])
    lines = fault(found)
    assert lines[0] == (
        f"socket 5 disagrees with the plan: command {FIRST + command}: "
        f"{FIELDS[field]} planned {planned:,}, found {planned + by:,}"
    )
    said = [[line.split()[0] for line in history] for history in histories(lines)]
    assert said[0] == said[1] == [str(FIRST + n) for n in range(max(0, command - 6), command + 1)]


def test_all_fields_of_the_first_command_that_differs_are_told() -> None:
    found = EXPECTED.copy()
    found[:, 3] = (1, 2, 3, 4)
    assert fault(found)[0].endswith(
        "command 103: time planned 3,000, found 1; address planned 192, found 2; bytes planned 21, found 3; "
        "occupancy planned 15, found 4"
    )


def test_both_histories_show_every_command_with_what_came_of_it() -> None:
    found = EXPECTED.copy()
    found[0, 9] = 9876
    planned, done = histories(fault(found))
    assert len(planned) == len(done) == 7
    assert planned[:-1] == done[:-1] and planned[-1] != done[-1]
    assert (
        planned[-1]
        == "         109 COPY     symbol 9 issued 90 ps -> done 9,000 ps, address 576, 63 bytes, occupancy 45"
    )
    assert done[-1] == planned[-1].replace("9,000", "9,876")


@pytest.mark.parametrize("done", [0, 1, 7, COUNT - 1])
def test_a_command_that_was_not_done_is_told(done: int) -> None:
    lines = fault(EXPECTED[:, :done])
    assert lines[0] == f"socket 5 disagrees with the plan: {COUNT} commands were planned, {done} were done"
    planned, found = histories(lines)
    assert planned[:-1] == found and planned[-1].split()[0] == str(FIRST + done)


def test_a_command_that_was_not_planned_is_told() -> None:
    with pytest.raises(DisagreementError) as caught:
        compare(5, PLANNED[:-1], EXPECTED[:, :-1], EXPECTED)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith(f"{COUNT - 1} commands were planned, {COUNT} were done")
    planned, found = histories(lines)
    assert found[:-1] == planned and len(planned) == 6


def test_a_difference_comes_before_a_number_that_differs() -> None:
    found = EXPECTED[:, :-1].copy()
    found[2, 4] += 1
    assert "command 104: bytes planned 28, found 29" in fault(found)[0]

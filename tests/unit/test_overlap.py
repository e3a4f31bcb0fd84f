"""How long does a run take beside copies? Worked by hand in whole picoseconds, and walked step by step."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.dataflow.decode import DecodeCost, Segment, slowest
from node.hardware.overlap import Copying, Run, append

# By hand: a step takes 10 ps alone and 13 beside a copy; the run starts at 100


def flat(ps: int) -> DecodeCost:
    return DecodeCost((Segment(0, ps, 0),), 0)


TEN = Run(flat(10), flat(13), 5, 2)


@pytest.mark.parametrize(
    ("copies", "steps", "end"),
    [
        ([], 3, 130),
        ([(40, 100)], 3, 130),  # over when the run begins
        ([(130, 200)], 3, 130),  # begins when it is over
        ([(40, 200)], 3, 139),  # all through it
        ([(100, 139)], 3, 139),
        ([(90, 113)], 3, 133),  # one step of 13, two of 10
        ([(120, 200)], 3, 133),  # two of 10, one of 13
        ([(105, 200)], 1, 112),  # 5 ps left: ceil(5 x 13 / 10) = 7
        ([(40, 105)], 1, 112),  # 8 of 13 ps left: ceil(8 x 10 / 13) = 7
        ([(103, 106)], 1, 112),  # 7 left, ceil(9.1) = 10 at 103; 7 of them left at 106: ceil(5.4) = 6
        ([(103, 106)], 3, 132),  # in one step of three
        ([(105, 145)], 5, 160),  # many: 7 to 112, 2 x 13 to 138, 6 of 13 left at 145: ceil(4.6) = 5 to 150; one more
        ([(105, 110), (115, 118)], 2, 124),  # 5, 7 at 105, 2 at 110: 112; 7, 10 at 115, 7, 6 at 118
    ],
)
def test_a_run_beside_copies_worked_by_hand(copies: list[tuple[int, int]], steps: int, end: int) -> None:
    assert TEN.end(100, steps, [Copying(*copy) for copy in copies]) == end


def test_steps_that_read_more_take_longer_beside_a_copy_by_as_much() -> None:
    """At 115, 6 of the second step's 11 ps are left."""
    run = Run(DecodeCost((Segment(0, 10, 1),), 0), DecodeCost((Segment(0, 30, 0), Segment(1, 30, 3)), 0), 0, 1)
    alone = [run.alone.run_ps(k, 0, 1) for k in range(3)]
    beside = [run.beside.run_ps(k, 0, 1) for k in range(3)]
    assert (alone, beside) == ([10, 11, 12], [30, 30, 33])
    assert run.end(100, 3, [Copying(115, 900)]) == 115 + -(-6 * 30 // 11) + 33
    assert run.end(100, 3, [Copying(115, 120)]) == 120 + -(-(17 - 5) * 11 // 30) + 12


def test_copies_without_a_pause_between_them_are_one() -> None:
    copies: list[Copying] = []
    for start, end in ((10, 20), (20, 25), (26, 30), (30, 41)):
        append(copies, start, end)
    assert copies == [(10, 25), (26, 41)]


@pytest.mark.parametrize(
    ("now", "steps"), [(100, 1), (101, 1), (112, 1), (113, 2), (125, 2), (126, 3), (137, 3), (138, 4), (999, 5)]
)
def test_a_cut_beside_a_copy_ends_with_the_step_under_way(now: int, steps: int) -> None:
    """From 105 to 130: steps end at 112, 125, 137 (8 of 13 ps left at 130: 7), 147, 157."""
    copies = [Copying(105, 130)]
    assert TEN.steps_until(now, 100, 5, copies) == steps
    assert [TEN.end(100, count, copies) for count in range(1, 6)] == [112, 125, 137, 147, 157]


# Any steps and copies, step by step

PART = st.tuples(st.integers(1, 60), st.integers(0, 30), st.integers(0, 5))
COSTS = st.lists(PART, min_size=1, max_size=3, unique_by=lambda row: row[0]).map(
    lambda rows: DecodeCost((Segment(0, 20, 1), *(Segment(at, 1 + base, slope) for at, base, slope in sorted(rows))), 0)
)


@st.composite
def runs(draw: st.DrawFn) -> tuple[Run, int, int, list[Copying]]:
    alone = draw(COSTS)
    run = Run(alone, slowest([alone, draw(COSTS)]), draw(st.integers(0, 50)), draw(st.integers(0, 4)))
    copies, time = [], 0
    for gap, length in draw(st.lists(st.tuples(st.integers(1, 90), st.integers(1, 150)), max_size=5)):
        copies.append(Copying(time + gap, time + gap + length))
        time += gap + length
    return run, draw(st.integers(0, 100)), draw(st.integers(1, 25)), copies


def walked(run: Run, start: int, steps: int, copies: Sequence[Copying]) -> list[int]:
    """When each step ends, one after another."""
    now, ends = start, []
    for step in range(steps):
        costs = [cost.run_ps(run.context + step * run.growth, 0, 1) for cost in (run.alone, run.beside)]
        copying = any(copy.start <= now < copy.end for copy in copies)
        left = costs[copying]
        while changes := [time for copy in copies for time in copy if now < time < now + left]:
            left -= min(changes) - now
            now = min(changes)
            left = -(-left * costs[not copying] // costs[copying])
            copying = not copying
        now += left
        ends.append(now)
    return ends


@settings(deadline=None, max_examples=400)
@given(drawn=runs(), share=st.floats(-0.1, 1.2))
def test_the_closed_form_is_the_walk_step_by_step(drawn: tuple[Run, int, int, list[Copying]], share: float) -> None:
    run, start, steps, copies = drawn
    ends = walked(run, start, steps, copies)
    assert [run.end(start, count, copies) for count in range(1, steps + 1)] == ends
    now = start + round(share * (ends[-1] - start))
    fewest = next((count for count, end in enumerate(ends, 1) if end >= now), steps)
    assert run.steps_until(now, start, steps, copies) == fewest


@settings(deadline=None, max_examples=400)
@given(drawn=runs())
def test_a_copy_never_makes_a_run_end_sooner_nor_later_than_if_all_of_it_were_beside_one(
    drawn: tuple[Run, int, int, list[Copying]],
) -> None:
    """But for what is rounded up: less than 1 ps whenever a copy starts or ends."""
    run, start, steps, copies = drawn
    ends = [run.end(start, steps, copies[:count]) for count in range(len(copies) + 1)]
    slowest_end = start + run.beside.run_ps(run.context, run.growth, steps)
    assert ends[0] == start + run.alone.run_ps(run.context, run.growth, steps) and ends == sorted(ends)
    assert all(end <= slowest_end + max(0, count - 1) for count, end in enumerate(ends))

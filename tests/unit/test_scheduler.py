"""What comes next: each scheduler as a function of a view made by hand."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.runtime.scheduler import SCHEDULERS, Decision, Decode, Route, Serve
from node.runtime.waiting import Waiting

FAIRNESS = 100


@dataclass
class Made:
    """A view made by hand, seen at ``now``."""

    now: int
    since: Sequence[int]
    waiting: Waiting
    unrouted: int
    members: int
    active: int | None
    routed: bool
    batch_left: int
    batch: int
    fairness: int = FAIRNESS
    newcomer: int = 1_000
    held_up: tuple[int, ...] = ()

    def blocked(self, _now: int) -> Container[int]:
        return self.held_up


def view(
    waiting: dict[int, list[int]] | None = None,
    *,
    now: int = 50,
    unrouted: int = 0,
    running: int = 0,
    active: int | None = None,
    routed: bool = False,
    batch_left: int = 0,
    batch: int = 4,
    resident: tuple[int, ...] = (),
    arrival: Sequence[int] = range(2_000),
    blocked: tuple[int, ...] = (),
) -> Made:
    """``waiting``: request numbers by expert; a request arrives at its number in ps."""
    queues = Waiting(batch, resident)
    for expert, numbers in (waiting or {}).items():
        for number in numbers:
            queues.add(expert, number)
    made = Made(now, arrival, queues, unrouted, running, active, routed, batch_left, batch)
    made.held_up = blocked
    return made


def paper(made: Made) -> Decision:
    return SCHEDULERS["paper"](made, made.now)


def affinity(made: Made) -> Decision:
    return SCHEDULERS["affinity"](made, made.now)


BOTH = pytest.mark.parametrize("scheduler", [paper, affinity])


# Both


@BOTH
def test_with_nobody_there_is_nothing_to_do(scheduler):
    assert scheduler(view()) is None
    assert scheduler(view(active=3, resident=(3,))) is None


@BOTH
@pytest.mark.parametrize(("unrouted", "count"), [(1, 1), (3, 3), (4, 4), (5, 4), (99, 4)])
def test_the_router_runs_on_a_batch_at_most(scheduler, unrouted, count):
    assert scheduler(view(unrouted=unrouted)) == Route(count)


# Experts that cannot come now are left out; with nobody else the router runs, or there is nothing to do


@BOTH
@pytest.mark.parametrize(
    ("unrouted", "blocked", "then"),
    [
        (0, (0,), Serve(1, 1, opens_batch=True)),
        (9, (0,), Serve(1, 1, opens_batch=True)),
        (0, (0, 1), None),
        (9, (0, 1), Route(4)),
    ],
)
def test_who_cannot_come_is_not_waited_for(scheduler, unrouted, blocked, then):
    assert scheduler(view({0: [1, 2], 1: [3]}, unrouted=unrouted, routed=True, blocked=blocked)) == then


def test_nobody_stops_joining_for_one_who_cannot_come():
    waiting = {0: [40, 41], 1: [10], 2: [20]}
    late = {"now": 20 + FAIRNESS + 1, "running": 1, "active": 0}
    assert affinity(view(waiting, **late, blocked=(1, 2))) == Serve(0, 2, opens_batch=True)
    assert affinity(view(waiting, **late, blocked=(1,))) == Decode()


# paper


def test_paper_finishes_what_runs_before_anything_else():
    assert paper(view({0: [1], 1: [2]}, unrouted=3, running=1, active=0)) == Decode()


def test_paper_serves_the_routed_one_by_one_in_the_order_in_which_they_came():
    assert paper(view({3: [7, 9], 1: [8, 11]}, resident=(1,))) == Serve(3, 1, opens_batch=True)
    assert paper(view({3: [9], 1: [8, 11]})) == Serve(1, 1, opens_batch=True)


def test_paper_serves_all_that_are_routed_before_it_routes_more():
    assert paper(view({2: [5]}, unrouted=8)) == Serve(2, 1, opens_batch=True)


def test_paper_opens_a_batch_only_when_the_last_one_is_served():
    assert paper(view({2: [5]}, batch_left=3)) == Serve(2, 1, opens_batch=False)
    assert paper(view({2: [5]}, batch_left=0)) == Serve(2, 1, opens_batch=True)


# affinity: the router stops the batch, so it waits for a drained one or for a whole batch of newcomers


def test_affinity_routes_newcomers_once_the_batch_has_drained():
    assert affinity(view({0: [1]}, unrouted=2, active=0, resident=(0,))) == Route(2)


def test_affinity_interrupts_a_batch_only_for_a_whole_batch_of_newcomers():
    assert affinity(view(unrouted=3, running=1, active=0)) == Decode()
    assert affinity(view(unrouted=4, running=1, active=0)) == Route(4)
    assert affinity(view({0: [1]}, unrouted=3, running=1, active=0)) == Serve(0, 1, opens_batch=True)
    assert affinity(view({0: [1]}, unrouted=9, running=1, active=0)) == Route(4)


def test_affinity_routes_nobody_into_a_full_batch():
    assert affinity(view(unrouted=9, running=3, active=0)) == Route(4)
    assert affinity(view({0: [1]}, unrouted=9, running=4, active=0)) == Decode()


# affinity: joining the batch


@pytest.mark.parametrize(("running", "joining"), [(1, 3), (3, 1), (2, 2)])
def test_affinity_lets_as_many_join_as_there_is_room_for(running, joining):
    waiting = {0: [1, 2, 3, 4, 5], 1: [6]}
    assert affinity(view(waiting, running=running, active=0)) == Serve(0, joining, opens_batch=True)


def test_affinity_lets_no_more_join_than_wait():
    assert affinity(view({0: [1, 2]}, running=1, active=0)) == Serve(0, 2, opens_batch=True)


def test_affinity_decodes_when_the_batch_is_full_or_nobody_waits_for_its_expert():
    assert affinity(view({0: [1, 2]}, running=4, active=0)) == Decode()
    assert affinity(view({1: [1, 2, 3, 4]}, running=1, active=0, resident=(0, 1))) == Decode()
    assert affinity(view(running=1, active=0)) == Decode()


# affinity: fairness, legal at the bound and overdue one picosecond later


def test_affinity_stops_joining_once_another_expert_is_overdue():
    waiting = {0: [40, 41], 1: [10]}
    assert affinity(view(waiting, now=10 + FAIRNESS, running=1, active=0)) == Serve(0, 2, opens_batch=True)
    assert affinity(view(waiting, now=10 + FAIRNESS + 1, running=1, active=0)) == Decode()


def test_affinity_goes_on_joining_while_the_overdue_one_waits_for_the_active_expert_itself():
    waiting = {0: [10, 41], 1: [11]}
    assert affinity(view(waiting, now=500, running=1, active=0)) == Serve(0, 2, opens_batch=True)


def test_affinity_serves_the_overdue_expert_next_though_another_is_asked_for_more():
    waiting = {0: [40, 41, 42], 1: [10]}
    assert affinity(view(waiting, now=10 + FAIRNESS)) == Serve(0, 3, opens_batch=True)
    assert affinity(view(waiting, now=10 + FAIRNESS + 1)) == Serve(1, 1, opens_batch=True)


def test_affinity_serves_the_longest_overdue_of_several_with_all_that_wait_for_it():
    waiting = {0: [3, 4, 5], 1: [2, 60], 2: [6]}
    assert affinity(view(waiting, now=900, resident=(0,))) == Serve(1, 2, opens_batch=True)


def test_a_request_is_judged_by_its_arrival_not_by_its_number():
    arrival = [0, 70, 75, 80]
    made = view({0: [1], 1: [2, 3]}, now=75 + FAIRNESS, arrival=arrival)
    assert affinity(made) == Serve(0, 1, opens_batch=True)  # 105 > 100: expert 0 is overdue
    made.now = 70 + FAIRNESS
    assert affinity(made) == Serve(1, 2, opens_batch=True)


@pytest.mark.parametrize(("late", "then"), [(0, Route(4)), (1, Decode())])
def test_no_batch_of_newcomers_interrupts_while_another_expert_is_overdue(late, then):
    made = view({1: [10]}, now=10 + FAIRNESS + late, unrouted=9, running=1, active=0)
    assert affinity(made) == then


@pytest.mark.parametrize(
    ("late", "routed", "then"),
    [
        (0, False, Route(4)),
        (0, True, Serve(0, 2, opens_batch=True)),
        (1, False, Route(4)),
        (1, True, Serve(1, 1, opens_batch=True)),
    ],
)
def test_somebody_is_served_between_two_runs_of_the_router(late, routed, then):
    made = view({0: [40, 41], 1: [10]}, now=10 + FAIRNESS + late, unrouted=9, routed=routed)
    assert affinity(made) == then


@pytest.mark.parametrize(
    ("late", "routed", "then"),
    [(0, False, Decode()), (1, False, Route(1)), (1, True, Decode())],
)
def test_a_newcomer_that_waited_too_long_is_routed_while_a_batch_runs_but_once(late, routed, then):
    made = view({}, now=1_000 + FAIRNESS + late, unrouted=1, running=1, active=0, routed=routed)
    assert affinity(made) == then


# affinity: which expert is next


def test_affinity_prefers_the_expert_asked_for_most():
    assert affinity(view({0: [1], 1: [2, 3], 2: [4]}, resident=(0, 2))) == Serve(1, 2, opens_batch=True)


def test_what_does_not_fit_one_batch_is_no_reason_to_prefer():
    waiting = {0: [4, 5, 6, 7], 1: [8, 9, 10, 11, 12, 13]}
    assert affinity(view(waiting)) == Serve(0, 4, opens_batch=True)
    assert affinity(view(waiting, resident=(1,))) == Serve(1, 4, opens_batch=True)


def test_of_equals_affinity_prefers_a_resident_then_the_one_waited_for_longest():
    waiting = {0: [4, 7], 1: [5, 8], 2: [3, 9]}
    assert affinity(view(waiting, resident=(1,))) == Serve(1, 2, opens_batch=True)
    assert affinity(view(waiting, resident=(0, 1))) == Serve(0, 2, opens_batch=True)
    assert affinity(view(waiting, resident=(0, 1, 2))) == Serve(2, 2, opens_batch=True)
    assert affinity(view(waiting)) == Serve(2, 2, opens_batch=True)


def test_the_last_active_expert_has_no_privilege_once_its_batch_is_drained():
    assert affinity(view({0: [4], 1: [3]}, active=0, resident=(0, 1))) == Serve(1, 1, opens_batch=True)


@BOTH
@given(data=st.data())
def test_a_decision_is_always_possible_and_never_over_the_batch(scheduler, data):
    numbers = data.draw(st.lists(st.integers(0, 400), max_size=12, unique=True))
    waiting: dict[int, list[int]] = {}
    for number in sorted(numbers):
        waiting.setdefault(data.draw(st.integers(0, 3)), []).append(number)
    batch = data.draw(st.integers(1, 4))
    running = data.draw(st.integers(0, batch))
    made = view(
        waiting,
        now=data.draw(st.integers(400, 600)),
        unrouted=data.draw(st.integers(0, 9)),
        running=running,
        active=data.draw(st.integers(0, 3)) if running else None,
        routed=data.draw(st.booleans()),
        batch=batch,
        resident=tuple(data.draw(st.sets(st.integers(0, 3)))),
    )
    match scheduler(made):
        case None:
            assert not (made.waiting.count or made.unrouted or made.members)
        case Decode():
            assert running
        case Route(requests=count):
            assert 1 <= count <= min(batch, made.unrouted)
        case Serve(expert=expert, requests=count):
            assert 1 <= count <= min(batch - running, len(waiting[expert]))
            assert not running or expert == made.active

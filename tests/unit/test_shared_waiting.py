"""Do groups that share queues know what plain queues would, that are told everything, and keep no pile of old news?"""

from __future__ import annotations

from random import Random

import pytest

from node.runtime.shared_waiting import SharedWaiting
from node.runtime.waiting import Waiting

HAVE = {0: (0, 1, 2), 1: (1, 2), 2: (0,)}  # by expert, the groups


def step(rng: Random, number: int, queues: list[SharedWaiting], plain: list[Waiting]) -> None:
    """Somebody comes, out of order at times, or some are taken, or an expert comes to HBM or leaves it."""
    expert = rng.choice(list(HAVE))
    group = rng.choice(HAVE[expert])
    waiting = queues[group].of(expert)
    what = rng.random()
    if what < 0.1:
        for one in (queues[group], plain[group]):
            one.changed(expert, resident=what < 0.05)
    elif what < 0.5 and waiting:
        count = rng.randint(1, waiting)
        for one in (queues[group], *(plain[other] for other in HAVE[expert])):
            one.take(expert, count)
    else:
        request = 10 * number - rng.choice([0, 0, 25])
        for one in (queues[group], *(plain[other] for other in HAVE[expert])):
            one.add(expert, request)


@pytest.mark.parametrize("batch", [1, 3])
def test_shared_queues_know_what_plain_ones_would_that_are_told_everything(batch):
    rng, queues, plain = Random(4), [SharedWaiting(batch, ()) for _ in range(3)], [Waiting(batch, ()) for _ in range(3)]
    for expert, of in HAVE.items():
        for group in of:
            queues[group].beside[expert] = [queues[other] for other in of if other != group]
    for number in range(3_000):
        step(rng, number, queues, plain)
        if number % 20 == 0:
            for one, other in zip(queues, plain, strict=True):
                assert {e: list(q) for e, q in one.queues.items()} == {e: list(q) for e, q in other.queues.items()}
                assert one.count == other.count == sum(len(queue) for queue in one.queues.values())
                for without in ((), (0,), (1,)):
                    assert one.oldest(without) == other.oldest(without)
                    assert one.most_wanted(without) == other.most_wanted(without)


def test_what_others_do_leaves_no_pile_with_a_group_that_looks_at_nothing():
    busy, idle = SharedWaiting(8, ()), SharedWaiting(8, ())
    busy.beside[0], idle.beside[0] = [idle], [busy]
    for number in range(1_000):
        busy.add(0, number)
        busy.take(0, 1)
        assert len(idle._by_age) + len(idle._by_wish) < 150

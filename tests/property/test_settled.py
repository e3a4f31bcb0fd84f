"""Newcomers who cannot change what is next are no events: does anything come out otherwise where they are?"""

from __future__ import annotations

from random import Random
from unittest import mock

import pytest

from node.request import Request
from node.runtime.group import Group
from node.runtime.scheduler import SCHEDULERS
from node.runtime.service import Service
from node.units import MS

SERVICES = (Service("plain", ttft=60 * MS), Service("urgent", priority=2, ttft=40 * MS))
CASES = 200


def stream(random: Random, count: int, classes: int) -> list[Request]:
    """So many requests for three experts, now many at once and now far apart."""
    at, requests = 0, []
    for number in range(count):
        at += random.choice([0, 1, 6, 17, 33]) * MS
        tokens, expert, service = random.randint(1, 30), random.randrange(3), random.randrange(classes)
        requests.append(Request(number, at, 5, tokens, expert, service))
    return requests


def test_to_leave_out_newcomers_while_nothing_depends_on_them_changes_nothing(clockwork, simulate):
    for seed in range(CASES):
        random = Random(seed)
        classes = random.choice([1, 2])
        options = {
            "batch": random.randint(1, 3),
            "fairness": random.choice([0, 7, 40, 10**6]) * MS,
            "router": random.choice([True, False]),
            "scheduler": random.choice(sorted(SCHEDULERS)),
            "queue_limit": random.choice([None, None, 4]),
            "shed_late": random.choice([True, False]),
        }
        deployment = clockwork(slots=1, services=SERVICES[:classes], **options)
        requests = stream(random, random.randint(10, 40), classes)
        left_out = simulate(deployment, requests)
        with mock.patch.object(Group, "settled", False):
            looked_at = simulate(deployment, requests)
        assert left_out.rows == looked_at.rows, (seed, options)
        assert left_out.planned == looked_at.planned, (seed, options)
        assert left_out.simulation.turned_away == looked_at.simulation.turned_away, (seed, options)


@pytest.mark.parametrize("router", [False, True])
def test_some_are_left_out_indeed(clockwork, router):
    """Or the above would hold of nothing."""
    steps = {}
    requests = [Request(number, max(0, number - 3) * MS, 5, 20, 0) for number in range(44)]
    for settled in (Group.settled, False):
        simulation = clockwork(slots=1, batch=2, fairness=0, router=router).simulation(requests)
        with mock.patch.object(Group, "settled", settled):
            steps[settled] = 0
            while (time := simulation.next_event()) is not None:
                simulation.advance(time + 1)
                steps[settled] += 1
    assert steps[Group.settled] < steps[False]

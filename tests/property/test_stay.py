"""Experts that have to stay: does everybody who leaves leave in time, and does a slow account by hand say the same?"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from node.events import Kind
from node.request import Request
from node.runtime.service import Service
from node.units import MS
from tests.property.test_simulation import EXAMPLES, deployed, workloads

COPY, CALL, PASS = 10, 2, 1


@EXAMPLES
@given(workload=workloads(), stay=st.sampled_from([1, 5 * MS, 40 * MS, 1_000 * MS]))
def test_nobody_leaves_before_having_been_there_long_enough(deploy, simulate, workload, stay):
    arguments, requests = workload
    outcome = simulate(deployed(deploy, arguments | {"min_residency": stay}, requests), requests)
    for plans in outcome.planned.values():
        came: dict[int, int] = {}
        for plan in plans:
            command = plan.command
            if command.kind == Kind.COPY:
                came[command.symbol] = max(done.time for done in plan.completions)
            elif command.kind == Kind.FREE and command.symbol in came:
                assert command.issued >= came.pop(command.symbol) + stay


@EXAMPLES
@given(workload=workloads(), drain=st.sampled_from([1, 2, 5]))
def test_whoever_is_waited_for_has_served_enough_or_makes_room_for_one_who_waited_too_long(
    deploy, simulate, workload, drain
):
    """One group and class, nothing routed or prefetched, all served, so that the rows say who waited when."""
    arguments, requests = workload
    arguments |= {"drain": drain, "router": None, "prefetch": False, "degree": 8, "min_residency": 0}
    arguments |= {"services": (Service(),), "queue_limit": None, "shed_late": False}
    requests = [replace(request, service=0) for request in requests]
    outcome = simulate(deployed(deploy, arguments, requests), requests)
    started = {row.request.id: row.request.arrival + row.charges["queue"] for row in outcome.rows}
    came: dict[int, int] = {}
    copies = {plan.command.issued: plan.command.symbol for plan in outcome.of_kind(Kind.COPY)}
    for command in (plan.command for plan in outcome.planned[0]):
        if command.kind == Kind.COPY:
            came[command.symbol] = command.issued
        elif command.kind == Kind.FREE and command.symbol in came:
            now, since = command.issued, came.pop(command.symbol)
            mine = [request for request in requests if request.expert == command.symbol]
            waiting = [request for request in mine if request.arrival <= now < started[request.id]]
            served = [request for request in mine if since <= started[request.id] < now]
            others = [r.arrival for r in requests if r.expert == copies[now] and r.arrival <= now <= started[r.id]]
            assert not waiting or len(served) >= drain or now - min(others) > outcome.deployment.options.fairness


# By hand, in ms: one group of the clockwork, answers of one token, and so no decode; lru; room for so many experts


@dataclass
class There:
    """An expert in HBM."""

    came: int
    used: int
    served: int = 0


@dataclass
class ByHand:
    slots: int
    batch: int
    stay: int
    drain: int
    fairness: int
    paper: bool

    def run(self, rows: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Of each (arrival, expert): when it began, when it ended."""
        there: dict[int, There] = {}
        found: dict[int, tuple[int, int]] = {}
        now = 0
        while len(found) < len(rows):
            queues: dict[int, list[int]] = {}
            for number, (arrival, expert) in enumerate(rows):
                if arrival <= now and number not in found:
                    queues.setdefault(expert, []).append(number)
            able = {expert: victims for expert in queues if (victims := self.victims(now, expert, queues, there, rows))}
            if not able:
                later = [arrival for arrival, _ in rows if arrival > now]
                ages = [one.came + self.stay for one in there.values() if one.came + self.stay > now]
                now = min(later + (ages if queues else []))
                continue
            expert = self.choose(now, {expert: queues[expert] for expert in able}, there, rows)
            who = queues[expert][: 1 if self.paper else self.batch]
            began = now
            if expert not in there:
                if len(there) == self.slots:
                    del there[min(able[expert], key=lambda one: (there[one].used, one))]
                now += COPY
                there[expert] = There(came=now, used=now)
            now += CALL * len(who)
            there[expert].used = now
            there[expert].served += len(who)
            now += PASS
            for number in who:
                found[number] = (began, now)
        return [found[number] for number in range(len(rows))]

    def victims(self, now, expert, queues, there, rows) -> list[int]:
        """Who may leave for an expert (itself where nobody has to): none where it cannot come."""
        if expert in there or len(there) < self.slots:
            return [expert]
        old = [one for one in there if there[one].came + self.stay <= now]
        idle = [one for one in old if one not in queues or there[one].served >= self.drain]
        overdue = now - rows[queues[expert][0]][0] > self.fairness
        return idle or (old if overdue else [])

    def choose(self, now, queues, there, rows) -> int:
        oldest = min(queues, key=lambda expert: queues[expert][0])
        if self.paper or now - rows[queues[oldest][0]][0] > self.fairness:
            return oldest
        order = {e: (-min(len(of), self.batch), e not in there, of[0]) for e, of in queues.items()}
        return min(order, key=lambda expert: order[expert])


@settings(max_examples=300, deadline=None)
@given(
    gaps=st.lists(st.tuples(st.sampled_from([0, 0, 1, 3, 7, 30]), st.integers(0, 3)), min_size=1, max_size=40),
    slots=st.integers(1, 3),
    batch=st.integers(1, 3),
    stay=st.sampled_from([0, 0, 1, 10, 14, 35, 200]),
    drain=st.sampled_from([0, 0, 1, 2, 3, 100]),
    fairness=st.sampled_from([0, 20, 50, 10_000]),
    paper=st.booleans(),
)
def test_an_account_by_hand_says_the_same(clockwork, simulate, *, gaps, slots, batch, stay, drain, fairness, paper):
    now, rows = 0, []
    for gap, expert in gaps:
        now += gap
        rows.append((now, expert))
    bounds = {"min_residency": stay * MS, "drain": drain, "fairness": fairness * MS, "batch": batch}
    deployment = clockwork(experts=4, slots=slots, scheduler="paper" if paper else "affinity", **bounds)
    requests = [Request(number, at * MS, 5, 1, expert) for number, (at, expert) in enumerate(rows)]
    outcome = simulate(deployment, requests)
    by_hand = ByHand(slots, batch, stay, drain, fairness, paper).run(rows)
    for number, (began, end) in enumerate(by_hand):
        row = outcome.row(number)
        assert (row.request.arrival + row.charges["queue"], row.end) == (began * MS, end * MS), number

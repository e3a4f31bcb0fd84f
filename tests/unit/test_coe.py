"""Do the groups of a node work side by side, each for its experts, within its memory?

In the clockwork, copying an expert takes 10 ms, a call 2 ms, a pass over a model 1 ms; the router's run is 3 passes.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from node.errors import InputError
from node.events import ROW, Kind
from node.models.shape import Shape
from node.units import MS

CALL_MS = {"switch": 10, "call_overhead": 2, "prefill": 1, "decode": 4}


# Two groups


def test_two_groups_of_four_sockets_work_at_the_same_time(clockwork, simulate, requests):
    outcome = simulate(clockwork(sockets=8, degree=4), requests((0, 5, 5, 0), (0, 5, 5, 1), (0, 5, 5, 2)))
    assert [row.group for row in sorted(outcome.rows, key=lambda row: row.request.id)] == [0, 1, 0]
    assert outcome.ms(0) == outcome.ms(1) == CALL_MS
    assert outcome.ms(2) == CALL_MS | {"queue": 17}
    assert outcome.simulation.now == 34 * MS


def test_newcomers_go_to_the_routers_in_turn_and_are_served_where_their_expert_lives(clockwork, simulate, requests):
    deployment = clockwork(sockets=8, degree=4, router=True)
    outcome = simulate(deployment, requests((0, 5, 5, 1), (0, 7, 5, 1), (40, 9, 5, 0), (40, 11, 5, 0)))
    assert [outcome.row(number).group for number in range(4)] == [1, 1, 0, 0]
    lengths = [[plan.command.tokens for plan in outcome.of_kind(Kind.PREFILL, group)] for group in (0, 1)]
    assert lengths == [[5, 9, 9, 11], [7, 5 + 7, 11]]
    for number in range(2):  # each routed alone; group 0 is done first, so group 1 knows of both when it decides
        assert outcome.ms(number) == CALL_MS | {"router": 3, "call_overhead": 2 + 4}
    assert outcome.ms(2) == CALL_MS | {"router": 3, "call_overhead": 2 + 2, "stall": 2 + 1}
    routed_by_group_1 = {"router": 3, "call_overhead": 2 + 2, "queue": 10 + 2 + 1, "prefill": 1, "decode": 4}
    assert outcome.ms(3) == routed_by_group_1


def test_a_request_routed_by_one_group_joins_the_running_batch_of_another(clockwork, simulate, requests):
    deployment = clockwork(sockets=2, router=True)
    outcome = simulate(deployment, requests((0, 5, 20, 0), (15.5, 5, 2, 0)))
    # the second is routed in group 1 until 20.5 ms; group 0, decoding since 18, cuts at 21
    assert outcome.ms(1) == {"router": 3, "queue": 0.5, "call_overhead": 4, "prefill": 1, "decode": 1}
    assert outcome.ms(0)["stall"] == 3
    assert [plan.command.symbol for plan in outcome.of_kind(Kind.PREFILL, 1)] == [3]


def test_without_a_router_newcomers_go_straight_to_their_experts_group(clockwork, simulate, requests):
    outcome = simulate(clockwork(sockets=8), requests(*[(0, 5, 5, expert) for expert in (2, 1, 0)]))
    assert [outcome.row(number).group for number in range(3)] == [2, 1, 0]
    assert all(outcome.ms(number) == CALL_MS for number in range(3))


def test_requests_of_one_expert_are_served_in_order_of_arrival_whichever_group_routed_them(
    clockwork, simulate, requests
):
    deployment = clockwork(sockets=2, router=True, batch=1)
    rows = [(0, 5, 30, 0), (1, 5, 1, 1), (25, 5, 1, 0), (26, 5, 1, 0)]  # 2 is for the busy group 0 to route, 3 not
    outcome = simulate(deployment, requests(*rows))
    assert outcome.row(2).end < outcome.row(3).end


def test_each_expert_and_the_router_run_their_own_program_in_their_own_size(deploy, simulate, requests):
    deployment = deploy(experts=(("mistral-7b", 2), ("llama-2-7b", 1)), router="llama-3-8b")
    outcome = simulate(deployment, requests((0, 100, 2, 2), (0, 100, 2, 1)))
    programs = {plan.command.symbol: plan.command.program for plan in outcome.of_kind(Kind.PREFILL)}
    assert programs == {1: 0, 2: 1, 3: 2}
    compiled = deployment.programs(0)
    assert [program.name for program in compiled] == ["mistral-7b", "llama-2-7b", "llama-3-8b"]
    assert [size.weights for size in deployment.settings.sizes] == [compiled[i].weight_bytes for i in (0, 0, 1, 2)]
    assert deployment.layouts[0].router.size == compiled[2].weight_bytes


# The host link


def test_one_host_link_copies_for_one_group_after_the_other(deploy, simulate, requests):
    deployment = deploy("dgx-a100", degree=4, call_overhead="none")
    outcome = simulate(deployment, requests((0, 128, 20, 0), (0, 128, 20, 1), (100, 128, 20, 2)))
    copy = deployment.activation_ps(0)
    assert copy == pytest.approx(6_738_415_616 * 2 / 32e9 * 1e12, rel=1e-3)  # whole expert over the whole link
    assert [outcome.row(number).charges["switch"] for number in range(2)] == [copy, 2 * copy]
    first, third = (plan for plan in outcome.of_kind(Kind.COPY, 0))
    (second,) = outcome.of_kind(Kind.COPY, 1)
    assert (first.command.issued, second.command.issued) == (0, copy)
    assert third.command.issued == max(2 * copy, outcome.row(0).end)
    assert outcome.counters[4]["dma_busy"] == copy


def test_who_is_handed_over_gets_the_link_before_the_group_that_routed_goes_on(deploy, simulate, requests):
    """Group 1 has served expert 1, routes the last request, for group 0, and goes on with expert 3: two copies."""
    deployment = deploy("dgx-a100", router="llama-2-7b", degree=4, batch=2, call_overhead="none")
    rows = [(5_000, 5, 9, 1), (5_000, 5, 1, 0), (5_000, 5, 1, 3), (5_001, 5, 1, 0), (5_002, 5, 1, 2)]
    outcome = simulate(deployment, requests((0, 5, 1, 0), *rows))
    (_, to_0), (_, to_1) = outcome.of_kind(Kind.COPY, 0), outcome.of_kind(Kind.COPY, 1)
    assert (to_0.command.symbol, to_1.command.symbol) == (2, 3)
    assert to_1.command.issued == to_0.completions[0].time


def test_a_link_per_socket_copies_for_all_groups_at_once(deploy, simulate, requests):
    numbers = {"host_link.sharing": "per_socket"}
    deployment = deploy("dgx-a100", degree=4, numbers=numbers, call_overhead="none")
    outcome = simulate(deployment, requests((0, 128, 20, 0), (0, 128, 20, 1)))
    copy = deployment.activation_ps(0)
    assert copy == pytest.approx(6_738_415_616 * 2 / 4 / 32e9 * 1e12, rel=1e-3)
    assert [outcome.row(number).charges["switch"] for number in range(2)] == [copy, copy]


# A decode that is cut, against the same steps one by one, with real costs


@pytest.mark.parametrize("window", [None, 140])
def test_a_cut_decode_ends_at_a_step_boundary_and_neither_loses_nor_gains_a_picosecond(
    window, deploy, simulate, requests
):
    deployment = deploy(experts=(("llama-2-7b", 2),), call_overhead="none")
    if window:
        shape = replace(deployment.models["llama-2-7b"], sliding_window=window)
        deployment = replace(deployment, models={"llama-2-7b": shape})
    rows = requests((0, 128, 60, 0), *((24 + 7.3 * n, 100 + n, 20, 0) for n in range(6)))
    outcome = simulate(deployment, rows)
    costs = deployment.programs(0)[0]
    runs = outcome.of_kind(Kind.DECODE)
    assert len([run for run in runs if run.command.steps == 1]) < len(runs) and len(runs) > 12
    for run in runs:
        d = run.command
        stepped = sum(
            costs.decode(d.sequences).run_ps(d.context + step * d.growth, d.growth, 1) for step in range(d.steps)
        )
        assert run.completions[0].time - d.issued == stepped
    assert sum(run.command.steps * run.command.sequences for run in runs) == sum(r.output_tokens - 1 for r in rows)
    long = outcome.row(0)
    spent = [run.completions[0].time - run.command.issued for run in runs]
    covered = [run for run in runs if run.command.issued < long.end]
    assert sum(run.command.steps for run in covered) == 59
    assert long.charges["decode"] == sum(spent[: len(covered)])
    assert all(first.completions[0].time <= then.command.issued for first, then in pairwise(runs))


# Rank 0 has the odd column of the FFN, rank 2 reads the KV cache of two heads: it is the slower from 192 tokens on
UNEVEN = Shape("uneven", 32, 8192, heads=9, kv_heads=3, head_dim=64, ffn=4097, vocabulary=32000, context=4096)


def stepped_together(deployment, context: int, steps: int) -> int:
    """Time of so many steps, each as long as on its slowest member."""
    members = [deployment.programs(rank)[0].decode(1) for rank in range(4)]
    return sum(max(cost.run_ps(context + step, 0, 1) for cost in members) for step in range(steps))


def test_an_activation_takes_as_long_as_the_copy_of_the_largest_shard(deploy, simulate, requests):
    deployment = deploy(experts=(("uneven", 1),), shapes=(UNEVEN,), degree=4)
    outcome = simulate(deployment, requests((0, 100, 1, 0)))
    shards = [deployment.programs(rank)[0].weight_bytes for rank in range(4)]
    rate = 200e9 * 0.62  # DDR bandwidth and the share of it that is reached
    assert outcome.row(0).charges["switch"] == deployment.activation_ps(0)
    assert deployment.activation_ps(0) == pytest.approx(max(shards) / rate * 1e12, rel=1e-9)
    assert outcome.counters[0]["copied"] > outcome.counters[1]["copied"] == shards[1]
    assert deployment.expert_bytes(0) == sum(shards)


@pytest.mark.parametrize("prompt", [100, 300])
def test_members_that_take_turns_at_being_the_slowest_step_together(prompt, deploy, simulate, requests):
    deployment = deploy(experts=(("uneven", 1),), shapes=(UNEVEN,), degree=4)
    outcome = simulate(deployment, requests((0, prompt, 200, 0)))
    assert outcome.row(0).charges["decode"] == stepped_together(deployment, prompt + 1, 199)


@pytest.mark.parametrize("prompt", [100, 170, 300])
def test_uneven_members_of_a_group_are_cut_at_the_step_of_the_slowest(prompt, deploy, simulate, requests):
    deployment = deploy(experts=(("uneven", 1),), shapes=(UNEVEN,), degree=4, call_overhead="none")
    after = {steps: stepped_together(deployment, prompt + 1, steps) for steps in (40, 41)}
    quickest = min(deployment.programs(rank)[0].decode(1).run_ps(prompt + 1, 1, 41) for rank in range(4))
    assert quickest < after[40]  # a member alone would be at its 42nd step
    first, joining = requests((0, prompt, 150, 0), (0, 5, 2, 0))
    begun = simulate(deployment, [first]).of_kind(Kind.DECODE)[0].command.issued
    outcome = simulate(deployment, [first, replace(joining, arrival=begun + after[40] + 1)])
    assert outcome.of_kind(Kind.DECODE)[0].command.steps == 41
    assert outcome.of_kind(Kind.PREFILL)[1].command.issued == begun + after[41]
    assert outcome.row(1).charges["queue"] == after[41] - after[40] - 1


# Windows


def test_time_passes_up_to_and_not_including_the_end_of_a_window(clockwork, requests):
    simulation = clockwork().simulation(requests((5, 5, 3, 0), (5, 5, 3, 0)))
    assert (simulation.next_event(), simulation.over) == (5 * MS, False)
    for end, then in ((5 * MS, 0), (5 * MS + 1, 5 * MS), (20 * MS, 5 * MS), (20 * MS + 1, 20 * MS)):
        simulation.advance(end)
        assert simulation.now == then and not simulation.over
    assert simulation.take(0).columns[ROW["kind"]].tolist().count(Kind.COPY) == 1
    assert len(simulation.take(0)) == 0
    simulation.advance(22 * MS + 1)
    assert (simulation.next_event(), simulation.over, simulation.completed) == (None, True, 2)


def test_events_are_arrivals_that_may_matter_and_ends_of_tasks(clockwork, requests):
    """Copy, call and prefill are one task; who arrives meanwhile can change nothing before it ends."""
    simulation = clockwork().simulation(requests((0, 5, 9, 0), (11, 5, 1, 1), (15, 5, 1, 1)))
    events = []
    while (due := simulation.next_event()) is not None:
        events.append(due // MS)
        simulation.advance(due + 1)
    assert events == [0, 13, 15, 21, 21 + 10 + 4 + 1]


def test_a_window_ends_with_so_many_commands_at_the_latest(clockwork, requests):
    rows = requests(*((n, 5, 2, 0) for n in range(40)))
    whole, sliced = clockwork().simulation(rows), clockwork().simulation(rows)
    whole.advance(10**18)
    windows = []
    while not sliced.over:
        sliced.advance(10**18, commands=10)
        windows.append(sliced.take(0).columns)
    assert len(windows) > 5 and max(window.shape[1] for window in windows) < 10 + 3 * 8
    assert np.concatenate(windows, axis=1).tolist() == whole.take(0).columns.tolist()


def test_a_decode_is_handed_out_only_when_it_can_be_cut_no_more(clockwork, requests):
    simulation = clockwork().simulation(requests((0, 5, 9, 0), (15.5, 5, 1, 0)))
    simulation.advance(15 * MS)
    assert Kind.DECODE not in simulation.take(0).columns[ROW["kind"]]
    simulation.advance(16 * MS)  # cut, but the step under way has not ended
    assert len(simulation.take(0)) == 0
    simulation.advance(16 * MS + 1)
    window = simulation.take(0)
    assert [window.columns[ROW[name], 0] for name in ("kind", "steps")] == [Kind.DECODE, 3]
    assert window.ends[0] == 16 * MS


# What cannot be served


def test_a_workload_without_requests_is_refused(clockwork, simulate):
    with pytest.raises(InputError, match="no request"):
        simulate(clockwork(), [])


def test_virtual_time_that_64_bits_cannot_hold_is_refused_and_not_computed(clockwork, simulate, requests):
    rows = requests((0, 5, 1, 0))
    assert simulate(clockwork(numbers={"host.call_overhead": "8_999_999 s"}), rows).simulation.completed == 1
    with pytest.raises(InputError, match="virtual time passes 9,000,000 s: the machine is too slow"):
        simulate(clockwork(numbers={"host.call_overhead": "9_000_000 s"}), rows)

"""Prompts in chunks beside answers, KV cache in pages, and who makes room: scenarios on one group, worked by hand.

The clockwork copies an expert in 10 ms, a call takes 2 ms, a pass 1 ms, whatever is in it. Which pass each request is
in, and what it waits for, is all there is. ``tests/differential/test_continuous_batching.py`` has the general case.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.errors import InputError
from node.events import Kind, Tier
from node.runtime.service import Service
from node.units import MS
from tests.conftest import CLOCK


def passes(outcome) -> list[tuple[str, int, int]]:
    """Kind, tokens (of a decode run: sequences) and steps of each run."""
    runs = [plan.command for plan in outcome.planned[0] if plan.command.kind in (Kind.PREFILL, Kind.DECODE)]
    return [(Kind(one.kind).name, one.tokens, one.steps) for one in runs]


# Chunks


def test_a_long_prompt_takes_several_steps_in_which_answers_go_on(clockwork, simulate, requests):
    """The first decodes from 13 on; the second is called from 15 to 17 and read in 4 + 4 + 2 tokens."""
    deployment = clockwork(batch=2, prefill_chunk=5)
    outcome = simulate(deployment, requests((0, 5, 20, 0), (14.5, 10, 3, 0)))
    assert passes(outcome)[:6] == [
        ("PREFILL", 5, 0), ("DECODE", 1, 2), ("PREFILL", 5, 0), ("PREFILL", 5, 0), ("PREFILL", 3, 0), ("DECODE", 2, 2),
    ]  # fmt: skip
    assert outcome.ms(1) == {"queue": 0.5, "call_overhead": 2, "prefill": 3, "decode": 2}
    assert outcome.ms(0) == {"switch": 10, "call_overhead": 2, "prefill": 1, "decode": 19, "stall": 2}


def test_whole_prompts_stop_the_answers_under_way(clockwork, simulate, requests):
    outcome = simulate(clockwork(batch=2), requests((0, 5, 20, 0), (14.5, 10, 3, 0)))
    assert outcome.ms(0)["stall"] == 3 and outcome.ms(1) == {
        "queue": 0.5,
        "call_overhead": 2,
        "prefill": 1,
        "decode": 2,
    }


def test_a_chunk_takes_from_several_prompts_in_order(clockwork, simulate, requests):
    deployment = clockwork(batch=3, prefill_chunk=8, call_overhead="none")
    outcome = simulate(deployment, requests((0, 5, 2, 0), (0, 5, 2, 0), (0, 5, 2, 0)))
    assert passes(outcome) == [("PREFILL", 8, 0), ("PREFILL", 8, 0), ("DECODE", 2, 1)]  # 5+3, then 1+2+5, then 1+1
    assert [outcome.row(number).ttft / MS for number in range(3)] == [11, 12, 12]


def test_pairs_of_a_chunk_are_those_with_all_tokens_before(clockwork, simulate, requests):
    outcome = simulate(clockwork(batch=1, prefill_chunk=4), requests((0, 10, 1, 0)))
    runs = [plan.command for plan in outcome.of_kind(Kind.PREFILL)]
    assert [(one.tokens, one.pairs, one.context, one.sequences) for one in runs] == [
        (4, 1 + 2 + 3 + 4, 4, 1), (4, 5 + 6 + 7 + 8, 8, 1), (2, 9 + 10, 10, 1),
    ]  # fmt: skip


def test_keys_of_a_chunk_are_within_the_window(clockwork, simulate, requests):
    """The last token of a chunk of n sees six, the first five before it: n + 5 keys in all."""
    deployment = clockwork(batch=2, prefill_chunk=4, shape=replace(CLOCK, sliding_window=6), call_overhead="none")
    outcome = simulate(deployment, requests((0, 10, 3, 0), (12.5, 3, 1, 0)))
    runs = [plan.command for plan in outcome.of_kind(Kind.PREFILL)]
    assert [(one.tokens, one.pairs, one.context) for one in runs] == [
        (4, 1 + 2 + 3 + 4, 4), (4, 5 + 6 + 6 + 6, 4 + 4), (2, 6 + 6, 2 + 5), (1 + 3, 6 + 1 + 2 + 3, 6 + 3),
    ]  # fmt: skip


# Pages


def test_a_request_has_pages_for_what_it_has(clockwork, simulate, requests):
    """6 tokens are 2 pages of 4; the ninth is in the third, and is made in the third step of decode."""
    outcome = simulate(clockwork(kv_tokens=16, kv_block=4), requests((0, 6, 7, 0)))
    page = 4 * outcome.deployment.settings.sizes[0].kv_token
    kv = [plan.command for plan in outcome.of_kind(Kind.ALLOCATE) if plan.command.symbol > 2]
    assert [(one.size, one.issued / MS) for one in kv] == [(page, 0), (page, 0), (page, 13)]
    assert len(outcome.of_kind(Kind.FREE)) == 3


def test_a_page_for_a_step_that_is_not_done_is_given_back(clockwork, simulate, requests):
    """The third page is for the last of three steps; another comes in the second, and is read from 15 on."""
    deployment = clockwork(batch=2, kv_tokens=16, kv_block=4, call_overhead="none")
    outcome = simulate(deployment, requests((0, 6, 4, 0), (12.5, 4, 1, 0)))
    changes = [plan.command for plan in outcome.planned[0] if plan.command.symbol > 2 and plan.command.kind < Kind.COPY]
    assert [(Kind(one.kind).name, one.issued / MS) for one in changes][:5] == [
        ("ALLOCATE", 0), ("ALLOCATE", 0), ("ALLOCATE", 11), ("FREE", 13), ("ALLOCATE", 13),
    ]  # fmt: skip


def test_who_is_last_makes_room_and_is_computed_again(clockwork, simulate, requests):
    """Five pages of 4 for two with 8 tokens each. At once both need a third and only one is left: the second leaves.

    It comes back when the first has ended, with its prompt and the token that it had.
    """
    deployment = clockwork(batch=2, kv_tokens=20, kv_block=4, call_overhead="none")
    outcome = simulate(deployment, requests((0, 8, 5, 0), (0, 8, 5, 0)))
    assert passes(outcome) == [("PREFILL", 16, 0), ("DECODE", 1, 4), ("PREFILL", 9, 0), ("DECODE", 1, 3)]
    assert outcome.ms(0) == {"switch": 10, "prefill": 1, "decode": 4}
    assert outcome.ms(1) == {"switch": 10, "prefill": 1, "decode": 3, "stall": 5}
    (group,) = outcome.simulation.groups
    assert (group.preemptions, group.recomputed, group.swapped) == (1, 8, 0)


def test_who_is_last_makes_room_and_waits_in_ddr(clockwork, simulate, requests):
    """The same, with two pages moved out and in over DMA."""
    deployment = clockwork(batch=2, kv_tokens=20, kv_block=4, call_overhead="none", preemption="swap")
    outcome = simulate(deployment, requests((0, 8, 5, 0), (0, 8, 5, 0)))
    size = 2 * 4 * deployment.settings.sizes[0].kv_token
    moved = deployment.machine.copy_ps(size, 1)
    assert passes(outcome) == [("PREFILL", 16, 0), ("DECODE", 1, 4), ("DECODE", 1, 4)]
    assert outcome.row(0).end == 15 * MS + moved and outcome.row(1).end == 19 * MS + 2 * moved
    assert outcome.row(1).charges["decode"] == 4 * MS and outcome.row(0).charges["stall"] == moved
    swaps = [(plan.command.tier, plan.command.size) for plan in outcome.of_kind(Kind.SWAP)]
    assert swaps == [(Tier.DDR, size), (Tier.HBM, size)]
    assert outcome.simulation.groups[0].swapped == 2 * size
    assert [outcome.counters[0][way] for way in ("swapped_out", "swapped_in")] == [size, size]


def test_an_expert_is_prefetched_when_dma_is_done_with_swapping(clockwork, simulate, requests):
    """The third, for another expert, comes while the second's pages are on their way to DDR, from 11 on."""
    deployment = clockwork(
        batch=2, kv_tokens=20, kv_block=4, call_overhead="none", preemption="swap", prefetch=True, fairness=0
    )
    moved = deployment.machine.copy_ps(2 * 4 * deployment.settings.sizes[0].kv_token, 1)
    outcome = simulate(deployment, requests((0, 8, 5, 0), (0, 8, 5, 0), (11 + moved / 2 / MS, 4, 1, 1)))
    copies = [plan.command.issued for plan in outcome.of_kind(Kind.COPY)]
    assert copies == [0, 11 * MS + moved]


def test_who_finds_no_room_in_ddr_is_computed_again(clockwork, simulate, requests):
    deployment = clockwork(batch=2, kv_tokens=20, kv_block=4, preemption="swap", experts=1)
    weights = deployment.settings.sizes[0].weights
    full = clockwork(
        batch=2, kv_tokens=20, kv_block=4, preemption="swap", experts=1, numbers={"ddr.capacity": f"{weights + 9} B"}
    )
    for each, swapped in ((deployment, True), (full, False)):
        (group,) = simulate(each, requests((0, 8, 5, 0), (0, 8, 5, 0))).simulation.groups
        assert (group.swapped > 0, group.recomputed > 0) == (swapped, not swapped)


def test_nobody_joins_while_one_who_made_room_waits(clockwork, simulate, requests):
    deployment = clockwork(batch=3, kv_tokens=20, kv_block=4, call_overhead="none")
    outcome = simulate(deployment, requests((0, 8, 5, 0), (0, 8, 5, 0), (11.5, 1, 1, 0)))
    assert [row.request.id for row in outcome.rows] == [0, 2, 1]  # it joins when the second is back
    assert outcome.row(2).ttft > outcome.row(0).end - 11.5 * MS


def test_the_less_important_make_room(clockwork, simulate, requests):
    services = (Service("low"), Service("high", priority=1))
    deployment = clockwork(batch=2, kv_tokens=20, kv_block=4, call_overhead="none", services=services)
    rows = requests((0, 8, 5, 0), (0, 8, 5, 0))
    outcome = simulate(deployment, [rows[0], replace(rows[1], service=1)])
    assert [row.request.id for row in outcome.rows] == [1, 0]


def test_the_router_has_pages_while_it_runs(clockwork, simulate, requests):
    """Two newcomers of 9 and 3 more tokens need 3 pages each: five pages are enough for one at a time."""
    outcome = simulate(clockwork(router=True, kv_tokens=20, kv_block=4), requests((0, 9, 2, 0), (0, 9, 2, 0)))
    routed = [plan.command for plan in outcome.of_kind(Kind.PREFILL) if plan.command.symbol == 3]
    assert [one.sequences for one in routed] == [1, 1]


@pytest.mark.parametrize(("tokens", "fits"), [(16, True), (17, False)])
def test_a_request_that_has_not_pages_enough_for_itself_is_refused(clockwork, requests, tokens, fits):
    deployment = clockwork(kv_tokens=19, kv_block=4)  # four pages
    rows = requests((0, tokens - 1, 1, 0))
    if fits:
        deployment.check_lengths(rows)
        return
    with pytest.raises(InputError, match=r"request 0 \(16 tokens in, 1 out\) needs .* runtime.kv_reserve leaves"):
        deployment.check_lengths(rows)

"""Is the next expert copied beside the run of another, and what does that bring whom? On the clockwork of conftest.

Copying an expert takes 10 ms, a call 2 ms, a pass 1 ms, beside a copy or not: its HBM is fast.
"""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from cluster.cli import coe
from node.errors import InputError
from node.events import Kind
from node.runtime.expert_cache import ExpertCache
from node.runtime.policies import EVICTION
from node.runtime.sharding import ModelSize, Region
from node.units import MS


def counts(outcome) -> dict[str, int]:
    group = outcome.simulation.groups[0]
    found = {"hits": group.hits, "misses": group.misses, "late": group.late}
    return found | {"prefetches": group.cache.prefetches, "wasted": group.cache.wasted}


def copies(outcome) -> list[tuple[int, float, float]]:
    """(expert, start, end) in ms."""
    plans = outcome.of_kind(Kind.COPY)
    return [(p.command.symbol, p.command.issued / MS, p.completions[0].time / MS) for p in plans]


@pytest.mark.parametrize("scheduler", ["paper", "affinity"])
def test_an_expert_that_is_there_in_time_is_a_hit(scheduler, clockwork, simulate, requests):
    outcome = simulate(clockwork(prefetch=True, scheduler=scheduler), requests((0, 5, 20, 0), (0, 5, 2, 1)))
    assert copies(outcome) == [(0, 0, 10), (1, 10, 20)]
    assert outcome.ms(0) == {"switch": 10, "call_overhead": 2, "prefill": 1, "decode": 19}
    assert outcome.ms(1) == {"queue": 32, "call_overhead": 2, "prefill": 1, "decode": 1}
    assert counts(outcome) == {"hits": 1, "misses": 1, "late": 0, "prefetches": 1, "wasted": 0}


@pytest.mark.parametrize("scheduler", ["paper", "affinity"])
def test_who_is_served_sooner_waits_for_what_is_left_of_the_copy(scheduler, clockwork, simulate, requests):
    outcome = simulate(clockwork(prefetch=True, scheduler=scheduler), requests((0, 5, 3, 0), (0, 5, 2, 1)))
    assert outcome.ms(1) == {"queue": 15, "switch": 5, "call_overhead": 2, "prefill": 1, "decode": 1}
    assert counts(outcome) == {"hits": 0, "misses": 2, "late": 1, "prefetches": 1, "wasted": 0}


def test_a_copy_that_ends_as_the_sockets_come_free_is_in_time(clockwork, simulate, requests):
    outcome = simulate(clockwork(prefetch=True), requests((0, 5, 8, 0), (0, 5, 2, 1)))
    assert outcome.ms(1) == {"queue": 20, "call_overhead": 2, "prefill": 1, "decode": 1}
    assert counts(outcome)["hits"] == 1


def test_another_expert_waits_until_the_copy_under_way_is_over(clockwork, simulate, requests):
    """Two ask for expert 2 while 1 is on its way: the batch of 0 ends at 15 ms, its copy begins at 20."""
    rows = [(0, 5, 3, 0), (0, 5, 2, 1), (12, 5, 2, 2), (12, 5, 2, 2)]
    outcome = simulate(clockwork(prefetch=True, slots=2), requests(*rows))
    assert copies(outcome) == [(0, 0, 10), (1, 10, 20), (2, 20, 30)]
    assert outcome.ms(2) == {"queue": 3, "switch": 15, "call_overhead": 4, "prefill": 1, "decode": 1}
    assert [plan.command.symbol for plan in outcome.of_kind(Kind.FREE) if plan.command.symbol < 3] == [0]
    assert outcome.ms(1) == {"queue": 36, "call_overhead": 2, "prefill": 1, "decode": 1}
    assert counts(outcome) == {"hits": 2, "misses": 2, "late": 0, "prefetches": 1, "wasted": 0}


def test_what_is_evicted_before_anybody_is_served_by_it_is_wasted(clockwork, simulate, requests):
    """Under lfu expert 1, never used, makes room for 2 and is copied once more."""
    rows = [(0, 5, 3, 0), (0, 5, 2, 1), (12, 5, 2, 2), (12, 5, 2, 2)]
    outcome = simulate(clockwork(prefetch=True, slots=2, eviction="lfu"), requests(*rows))
    assert [expert for expert, *_ in copies(outcome)] == [0, 1, 2, 1]
    assert counts(outcome) == {"hits": 1, "misses": 3, "late": 1, "prefetches": 2, "wasted": 1}


def test_nothing_is_prefetched_where_only_the_expert_in_use_could_make_room(clockwork, simulate, requests):
    rows = requests((0, 5, 20, 0), (0, 5, 2, 1), (3, 5, 9, 2))
    on, off = (simulate(clockwork(prefetch=prefetch, slots=1), rows) for prefetch in (True, False))
    assert on.trace() == off.trace() and on.rows == off.rows
    assert counts(on)["prefetches"] == 0


def test_the_expert_of_a_batch_that_the_router_interrupts_is_in_use(clockwork, simulate, requests):
    """Two who were routed wait for 1 while the router runs for the next two; 0 has still to go on."""
    rows = [(0, 5, 40, 0), (20.5, 5, 2, 1), (21.5, 5, 2, 1), (30.5, 5, 2, 2), (31.5, 5, 2, 2)]
    outcome = simulate(clockwork(prefetch=True, router=True, batch=2, slots=1), requests(*rows))
    freed = [plan.command for plan in outcome.of_kind(Kind.FREE) if plan.command.symbol == 0]
    assert outcome.ms(0)["stall"] == 10
    assert freed and all(command.issued >= outcome.row(0).end for command in freed)


@pytest.mark.parametrize(("fairness", "order"), [(MS, [0, 1, 2]), (10**6 * MS, [0, 2, 1])])
def test_it_is_the_expert_that_the_scheduler_would_choose(fairness, order, clockwork, simulate, requests):
    """Two wait for 2, but who waits for 1 has waited longest."""
    rows = [(0, 5, 30, 0), (1, 5, 2, 1), (2, 5, 2, 2), (2, 5, 2, 2)]
    outcome = simulate(clockwork(prefetch=True, slots=3, fairness=fairness), requests(*rows))
    assert [expert for expert, *_ in copies(outcome)] == order


@pytest.mark.parametrize("prefetch", [True, False])
def test_a_decode_beside_a_copy_takes_longer_by_its_share_of_hbm(prefetch, deploy, simulate, requests):
    deployment = deploy(slots=2, prefetch=prefetch, call_overhead="none")
    outcome = simulate(deployment, requests((0, 5, 40, 0), (0, 5, 2, 1)))
    (decode, _), (_, copy) = outcome.of_kind(Kind.DECODE), outcome.of_kind(Kind.COPY)
    command, cost = decode.command, deployment.programs(0)[0]
    share = deployment.machine.hbm_share(8)
    alone, beside = (
        cost.decode(1, part).run_ps(command.context, command.growth, command.steps) for part in (1.0, share)
    )
    took = decode.completions[0].time - command.issued
    if not prefetch:
        assert took == alone and copy.command.issued >= decode.completions[0].time
        return
    copied = copy.completions[0].time - command.issued  # the rest of the copy, after the prefill
    assert copy.command.issued < command.issued and alone < took < beside
    assert abs((took - alone) - copied * (1 - alone / beside)) < 0.02 * (took - alone)  # and 1 - alone / beside of it


def test_a_machine_whose_copies_leave_kernels_no_hbm_is_refused_for_prefetch_alone(deploy):
    fast = {"numbers": {"ddr.bandwidth": "2 TB/s", "ddr.efficiency": 1, "hbm.bandwidth": "2 TB/s"}}
    deploy(**fast).check_fits()
    with pytest.raises(InputError, match=r"^runtime\.prefetch: a copy takes all HBM bandwidth of sn40l-node .*lower$"):
        deploy(**fast, prefetch=True).check_fits()
    deploy(numbers=fast["numbers"] | {"hbm.bandwidth": "2.01 TB/s"}, prefetch=True).check_fits()


def test_room_is_made_around_the_experts_in_use():
    sizes = [ModelSize(size, 1, None) for size in (30, 30, 30, 60, 71, 70)]
    cache = ExpertCache(Region(1_000, 100), sizes, EVICTION["lru"])
    for expert in (0, 1, 2):
        cache.begin(expert, expert)
        cache.arrived(expert, expert)
    assert cache.prefetch(3, 10, {1}) is None and cache.residents() == (0, 1, 2)  # 30 on one side, 40 on the other
    assert cache.prefetch(4, 10, {0}) is None and cache.residents() == (0, 1, 2)
    evicted, address = cache.prefetch(5, 10, {0})
    assert ({victim.expert for victim in evicted}, address) == ({1, 2}, 1_030)
    assert (cache.copying, cache.prefetches, cache.wasted, cache.unused) == (5, 1, 0, {5})


@pytest.mark.parametrize("prefetch", ["true", "false"])
def test_a_run_tells_what_was_prefetched(prefetch, tmp_path):
    settings = [
        f"runtime.prefetch={prefetch}",
        "workload.requests=8",
        "workload.arrivals=at_once",
        "experts.router=none",
    ]
    settings += ["workload.popularity=distinct", "workload.output_tokens=5", "experts.count=8"]
    command = ["run", "--backend", "local", "--output", str(tmp_path / "out")]
    answer = CliRunner().invoke(coe, command + [part for text in settings for part in ("--set", text)])
    assert answer.exit_code == 0, answer.output
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert ("of them prefetched" in answer.stdout) == ("prefetches" in summary) == (prefetch == "true")
    assert ("no bound here" in answer.stdout) == (prefetch == "true")
    assert "- of 0.0%" in answer.stdout and summary["hit_rate_share_of_belady"] is None  # all experts are distinct
    if prefetch == "true":
        assert [summary[key] for key in ("expert_activations", "expert_hits", "hit_rate")] == [8, 7, 7 / 8]
        assert [summary[f"prefetches{what}"] for what in ("", "_late", "_wasted")] == [7, 0, 0]
        assert "7 (0 late, 0 wasted)" in answer.stdout

"""Is an activation, its share and what a run says of it what it is by hand, and what the runtime knows?

Llama-2-7B at TP8: 1,685,069,824 bytes a socket (worked out in test_footprint). Clockwork: a copy takes 10 ms, a call
2 ms, any pass 1 ms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from cluster.backends import LocalBackend
from cluster.compare import variants
from cluster.config import Config
from cluster.config_file import read_config
from cluster.deploy import deployment_of
from cluster.runner import prepare, run
from cluster.switching.activation import FACTORS, Named, Share, activation, models_of, over_bandwidth, share
from cluster.switching.evictions import Evictions
from cluster.switching.measure import measure, probe
from cluster.switching.served import estimated, spread, temperatures
from node.estimate import Call
from node.events import ROW, Kind
from node.runtime.memories import Known
from node.runtime.policies import EVICTION, Evictor, Resident
from node.units import MS, PS_PER_S

SHARD = 1_685_069_824
CALL = Call(128, 20)
SMALL = {"workload.requests": 60, "workload.rate": 20.0, "experts.count": 12, "machine.hbm.capacity": "9 GB"}


def config(**settings: object) -> Config:
    return read_config(None, {key.replace("__", "."): value for key, value in settings.items()}.items())


def named(label: str, found: Config | None = None) -> Named:
    return next(one for one in variants([label.partition(",")[0]], found or Config()) if one[0] == label)


# By arithmetic


@pytest.mark.parametrize(
    ("label", "bytes_per_s"),
    [
        ("sn40l-node", 124e9),  # 200 GB/s x 0.62
        ("dgx-a100", 32e9 / 8),  # one link for 8 sockets
        ("dgx-a100, link per GPU", 32e9),
        ("dgx-h100", 64e9 / 8),
        ("dgx-h100, link per GPU", 64e9),
    ],
)
def test_an_activation_is_bytes_of_a_socket_over_what_it_reaches(label: str, bytes_per_s: float) -> None:
    found = activation(Config(), named(label), "llama-2-7b")
    assert found.copy_in_s == pytest.approx(SHARD / bytes_per_s, rel=1e-11)
    assert (found.socket_bytes, found.expert_bytes, found.cannot) == (SHARD, 8 * SHARD, None)
    assert (found.copy_out_bytes, found.copy_out_s) == (0, 0.0)


def test_an_activation_goes_by_type_and_group() -> None:
    whole = activation(Config(), named("sn40l-node"), "llama-2-7b").copy_in_s
    halved = activation(config(experts__dtype="int8"), named("sn40l-node"), "llama-2-7b")
    assert halved.copy_in_s == pytest.approx(whole / 2, rel=1e-9)
    of_four = activation(config(sharding__tensor_parallel=4), named("sn40l-node"), "llama-2-7b")
    assert of_four.copy_in_s == pytest.approx(3_369_607_168 / 124e9, rel=1e-11)  # twice, but for norms


def test_an_expert_that_hbm_has_no_room_for_says_so() -> None:
    found = activation(Config(), named("sn40l-node"), "llama-3.1-405b")
    assert found.cannot is not None and found.cannot.startswith("out of memory in HBM of each socket of group 0")


@pytest.mark.parametrize("label", ["sn40l-node", "dgx-h100"])
def test_twice_the_bandwidth_is_half_the_time(label: str) -> None:
    times = dict(over_bandwidth(Config(), named(label)))
    assert tuple(times) == FACTORS
    assert all(times[factor] == pytest.approx(times[1.0] / factor, rel=1e-9) for factor in FACTORS)


def test_the_models_asked_for_come_after_the_experts_own() -> None:
    groups = [{"model": "falcon-40b", "count": 1}, {"model": "mistral-7b", "count": 1}]
    assert models_of(config(experts__group=groups), ["llama-2-7b", "mistral-7b"]) == [
        "falcon-40b", "mistral-7b", "llama-2-7b",
    ]  # fmt: skip


@pytest.mark.parametrize(("hit_rate", "expected"), [(0.0, 0.5), (0.5, 1 / 3), (0.9, 1 / 11), (1.0, 0.0)])
def test_the_share_over_hit_rates(hit_rate: float, expected: float) -> None:
    # R + E = 100 ms and A = 100 ms; at h = 0.9: 10 ms of 110 ms
    assert Share("m", 0.04, 0.06, 0.1).at(hit_rate) == pytest.approx(expected)


@pytest.mark.parametrize("label", ["sn40l-node", "dgx-a100", "dgx-h100, link per GPU"])
@pytest.mark.parametrize("overhead", ["per_request", "none"])
def test_router_expert_and_copy_are_what_a_request_alone_takes_in_a_run(label: str, overhead: str) -> None:
    asked = config(
        workload__requests=1, workload__input_tokens=128, workload__output_tokens=20,
        experts__count=2, runtime__call_overhead=overhead,
    )  # fmt: skip
    found = share(asked, named(label), CALL)
    e2e = run(asked, LocalBackend(), prepare(asked, named(label)[1])).columns["e2e"][0] / PS_PER_S
    assert found.router_s + found.expert_s + found.activation_s == pytest.approx(e2e, rel=1e-10)


def test_without_a_router_there_is_no_call_of_it() -> None:
    assert share(config(experts__router="none"), named("sn40l-node"), CALL).router_s == 0.0


# Requests


def columns(*rows: tuple[int, int, int, int, int]) -> dict[str, Any]:
    """Rows of (group, expert, arrival, ttft, switch)."""
    names = ("group", "expert", "arrival", "ttft", "switch")
    return {name: np.array([row[i] for row in rows], dtype=np.int64) for i, name in enumerate(names)}


def test_hot_warm_and_cold_by_hand() -> None:
    found = temperatures(
        columns(
            (0, 7, 0, 50, 10),  # first batch of expert 7: waited for its copy
            (0, 7, 5, 45, 5),  # joined that batch: its pass over the prompt ends at 50 too
            (0, 7, 60, 40, 0),  # found it there
            (0, 7, 900, 50, 10),  # it had been evicted
            (1, 7, 950, 50, 10),  # the first batch of expert 7 in another group
            (0, 8, 100, 9, 0),  # copied ahead of use: waited for nothing
            (0, 8, 990, 50, 3),  # evicted, copied again
        )
    )
    assert {name: mask.nonzero()[0].tolist() for name, mask in found.items()} == {
        "hot": [2, 5],
        "warm": [3, 6],
        "cold": [0, 1, 4],
    }


@pytest.mark.parametrize("settings", [{}, {"runtime.prefetch": True}, {"runtime.scheduler": "paper"},
                                      {"sharding.tensor_parallel": 4, "machine.hbm.capacity": "16 GB"}])  # fmt: skip
def test_every_request_is_hot_warm_or_cold(settings: dict[str, object]) -> None:
    asked = read_config(None, {**SMALL, **settings}.items())
    found = run(asked, LocalBackend(), prepare(asked))
    masks = temperatures(found.columns)
    assert np.stack(list(masks.values())).sum(axis=0).tolist() == [1] * 60
    waited = found.columns["switch"] > 0
    assert (masks["hot"] == ~waited).all() and masks["cold"].any()
    assert masks["warm"].any() or settings.get("runtime.prefetch")
    hits, misses = found.summary["expert_hits"], 60 - int(str(found.summary["expert_hits"]))
    assert int(masks["hot"].sum()) <= hits and int(waited.sum()) >= misses - int(bool(settings.get("runtime.prefetch")))


def test_largest_less_smallest_ttft_of_full_batches_by_hand() -> None:
    found = estimated(
        columns(
            (0, 1, 0, 100, 0), (0, 1, 40, 60, 0),  # a batch of two, TTFT 100 and 60
            (0, 1, 500, 30, 0), (0, 1, 505, 25, 0),  # another, 30 and 25
            (0, 1, 800, 900, 0),  # alone
            (0, 2, 0, 5, 0), (1, 2, 0, 5, 0),  # at once, in two groups
        ),
        batch=2,
    )  # fmt: skip
    assert found is not None and (found.smallest_s, found.largest_s, found.batches) == (25e-12, 100e-12, 2)
    assert found.switching_s == pytest.approx(75e-12)
    assert estimated(columns((0, 1, 0, 5, 0)), batch=2) is None


def test_percentiles_are_by_nearest_rank() -> None:
    times = np.array([5, 1, 2, 3, 4]) * PS_PER_S
    assert spread(times, (10, 50, 90)) == {"min": 1.0, "p10": 1.0, "p50": 3.0, "p90": 5.0, "max": 5.0}
    assert spread(times[:0]) is None


# Evictions


def test_the_age_at_eviction_by_hand(
    clockwork: Callable[..., Any], simulate: Callable[..., Any], requests: Callable[..., Any]
) -> None:
    # Expert 0: copied 0 to 10 ms, called until 12, its pass ordered at 12. Expert 1 likewise at 112, decoding from 113.
    # At 200 ms expert 2 takes the place of 0, at 300 ms 0 takes that of 1.
    rows = requests((0, 1, 1, 0), (100, 1, 3, 1), (200, 1, 1, 2), (300, 1, 1, 0))
    outcome = simulate(clockwork(experts=3, slots=2), rows)
    found = Evictions(3)
    found.observe(outcome.windows[0])
    assert [age / MS for age in found.ages] == [200 - 12, 300 - 113]
    assert [time / MS for time in found.again] == [300 - 200]
    assert (found.copies, found.copy_ps / MS) == (4, 40)


def test_windows_make_no_difference_to_ages(
    clockwork: Callable[..., Any], simulate: Callable[..., Any], requests: Callable[..., Any]
) -> None:
    rows = requests(*((7 * n, 1 + n % 3, 1 + n % 4, n * n % 5) for n in range(40)))
    deployment = clockwork(experts=5, slots=2)
    whole, parts = Evictions(5), Evictions(5)
    whole.observe(simulate(deployment, rows).windows[0])
    for window in simulate(deployment, rows, [n * MS for n in range(0, 400, 3)]).windows:
        parts.observe(window)
    assert whole == parts and len(whole.ages) > 5


@pytest.mark.parametrize("settings", [{}, {"runtime.prefetch": True}, {"sharding.tensor_parallel": 2,
                                      "machine.hbm.capacity": "30 GB"}, {"machine.name": "dgx-a100"}])  # fmt: skip
def test_ages_are_those_that_the_runtime_evicts_by(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    lru, last_used = EVICTION["lru"], []

    def recording(known: Known) -> Evictor:
        evictor = lru(known)

        def choose(candidates: Sequence[Resident]) -> Resident:
            victim = evictor.choose(candidates)
            last_used.append(victim.last_used)
            return victim

        return Evictor(choose, evictor.memory)

    monkeypatch.setitem(EVICTION, "lru", recording)
    asked = read_config(None, {**SMALL, **settings}.items())
    found, evicted = Evictions(12), []
    observe = found.observe

    def observed(planned: Any) -> None:
        before = len(found.ages)
        observe(planned)
        evicted.extend(found.ages[before:])

    run(asked, LocalBackend(), prepare(asked), observe=observed)
    assert len(last_used) == len(evicted) > 2
    # the runtime knows when each was used last, the commands when each left: their difference is the age
    assert sum(evicted) + sum(last_used) == sum(_evicted_at(asked))


def _evicted_at(asked: Config) -> list[int]:
    times: list[int] = []

    def observe(planned: Any) -> None:
        for plan in planned.values():
            kind, symbol, issued = (plan.columns[ROW[name]] for name in ("kind", "symbol", "issued"))
            times.extend(issued[(kind == Kind.FREE) & (symbol < 12)].tolist())

    run(asked, LocalBackend(), prepare(asked), observe=observe)
    return times


# The operator's estimate


@pytest.mark.parametrize("label", ["sn40l-node", "dgx-a100", "dgx-h100, link per GPU"])
def test_full_batches_on_an_idle_machine_tell_the_switching_time(label: str) -> None:
    asked = config(experts__count=2)
    deployment = deployment_of(asked, named(label)[1])
    found = probe(asked, deployment, CALL)
    assert found is not None and found.switching_s == pytest.approx(deployment.activation_ps(0) / PS_PER_S, rel=1e-9)


def test_where_a_batch_is_served_one_by_one_the_estimate_has_its_calls_in_it() -> None:
    asked = config(runtime__scheduler="paper", experts__count=2)
    deployment = deployment_of(asked)
    found, alone = probe(asked, deployment, CALL), share(asked, named("sn40l-node"), CALL)
    assert found is not None
    assert found.switching_s == pytest.approx(alone.activation_s + 7 * alone.expert_s, rel=1e-9)


def test_with_two_groups_the_estimate_has_waiting_in_it() -> None:
    # Each group's router takes half of a batch; what the other group routed waits until the first half is served.
    asked = config(sharding__tensor_parallel=4, experts__count=4)
    deployment = deployment_of(asked)
    found, alone = probe(asked, deployment, CALL), share(asked, named("sn40l-node"), CALL)
    assert found is not None and found.switching_s > alone.activation_s + alone.expert_s


def test_a_measurement_that_does_not_fit_the_kv_cache_is_none() -> None:
    asked = config(runtime__kv_reserve="64 MiB", experts__count=2)
    assert probe(asked, deployment_of(asked), Call(4000, 20)) is None


def test_a_machine_measured_says_what_its_run_says() -> None:
    asked = read_config(None, SMALL.items())
    found = measure(asked, named("sn40l-node", asked), CALL, lambda _progress: None)
    summary, copied = found.summary, found.summary["expert_activations"]
    assert found.copies == copied and found.copy_in_bytes == summary["bytes_ddr_to_hbm"]
    assert found.copy_in_s == pytest.approx(found.copies * SHARD / 124e9, rel=1e-9)
    assert found.total == 60 and found.evictions == len(found.ages) > 0
    assert found.copied_again <= found.evictions <= found.copies
    answer = found.as_json()
    assert (answer["copy_out_bytes"], answer["copy_out_s"]) == (0, 0.0) and "ages" not in answer

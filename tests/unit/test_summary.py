"""Is each number of the summary what anybody would work out from the table of requests and the machine?"""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from cluster.backends import LocalBackend
from cluster.config_file import read_config
from cluster.not_served import NotServed
from cluster.runner import Run, prepare, run
from cluster.summary import summarise, tally_of
from node.hardware.rdu import MOVED
from node.request import Requests

SMALL = {"cluster.backend": "local", "workload.requests": 90, "workload.rate": 3.0, "experts.count": 60}
NOBODY = NotServed(Requests.of([]), [], np.array([], dtype=np.int64))
# Bytes of llama-2-7b over 4 sockets: 6,738,415,616 parameters, and the norms, 2 a layer and one, once more on 3
EXPERT = 2 * (6_738_415_616 + 3 * (2 * 32 + 1) * 4096)


def serve(**settings: object) -> Run:
    named = {key.replace("__", "."): value for key, value in settings.items()}
    config = read_config(None, {**SMALL, **named}.items())
    return run(config, LocalBackend(), prepare(config))


@pytest.fixture(scope="module")
def result() -> Run:
    return serve(runtime__scheduler="paper", sharding__tensor_parallel=4, workload__warmup=10)


def rows(result: Run) -> list[dict[str, int]]:
    names = list(result.columns)
    return [
        dict(zip(names, row, strict=True)) for row in zip(*(c.tolist() for c in result.columns.values()), strict=True)
    ]


def again(result: Run, warmup: int = 0, **columns: list[int]) -> dict[str, Any]:
    """The summary of ``result`` had its requests been like this."""
    simulation = result.deployment.simulation(result.workload.requests)
    simulation.advance(2**62)
    length = len(next(iter(columns.values())))
    made = {name: np.array(columns.get(name, [1] * length), dtype=np.int64) for name in result.columns}
    made["request"] = np.arange(length)
    counted = ("hbm_peak", "ddr_used", "dma_busy", "tile_busy", "link_busy", *MOVED, "commands")
    counters = {socket: {name: 10 * socket + n for n, name in enumerate(counted)} for socket in range(8)}
    tallies = [tally_of(result.deployment, simulation)]
    return summarise(result.deployment, result.workload, tallies, made, counters, NOBODY, warmup)


# Times


@pytest.mark.parametrize(
    ("count", "p50", "p90", "p99"),
    [(1, 1, 1, 1), (2, 1, 2, 2), (3, 2, 3, 3), (10, 5, 9, 10), (11, 6, 10, 11), (100, 50, 90, 99), (101, 51, 91, 100)],
)
def test_percentiles_are_by_nearest_rank(result: Run, count: int, p50: int, p90: int, p99: int) -> None:
    values = [(7 * n) % count + 1 for n in range(count)] if count % 7 else list(range(count, 0, -1))
    assert sorted(values) == list(range(1, count + 1))
    found = again(result, e2e=[n * 10**12 for n in values])["e2e_s"]
    assert found == {"mean": (count + 1) / 2, "p50": p50, "p90": p90, "p99": p99}


def test_tpot_is_over_the_tokens_after_the_first(result: Run) -> None:
    e2e, ttft, tokens = [9 * 10**12, 5 * 10**12, 8 * 10**12], [10**12, 5 * 10**12, 2 * 10**12], [5, 1, 4]
    found = again(result, e2e=e2e, ttft=ttft, output_tokens=tokens)
    assert found["tpot_s"] == {"mean": 2.0, "p50": 2.0, "p90": 2.0, "p99": 2.0}  # (9 - 1) / 4 and (8 - 2) / 3
    assert found["ttft_s"]["p90"] == 5.0


def test_the_first_to_arrive_are_left_out_of_times_only(result: Run) -> None:
    e2e = [n * 10**12 for n in (50, 40, 1, 2, 3)]
    cold, warm = (again(result, warmup, e2e=e2e, output_tokens=[2] * 5) for warmup in (0, 2))
    assert (cold["e2e_s"]["p50"], warm["e2e_s"]["p50"], warm["e2e_s"]["mean"]) == (3, 2, 2)
    assert warm["completed"] == cold["completed"] == 5 and (cold["warmup"], warm["warmup"]) == (0, 2)
    assert {key for key in warm if warm[key] != cold[key]} == {"warmup", "e2e_s", "tpot_s"}


def test_answers_of_one_token_have_no_tpot() -> None:
    found = serve(workload__output_tokens=1).summary
    assert found["tpot_s"] is None and found["ttft_s"] == found["e2e_s"]


def test_the_times_are_those_of_the_requests_after_the_warmup(result: Run) -> None:
    late = rows(result)[10:]
    several = [row for row in late if row["output_tokens"] > 1]
    found: dict[str, list[float]] = {
        "ttft_s": [row["ttft"] for row in late],
        "e2e_s": [row["e2e"] for row in late],
        "tpot_s": [(row["e2e"] - row["ttft"]) / (row["output_tokens"] - 1) for row in several],
    }
    for name, values in found.items():
        said: Any = result.summary[name]
        assert said["mean"] == pytest.approx(fmean(values) / 1e12, rel=1e-12)
        for percent in (50, 90, 99):
            rank = math.ceil(percent / 100 * len(values))
            assert said[f"p{percent}"] == sorted(values)[rank - 1] / 1e12


# Work


def test_the_work_is_that_of_the_requests(result: Run) -> None:
    summary, table = result.summary, rows(result)
    makespan = max(row["arrival"] + row["e2e"] for row in table) / 1e12
    assert summary["machine"] == "sn40l-node"
    assert (summary["requests"], summary["completed"], summary["refused"], summary["warmup"]) == (90, 90, 0, 10)
    assert summary["makespan_s"] == makespan
    assert summary["throughput_requests_per_s"] == 90 / makespan
    assert summary["throughput_tokens_per_s"] == sum(row["output_tokens"] for row in table) / makespan
    activations = sum(row["switch"] > 0 for row in table)  # the scheduler of the paper serves one request at a time
    assert 0 < activations < 90
    assert (summary["expert_activations"], summary["expert_hits"]) == (activations, 90 - activations)
    assert summary["hit_rate"] == (90 - activations) / 90
    assert summary["switch_s_mean"] == pytest.approx(
        sum(row["switch"] for row in table) / activations / 1e12, rel=1e-12
    )
    assert summary["bytes_ddr_to_hbm"] == activations * EXPERT


def test_the_experts_did_what_their_requests_were_told(result: Run) -> None:
    """Counted anew from the table: one request is served at a time, and a copy has its time charged to it."""
    summary, table, experts = result.summary, rows(result), result.deployment.catalogue.count
    found: Any = summary["experts"]
    asked, copied = [0] * experts, [0] * experts
    for row in table:
        asked[row["expert"]] += 1
        copied[row["expert"]] += row["switch"] > 0
    assert found["activations"] == found["misses"] == copied
    assert found["hits"] == [of - missed for of, missed in zip(asked, copied, strict=True)]
    left = [came - gone for came, gone in zip(copied, found["evictions"], strict=True)]
    assert set(left) == {0, 1} and summary["expert_evictions"] == sum(found["evictions"]) == sum(copied) - sum(left)
    held = result.deployment.layouts[0].experts.size // (EXPERT // 4)
    for group in (0, 1):  # which the experts with even numbers are at home in, and those with odd ones
        assert sum(left[group::2]) == min(held, sum(count > 0 for count in asked[group::2]))
    assert summary["switch_s"] == pytest.approx(sum(row["switch"] for row in table) / 1e12, rel=1e-12)
    spent: Any = summary["time_s"]
    assert sum(spent.values()) == pytest.approx(sum(row["e2e"] for row in table) / 1e12, rel=1e-12)
    assert spent["queue"] == pytest.approx(sum(row["queue"] for row in table) / 1e12, rel=1e-12)
    for kind in ("input_tokens", "output_tokens"):
        assert summary[kind] == sum(row[kind] for row in table)


def optimum(string: list[int], slots: int) -> int:
    """Hits of whoever evicts the one that is used farthest ahead, looked for every time."""
    there: set[int] = set()
    hits = 0
    for position, expert in enumerate(string):
        later = string[position + 1 :]
        if expert in there:
            hits += 1
        elif len(there) == slots:
            there.remove(max(there, key=lambda one: later.index(one) if one in later else len(string)))
        there.add(expert)
    return hits


@pytest.mark.parametrize("pinned", [[], [0, 3]])
def test_the_yardstick_is_beladys_on_the_requests_of_each_group_as_they_were_served(pinned: list[int]) -> None:
    """The scheduler of the paper serves one at a time: in the order in which they end."""
    small = {"machine__hbm__capacity": "28 GB", "runtime__pinned": pinned}
    found = serve(runtime__scheduler="paper", sharding__tensor_parallel=4, **small)
    room = 28 * 10**9 - 4 * 2**30 - EXPERT // 4  # of a socket, with its share of the KV cache, and the router's
    served = sorted(rows(found), key=lambda row: row["arrival"] + row["e2e"])
    best = 0
    for group in (0, 1):
        mine = [row["expert"] for row in served if row["group"] == group]
        free = [expert for expert in mine if expert not in pinned]
        held = sum(expert % 2 == group for expert in pinned)
        best += optimum(free, room // (EXPERT // 4) - held) + len(mine) - len(free)
    assert int(str(found.summary["expert_hits"])) < best < 90
    assert found.summary["hit_rate_belady"] == best / 90
    assert found.summary["hit_rate_share_of_belady"] == int(str(found.summary["expert_hits"])) / best
    assert found.summary["hit_rate_belady_is_bound"] is True


def test_where_sizes_differ_or_experts_are_prefetched_the_yardstick_is_no_bound() -> None:
    groups = [{"model": "llama-2-7b", "count": 58}, {"model": "llama-3-8b", "count": 2}]
    settings = {**SMALL, "experts.group": groups}
    del settings["experts.count"]
    for pinned, bound in (([], False), ([58], False), ([58, 59], True)):
        config = read_config(None, {**settings, "runtime.pinned": pinned}.items())
        assert run(config, LocalBackend(), prepare(config)).summary["hit_rate_belady_is_bound"] is bound
    assert serve(runtime__prefetch=True).summary["hit_rate_belady_is_bound"] is False


def test_no_share_of_an_optimum_of_nothing() -> None:
    found = serve(workload__popularity="distinct", workload__requests=60).summary
    assert (found["hit_rate_belady"], found["hit_rate_share_of_belady"]) == (0.0, None)


def test_energy_is_power_times_makespan_where_power_is_known(result: Run) -> None:
    makespan = float(str(result.summary["makespan_s"]))
    assert result.summary["energy_j"] == pytest.approx(630 * 8 * makespan, rel=1e-12)
    assert "energy_j" not in serve(machine__name="dgx-a100").summary


def test_requests_over_their_context_are_counted() -> None:
    lengths = {"workload__input_tokens": "uniform(low=3000, high=4600)", "workload__output_tokens": 100}
    refused, run_all = (serve(workload__over_context=what, **lengths).summary for what in ("refuse", "run"))
    assert refused["over_context"] == refused["refused"] == run_all["over_context"]
    assert (refused["requests"], run_all["refused"], run_all["completed"]) == (90, 0, 90)
    assert refused["completed"] == 90 - int(str(refused["refused"])) < 90


def test_the_sockets_are_listed_in_order_with_what_they_did(result: Run) -> None:
    sockets: Any = result.summary["sockets"]
    makespan = float(str(result.summary["makespan_s"]))
    assert len(sockets) == 8
    assert sockets[0] == sockets[3] != sockets[4] == sockets[7]  # two groups of four
    for socket in sockets:
        assert {name for name, value in socket.items() if not value} == {
            "bytes_loaded", "bytes_swapped_out", "bytes_swapped_in", "bytes_sent", "bytes_received"
        }  # fmt: skip
        assert socket["bytes_collectives"] == pytest.approx(socket["link_busy_s"] * 400e9, abs=1)
        assert socket["ddr_used_bytes"] == 30 * EXPERT // 4  # the home copies of the group's experts
        assert EXPERT // 4 < socket["hbm_peak_bytes"] <= 64 * 2**30
        assert 0 < socket["link_busy_s"] < socket["tile_busy_s"] < makespan
    assert sum(socket["bytes_copied"] for socket in sockets) == result.summary["bytes_ddr_to_hbm"]
    switching = sum(row["switch"] for row in rows(result)) / 1e12
    assert sockets[0]["dma_busy_s"] + sockets[4]["dma_busy_s"] == pytest.approx(switching, rel=1e-12)


def test_what_the_sockets_counted_goes_where_it_belongs(result: Run) -> None:
    found = again(result, e2e=[1])
    in_ps = {"dma_busy_s": 2, "tile_busy_s": 3, "link_busy_s": 4}
    for number, socket in enumerate(found["sockets"]):
        assert (socket["hbm_peak_bytes"], socket["ddr_used_bytes"]) == (10 * number, 10 * number + 1)
        assert {name: socket[name] * 1e12 for name in in_ps} == pytest.approx(
            {k: 10 * number + n for k, n in in_ps.items()}
        )
    assert found["bytes_ddr_to_hbm"] == sum(10 * number + 5 for number in range(8))


def test_a_switch_takes_as_long_as_the_largest_shard(tmp_path: Path) -> None:
    model = tmp_path / "straddling.toml"  # 3 heads a socket, 4 to a KV head: sockets 1, 2, 5, 6 hold two KV heads
    sizes = {"layers": 2, "hidden": 1536, "heads": 24, "kv_heads": 6, "head_dim": 64, "ffn": 64, "vocabulary": 8}
    model.write_text("\n".join([f"{k} = {v}" for k, v in sizes.items()] + ['name = "straddling"', "context = 4096"]))
    found = serve(experts__model=str(model), experts__router="none", runtime__scheduler="paper")
    switches = [row["switch"] for row in rows(found) if row["switch"]]
    assert found.summary["switch_s_mean"] == pytest.approx(fmean(switches) / 1e12, rel=1e-12)


def test_a_switch_takes_as_long_as_its_own_expert() -> None:
    groups = [{"model": "llama-2-7b", "count": 3}, {"model": "llama-3-70b", "count": 3}]
    settings = {"cluster.backend": "local", "workload.requests": 30, "runtime.scheduler": "paper"}
    config = read_config(None, {**settings, "experts.group": groups}.items())
    found = run(config, LocalBackend(), prepare(config))
    switches = [row["switch"] for row in rows(found) if row["switch"]]
    assert len(set(switches)) == 2  # of two models
    assert found.summary["switch_s_mean"] == pytest.approx(fmean(switches) / 1e12, rel=1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        {"workload__requests": 1},
        {"workload__output_tokens": 1, "workload__requests": 3},
        {"experts__count": 1, "experts__router": "none", "runtime__call_overhead": "none"},
        {"machine__name": "dgx-h100", "workload__warmup": 89},
    ],
)
def test_no_number_is_nan_or_infinite(settings: dict[str, object]) -> None:
    json.dumps(serve(**settings).summary, allow_nan=False)

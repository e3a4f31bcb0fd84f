"""What a plan asks for, who is a candidate, when a run decides, and what is written; worked out by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cluster.config import Config
from cluster.config_file import values_of
from cluster.plan.asked import Asked, promises, workload_values
from cluster.plan.candidates import Candidate, check_choices, default_points, points_of_all
from cluster.plan.interval import share_of
from cluster.plan.measure import Measured, Trials, measured
from cluster.plan.problem import Problem, problem_of
from cluster.plan.report import Report, as_json, picture
from cluster.plan.search import Search
from cluster.runner import prepare
from cluster.sweep.tasks import Found, Task
from node.errors import InputError
from node.units import PS_PER_S
from tests.planning import Emulated

ASKED = Asked(0.9, 4, 12)
SMALL = {
    "experts.count": 5,
    "experts.router": "none",
    "workload.requests": 300,
    "workload.rate": 9.0,
    "workload.input_tokens": 64,
    "workload.output_tokens": 4,
    "slo.ttft": "1 s",
}
TWO = [{"runtime.eviction": "lru"}, {"runtime.eviction": "lfu"}]


def values(**settings: object) -> dict[str, tuple[object, str]]:
    return values_of({}, "", {**SMALL, **{key.replace("__", "."): one for key, one in settings.items()}}.items())


def problem(*points: dict[str, object], origins: Mapping[str, str] | None = None, **settings: object) -> Problem:
    return problem_of(ASKED, values(**settings), list(points) or TWO, origins or {}, None, None)


def found(*kept: int, overloaded: bool = False, counted: int = 100) -> list[Found]:
    """Of each seed what came of a run of which so many requests were kept to."""
    made: list[Found] = []
    for one in kept:
        levels = {"goodput_requests_per_s": 2.0, "classes": [level("all", one, counted), level("best effort", 0, 10)]}
        summary = {"ttft_s": {"p99": one / 100}, "e2e_s": None, "hit_rate": 0.5, "service_levels": levels}
        made.append({"overloaded": overloaded and one == kept[0], "summary": summary})
    return made


def level(name: str, kept: int, counted: int) -> dict[str, object]:
    return {"name": name, "counted": counted, "attainment": kept / counted if counted else None}


# What is asked


def test_promises_are_keys_of_slo() -> None:
    assert promises(" ttft=2 s, e2e = 30s") == {"slo.ttft": ("2 s", "--slo"), "slo.e2e": ("30s", "--slo")}
    for text in ("", "ttft", "ttft=", "tpot=1s", "ttft=1s,ttft=2s", "ttft=1s,"):
        with pytest.raises(InputError, match="must be ttft=TIME, e2e=TIME or both"):
            promises(text)


def made(rate: float | None, requests: int | None, **settings: object) -> dict[str, object]:
    given = {key: one for key, one in values(**settings).items() if key != "workload.requests" or settings}
    return {key: value for key, (value, _) in workload_values(given, rate, requests).items() if "workload" in key}


def test_a_run_is_as_long_as_its_promises_ask_for() -> None:
    bare = {"slo.ttft": ("1 s", ""), "workload.rate_scale": (2.0, "")}
    for more, rate, requests in (
        ({}, 0.5, 2000),  # ten minutes would be 600
        ({}, 4, 4800),  # ten minutes at 8 requests/s
        ({"slo.e2e": ("120 s", "")}, 4, 19200),  # twenty times two minutes: 5 % more are not overload
    ):
        found = workload_values({**bare, **more}, rate, None)
        assert found["workload.requests"][0] == requests and found["workload.warmup"][0] == requests // 10
        assert found["workload.rate"] == (rate, "--rate")
    assert made(3.0, 40, workload__warmup=7, workload__requests=10)["workload.requests"] == 40
    assert made(3.0, 40, workload__warmup=7)["workload.warmup"] == 7
    assert made(None, None, workload__requests=90)["workload.warmup"] == 9


def trace(folder: Path, expert: str = "") -> str:
    path = folder / "t.jsonl"
    rows = [f'{{"timestamp": {1000 * n}, "input_length": 9, "output_length": 2{expert}}}' for n in range(21)]
    path.write_text("\n".join(rows))
    return str(path)


def test_a_trace_is_scaled_to_the_rate(tmp_path: Path) -> None:
    """21 requests in 20 s, at 4.2 requests/s: four times as quick."""
    given = {"workload.trace": (trace(tmp_path), "--trace"), "slo.ttft": ("1 s", "")}
    assert workload_values(given, 4.2, None)["workload.rate_scale"] == (pytest.approx(4.0), "--rate")
    assert workload_values(given, None, None)["workload.warmup"][0] == 2
    first = workload_values(given, 4.0, 11)  # 11 of them in 10 s
    assert first["workload.limit"][0] == 11 and first["workload.rate_scale"][0] == pytest.approx(4 / 1.1)
    asked = Asked(0.5, 4, 3)
    assert problem_of(asked, given, TWO, {}, 4.2, None).rate == pytest.approx(4.2)
    with pytest.raises(InputError, match=r"^--rate-scale: workload.rate_scale: --rate says it"):
        workload_values({**given, "workload.rate_scale": (2.0, "--rate-scale")}, 4.0, None)


def test_what_no_search_could_answer_is_refused(tmp_path: Path) -> None:
    named = {"workload.trace": (trace(tmp_path, ', "expert": 1'), "--trace"), "slo.ttft": ("1 s", "")}
    with pytest.raises(InputError, match=r"t\.jsonl: names the expert of each request"):
        problem_of(ASKED, named, TWO, {}, None, None)
    bare = {key: one for key, one in values().items() if key != "slo.ttft"}
    with pytest.raises(InputError, match="--slo: nothing is promised"):
        problem_of(ASKED, bare, TWO, {}, None, None)
    bare |= {"workload.arrivals": ("at_once", ""), "slo.ttft": ("1 s", "")}
    with pytest.raises(InputError, match="all requests arrive at once"):
        problem_of(ASKED, {key: one for key, one in bare.items() if key != "workload.rate"}, TWO, {}, None, None)


def test_runs_that_are_too_short_to_show_it_are_refused() -> None:
    """Four runs: a share of 0.9 is shown by 9 x 3.182^2 = 91.1 requests, of which the first tenth does not count."""
    problem(workload__requests=26)  # 4 x (26 - 2) = 96
    with pytest.raises(
        InputError, match=r"92 of each class must count, and 92 do|92 of each class must count, and 88 do"
    ):
        problem(workload__requests=24)
    classes = [{"name": "chat", "ttft": "1 s", "share": 1.0}, {"name": "batch", "share": 3.0}]
    with pytest.raises(InputError, match="92 of each class must count, and 90 do"):
        problem(workload__requests=100, slo__classes=classes, slo__ttft="2 s")  # a quarter of 4 x 90


# Candidates


def test_without_candidates_there_are_those_of_the_machines_sockets() -> None:
    found = default_points({}, ["sn40l-node"])
    shardings = {(one["sharding.tensor_parallel"], one.get("sharding.home")) for one in found}
    assert shardings == {(8, None), *((size, home) for size in (4, 2) for home in ("one_group", "all_groups"))}
    assert len(found) == 5 * 2 * 2 and "machine.name" not in found[0]
    several = default_points({}, ["sn40l-rack", "sn40l-socket"])
    sizes = {(one["machine.name"], one["sharding.tensor_parallel"]) for one in several}
    assert sizes == {("sn40l-rack", 16), ("sn40l-rack", 8), ("sn40l-rack", 4), ("sn40l-socket", 1)}


def test_what_is_set_is_not_varied_and_nothing_is_there_twice() -> None:
    found = default_points({"sharding.tensor_parallel": (4, ""), "runtime.eviction": ("arc", "")}, ["sn40l-node"])
    assert found == [
        {"routing.policy": "least_loaded"},
        {"routing.policy": "expert_affinity"},
        *({"sharding.home": home, "routing.policy": policy}
          for home in ("one_group", "all_groups") for policy in ("least_loaded", "expert_affinity")),
    ]  # fmt: skip


def test_candidates_of_several_tables_are_there_once() -> None:
    found = points_of_all([{"a": [1, 2]}, {"a": [2, 3], "b": [4]}, {"a": [2]}])
    assert found == [{"a": 1}, {"a": 2}, {"a": 2, "b": 4}, {"a": 3, "b": 4}]


@pytest.mark.parametrize(
    "key", ["workload.rate", "experts.count", "seed", "slo.ttft", "routing.nodes", "cluster.window"]
)
def test_what_nobody_deploys_is_no_choice(key: str) -> None:
    with pytest.raises(InputError, match=rf"p\.toml: candidates\.{key}: is no choice; allowed: "):
        check_choices(["runtime.eviction", key], "p.toml")


def test_a_run_has_its_nodes_and_its_seed() -> None:
    one = problem(seed=5).candidates[1]
    config = one.at(3, 2)
    assert (config.routing.nodes, config.seed, config.runtime.eviction) == (3, 7, "lfu")
    prepare(one.at(1, 0))  # a policy has no effect there, but the number of nodes is searched for
    assert one.name == "eviction lfu" and Candidate({}, one.config, one.machine).name == "as set"


def test_a_key_may_have_no_effect_in_some_candidates_but_not_in_all() -> None:
    points = [{"routing.policy": policy} for policy in ("round_robin", "least_loaded")]
    found = problem(*points, routing__staleness="2 s").candidates
    assert [one.cannot_run for one in found] == [None, None] and found[1].config.routing.staleness == "2 s"
    with pytest.raises(InputError, match=r"--set: routing.staleness: has no effect, because routing.policy is round"):
        problem(points[0], routing__staleness="2 s")


def test_a_candidate_that_cannot_be_has_a_reason_and_one_is_enough() -> None:
    points: list[dict[str, object]] = [{"sharding.tensor_parallel": size} for size in (8, 3)]
    found = problem(*points).candidates
    assert found[0].cannot_run is None and "sharding.tensor_parallel = 3: must divide" in str(found[1].cannot_run)
    with pytest.raises(InputError, match="must divide"):
        problem(points[1])
    big: list[dict[str, object]] = [{"machine.name": name} for name in ("dgx-a100", "sn40l-node")]
    found = problem(*big, experts__count=300).candidates
    assert found[1].cannot_run is None and str(found[0].cannot_run).startswith("out of memory in DDR of each socket")


def test_a_number_is_set_on_those_machines_that_know_it() -> None:
    points: list[dict[str, object]] = [{"machine.name": name} for name in ("dgx-a100", "sn40l-node")]
    found = problem(*points, machine__pipeline__lanes=16, machine__cost_per_hour=7).candidates
    assert [set(one.config.machine.numbers) for one in found] == [
        {"cost_per_hour"},
        {"cost_per_hour", "pipeline.lanes"},
    ]
    assert [one.machine.cost_per_hour for one in found] == [7, 7]
    with pytest.raises(InputError, match=r"machine\.nothing\.there"):
        problem(*points, machine__nothing__there=1)
    with pytest.raises(InputError, match=r"machine\.pipeline\.lanes: none of dgx-a100, dgx-h100 has this number"):
        problem({"machine.name": "dgx-a100"}, {"machine.name": "dgx-h100"}, machine__pipeline__lanes=16)


def test_cost_is_the_price_of_all_nodes_or_their_number_and_then_sockets() -> None:
    one = problem(machine__cost_per_hour=2.5).candidates[0]
    assert one.cost(3, True) == (7.5, 24) and one.cost(3, False) == (3, 24)


# What runs come to


def test_shares_are_of_the_classes_that_count_and_figures_are_means() -> None:
    one = measured(2, found(90, 100), ["all"])
    assert one.shares == {"all": share_of([90, 100], [100, 100])} and (one.nodes, one.seeds) == (2, 2)
    assert one.figures == {
        "ttft_s.p99": pytest.approx(0.95),
        "e2e_s.p99": None,
        "service_levels.goodput_requests_per_s": 2.0,
        "hit_rate": 0.5,
    }
    both = measured(2, found(90, 100), ["all", "best effort"])
    assert both.worst == both.shares["best effort"] and both.shares["best effort"].share == 0
    with pytest.raises(InputError, match=r"no request of class 'all' counts in any run; give more --requests"):
        measured(2, found(0, 0, counted=0), ["all"])


def test_requests_are_counted_back_from_shares_and_one_overloaded_run_is_enough() -> None:
    one = measured(1, found(29, 57, 58, overloaded=True), ["all"])  # 29 / 100 x 100 is a little less than 29
    assert one.shares["all"] == share_of([29, 57, 58], [100] * 3) and one.overloaded


def test_a_class_that_lacks_in_one_run_counts_by_the_others() -> None:
    runs = found(90) + found(0, counted=0)
    assert measured(1, runs, ["all"]).shares["all"].counted == 100


def test_it_meets_by_the_lower_end_and_fails_clearly_by_the_upper() -> None:
    def of(*kept: int, **more: Any) -> Measured:
        return measured(1, found(*kept, counted=1000, **more), ["all"])

    good, unclear, bad = of(990, 990, 990, 990), of(905, 905, 905, 905), of(800, 800, 800, 800)
    assert [one.meets(ASKED) for one in (good, unclear, bad)] == [True, False, False]
    assert [one.fails_clearly(ASKED) for one in (good, unclear, bad)] == [False, False, True]
    late = of(990, 990, 990, 990, overloaded=True)
    assert not late.meets(ASKED) and late.fails_clearly(ASKED)
    assert [one.hopeless(ASKED) for one in (of(800, 800), of(801, 799), of(799, 800))] == [False, False, True]
    cannot = measured(1, [*found(100), {"cannot_run": "everybody was turned away"}], ["all"])
    assert not cannot.meets(ASKED) and cannot.fails_clearly(ASKED) and cannot.worst is None


def trials(missed: list[list[int]]) -> tuple[Trials, Emulated]:
    runs = Emulated({"lru": missed}, [1.0])
    return Trials(problem().candidates[0], ASKED, ["all"], runs, lambda _what, _nodes: None), runs


def test_the_other_seeds_are_run_only_where_they_can_change_anything() -> None:
    """Of 1,000 requests in each of four runs 100 may be missed: of two runs together 400."""
    tried, runs = trials([[200, 201, 0, 0], [200, 200, 0, 0], [800, 0, 0, 0]])
    assert not tried.meets(1) and runs.runs == 2 and tried.fails_clearly(1)
    assert tried.at(2).seeds == 4 and runs.runs == 6
    assert not tried.meets(3) and runs.runs == 8  # overloaded in the first
    assert tried.at(1).seeds == 2 and runs.runs == 8  # what was run is kept
    assert tried.whole(1).seeds == 4 and runs.runs == 10 and tried.at(1).shares["all"].share == 0.89975


# What is told


def searched(missed: dict[str, list[list[int]]], *capacity: float) -> Search:
    search = Search(problem(), Emulated(missed, capacity or (3.0, 9.0)), lambda _what, _nodes: None)
    search.run()
    return search


def test_where_more_nodes_do_worse_it_is_said() -> None:
    down = [[500] * 4, [300] * 4, [50] * 4, [60] * 4] + [[0] * 4] * 8
    search = searched({"lru": down, "lfu": [[1000] * 4] * 12})
    first = search.rows[0]
    assert search.best is first and first.nodes == 3
    first.trials.whole(4)
    assert [(few.nodes, many.nodes) for few, many in first.not_monotone] == [(3, 4)]
    assert search.rows[1].nodes is None and search.rows[1].not_monotone == []


def test_shares_of_different_seeds_say_nothing_of_more_nodes() -> None:
    """Two nodes do worse in the first two seeds, of which one node had no others."""
    row = searched({"lru": [[200, 300, 0, 0], [400, 400, 400, 400]] + [[0] * 4] * 10, "lfu": [[1000] * 4] * 12}).rows[0]
    row.trials.at(1)
    row.trials.whole(2)
    assert [row.tried[nodes].seeds for nodes in (1, 2)] == [2, 4] and not row.not_monotone
    row.trials.whole(1)
    assert [(few.nodes, many.nodes) for few, many in row.not_monotone] == [(1, 2)]


def test_who_does_not_do_with_as_many_as_another_is_tried_with_these_alone() -> None:
    lru, lfu = [[1000] * 4] * 3 + [[0] * 4] * 9, [[1000] * 4] * 7 + [[0] * 4] * 5
    search = searched({"lru": lru, "lfu": lfu}, 9.0, 3.0)
    assert [row.nodes for row in search.rows] == [4, None] and list(search.rows[1].tried) == [4]
    assert search.rows[1].below is search.rows[1].tried[4]


def test_of_equal_plans_the_one_that_does_best_is_the_plan() -> None:
    search = searched({"lru": [[20] * 4] * 12, "lfu": [[10] * 4] * 12})
    assert [row.nodes for row in search.rows] == [1, 1] and search.best is search.rows[1]
    same = searched({"lru": [[10] * 4] * 12, "lfu": [[10] * 4] * 12})
    assert same.best is same.rows[0]


def test_what_a_node_can_do_is_measured_with_all_requests_there_and_none_turned_away() -> None:
    asked: list[Config] = []

    def solve(tasks: Iterable[Task]) -> Iterator[tuple[int, Found]]:
        made = list(tasks)
        asked.extend(config for _, config in made)
        yield from ((number, {"cannot_run": "no"}) for number, _ in made)

    search = Search(
        problem(runtime__queue_limit=3, runtime__shed_late=True, workload__limit=280), solve, lambda _what, _nodes: None
    )
    search.run()
    assert [row.cannot_run for row in search.rows] == ["no", "no"] and search.best is None and len(asked) == 2
    deployment, workload = prepare(asked[0])
    assert deployment.options.queue_limit is None and not deployment.options.shed_late
    assert len(workload.requests) == 280 and asked[0].workload.warmup == 0 and asked[0].routing.nodes == 1
    assert int(workload.requests.arrival[-1]) < 1e-6 * PS_PER_S


def test_the_search_begins_with_whom_one_node_does_most_for_and_says_how_much() -> None:
    told: list[str] = []
    asked = problem()
    flat = [[1000] * 4, [0] * 4] + [[0] * 4] * 10
    Search(asked, Emulated({"lru": flat, "lfu": flat}, [3.0, 9.0]), lambda what, _nodes: told.append(what)).run()
    assert told[0] == "what one node can do" and told[1] == "eviction lfu"
    search = searched({"lru": flat, "lfu": flat})
    assert [row.capacity for row in search.rows] == [3.0, 9.0] and [row.nodes for row in search.rows] == [2, 2]


def test_the_report_has_all_that_was_asked_measured_and_assumed() -> None:
    search = searched({"lru": [[300] * 4, [20] * 4, [0] * 4] + [[0] * 4] * 9, "lfu": [[400] * 4] * 12}, 9.0, 3.0)
    report = Report(search.problem, search.rows, search.best)
    answer: Any = json.loads(json.dumps(as_json(report), allow_nan=False))
    assert answer["plan"] == {"nodes": 2, "runtime.eviction": "lru"} and answer["complete"] is True
    asked = answer["asked"]
    assert (asked["requests_per_s"], asked["experts"], asked["requests"], asked["warmup"]) == (9.0, 5, 300, 30)
    assert (asked["attainment"], asked["seeds"], asked["most_nodes"]) == (0.9, [0, 1, 2, 3], 12)
    assert asked["promises"] == [{"class": "all", "ttft_s": 1.0, "e2e_s": None}]
    first, second = answer["candidates"]
    assert (first["nodes"], first["sockets"], second["nodes"], second["most_nodes"]) == (2, 16, None, 2)
    assert {one["nodes"]: one["shares"]["all"]["share"] for one in first["measured"]} == {1: 0.7, 2: 0.98}
    assert {one["path"]: one["kind"] for one in answer["inputs"]}["peer.bandwidth"] == "assumed"
    drawn = picture(report)
    assert "eviction lru" in drawn and "peer.bandwidth 400 GB/s" in drawn and "asked: at most 0.1" in drawn
    tried = sum(len(row.tried) for row in search.rows)
    places = re.findall(r'<circle cx="([\d.]+)"', drawn)
    assert len(set(places)) == len(places) - 1  # side by side; in the legend below one another
    assert drawn.count("<circle") == tried + 2  # and the legend's
    assert len(re.findall(r'<path stroke="#\w+" d="M[\d.]+ [\d.]+V', drawn)) == tried  # its interval


def test_numbers_of_nodes_are_drawn_to_scale() -> None:
    search = searched({"lru": [[300] * 4] * 9 + [[0] * 4] * 3, "lfu": [[300] * 4] * 12})
    (row, *_) = (row for row in search.rows if row.nodes is not None)
    nodes = sorted(row.tried)
    assert max(after - before for before, after in pairwise(nodes)) > 1  # some were not tried
    drawn = picture(Report(search.problem, [row], row))
    places = [float(place) for place in re.findall(r'<circle cx="([\d.]+)"', drawn)[: len(nodes)]]
    widths = [(b - a) / (n - m) for (a, m), (b, n) in pairwise(zip(places, nodes, strict=True))]
    assert max(widths) - min(widths) < 0.2

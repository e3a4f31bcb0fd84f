"""Which points a sweep has, who is on the front, and what a row says; worked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.backends import LocalBackend
from cluster.config import Config
from cluster.config_file import read_config
from cluster.runner import prepare, run
from cluster.sweep.definition import configs, read_sweep, record
from cluster.sweep.front import candidates, cost_unit, figures, front
from cluster.sweep.results import Results, as_csv, picture
from cluster.sweep.tasks import solve
from node.dataflow.compiler import Compiler
from node.errors import InputError

BASE = '[workload]\nrequests = 12\n[cluster]\nbackend = "local"\n'
GRID = BASE + '[grid]\nruntime.eviction = ["lru", "lfu"]\n"sharding.tensor_parallel" = [4, 8]\nseed = [1, 2]\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "s.toml"
    path.write_text(text)
    return path


def ran(latency: float, *, sockets: int = 8, cost: float | None = None, overloaded: bool = False) -> dict[str, Any]:
    summary = {"machine": "m", "ttft_s": None, "e2e_s": {"p50": 0.5, "p99": latency}, "sockets": [{"x": 1}]}
    return {
        "sockets": sockets,
        "cost_per_hour": cost,
        "overloaded": overloaded,
        "notes": ["a", "b"],
        "summary": summary,
    }


# Points


def test_points_are_all_combinations_the_last_key_quickest(tmp_path: Path) -> None:
    found = read_sweep(written(tmp_path, GRID)).points()
    assert [tuple(point.values()) for point in found] == [
        ("lru", 4, 1), ("lru", 4, 2), ("lru", 8, 1), ("lru", 8, 2),
        ("lfu", 4, 1), ("lfu", 4, 2), ("lfu", 8, 1), ("lfu", 8, 2),
    ]  # fmt: skip
    assert list(found[0]) == ["runtime.eviction", "sharding.tensor_parallel", "seed"]


def test_a_point_is_set_on_top_of_the_file(tmp_path: Path) -> None:
    sweep = read_sweep(written(tmp_path, GRID))
    config = sweep.config(sweep.points()[5])
    assert (config.runtime.eviction, config.sharding.tensor_parallel, config.seed) == ("lfu", 4, 2)
    assert (config.workload.requests, config.cluster.backend) == (12, "local")


def test_a_path_in_the_grid_is_taken_from_the_files_folder(tmp_path: Path) -> None:
    sweep = read_sweep(written(tmp_path, '[grid]\nworkload.trace = ["a.csv", "b.csv"]\n'))
    assert sweep.config(sweep.points()[1]).workload.trace == str(tmp_path / "b.csv")


def test_a_number_of_the_machine_may_say_its_kind(tmp_path: Path) -> None:
    text = '[grid]\nmachine.peer.latency = ["1 us", { value = "2 us", kind = "published", source = "us" }]\n'
    sweep = read_sweep(written(tmp_path, text))
    kinds = [sweep.config(point).machine.numbers["peer.latency"]["kind"] for point in sweep.points()]
    assert kinds == ["assumed", "published"]


def test_a_point_without_a_config_has_a_reason_and_the_others_stay(tmp_path: Path) -> None:
    sweep = read_sweep(written(tmp_path, '[grid]\nruntime.eviction = ["lru", "lur"]\n'))
    good, bad = configs(sweep, sweep.points())
    assert isinstance(good, Config) and isinstance(bad, InputError)
    assert str(bad).endswith("s.toml: runtime.eviction = 'lur': must be one of lru, lfu, arc, cost_aware, belady")


def test_a_sweep_of_which_no_point_has_a_config_is_refused(tmp_path: Path) -> None:
    sweep = read_sweep(written(tmp_path, '[grid]\nruntime.evictoin = ["lru", "lfu"]\n'))
    with pytest.raises(InputError, match=r"s\.toml: runtime\.evictoin: unknown key"):
        configs(sweep, sweep.points())


@pytest.mark.parametrize("change", ["none", "order", "value", "base", "machine", "trace", "backend"])
def test_the_record_changes_with_what_results_depend_on_and_with_nothing_else(tmp_path: Path, change: str) -> None:
    text = (
        '[workload]\ntrace = "t.jsonl"\n[cluster]\nbackend = "local"\n'
        '[grid]\nruntime.batch = [1, 2]\nmachine.name = ["m.toml"]\n'
    )
    row = '{"timestamp": 0, "input_length": 5, "output_length": 5}\n'
    (tmp_path / "base.toml").write_text('base = "sn40l-node"\n[hbm]\nefficiency = 0.8\n')
    (tmp_path / "m.toml").write_text('base = "base.toml"\n')
    (tmp_path / "t.jsonl").write_text(row)

    def made(text: str) -> dict[str, object]:
        sweep = read_sweep(written(tmp_path, text))
        return record(sweep, configs(sweep, sweep.points()))

    before = made(text)
    if change == "machine":
        (tmp_path / "base.toml").write_text('base = "sn40l-node"\n[hbm]\nefficiency = 0.7\n')
    if change == "trace":
        (tmp_path / "t.jsonl").write_text(2 * row)
    changed = {
        "none": "# a comment\n" + text,
        "order": text.replace("runtime.batch = [1, 2]\n", "") + "runtime.batch = [1, 2]\n",
        "value": text.replace("[1, 2]", "[1, 3]"),
        "base": "seed = 1\n" + text,
        "backend": text.replace('"local"', '"ray"'),
    }.get(change, text)
    assert (made(changed) == before) == (change in ("none", "backend"))


# The front


@pytest.mark.parametrize(
    ("ranks", "best"),
    [
        ([(1, 5), (2, 3), (3, 4), (3, 2)], {(1, 5), (2, 3), (3, 2)}),  # (3, 4) is beaten by (2, 3) and by (3, 2)
        ([(1, 1), (1, 2), (2, 1)], {(1, 1)}),  # as good in one and worse in the other is beaten
        ([(1, 1), (1, 1)], {(1, 1)}),
        ([], set()),
    ],
)
def test_on_the_front_is_who_nobody_beats(ranks: list[tuple[float, float]], best: set[tuple[float, float]]) -> None:
    assert front(ranks) == best == front(reversed(ranks))


def test_seeds_are_repetitions_of_one_choice() -> None:
    points = [{"runtime.batch": batch, "seed": seed} for batch in (1, 2) for seed in (0, 1)]
    found = candidates(points, [ran(1), ran(5), ran(2), ran(3)], "e2e_s.p99")
    assert [(one.latency_s, one.points, one.on_front) for one in found] == [(3.0, (0, 1), False), (2.5, (2, 3), True)]


def test_who_answers_another_question_beats_nobody() -> None:
    points = [{"workload.rate": rate, "runtime.batch": batch} for rate in (1, 9) for batch in (1, 2)]
    found = candidates(points, [ran(1), ran(2), ran(8), ran(7)], "e2e_s.p99")
    assert [one.on_front for one in found] == [True, False, False, True]
    assert (found[0].question, found[0].choice) == ({"workload.rate": 1}, {"runtime.batch": 1})


def test_what_did_not_run_keep_up_or_has_no_such_latency_is_no_candidate() -> None:
    points = [{"runtime.batch": batch} for batch in (1, 2, 3)]
    results = [ran(1, overloaded=True), {"cannot_run": "why"}, ran(9)]
    assert [one.points for one in candidates(points, results, "e2e_s.p99")] == [(2,)]
    assert candidates(points, results, "ttft_s.p99") == []


def test_a_choice_of_which_one_seed_did_not_run_is_no_candidate() -> None:
    points = [{"seed": seed} for seed in (0, 1)]
    assert candidates(points, [ran(1), {"cannot_run": "why"}], "e2e_s.p99") == []


def test_cost_is_the_price_where_all_have_one_and_sockets_otherwise() -> None:
    priced = [ran(1, sockets=8, cost=98.5), ran(2, sockets=16, cost=50.0), {"cannot_run": "why"}]
    points = [{"machine.name": name} for name in "abc"]
    assert cost_unit(priced)[0] == "cost_per_hour"
    assert [one.cost for one in candidates(points, priced, "e2e_s.p99")] == [98.5, 50.0]
    assert cost_unit([{"cannot_run": "why"}])[0] == "sockets"
    mixed = [*priced[:2], ran(3)]
    assert cost_unit(mixed)[0] == "sockets"
    assert [one.cost for one in candidates(points, mixed, "e2e_s.p99")] == [8.0, 16.0, 8.0]


# Results


def test_a_row_has_the_grid_the_reason_and_every_scalar_figure() -> None:
    points = [{"runtime.batch": 1, "experts.group": [{"count": 2}]}, {"runtime.batch": 2, "experts.group": []}]
    text = as_csv(Results(points, [{"cannot_run": "no, room"}, ran(2.5, cost=9)], "e2e_s.p99"))
    assert text.splitlines() == [
        "runtime.batch,experts.group,cannot_run,on_front,sockets,cost_per_hour,overloaded,machine,e2e_s.p50,e2e_s.p99,"
        "notes",
        '1,"[{""count"": 2}]","no, room",,,,,,,,',
        "2,[],,true,8,9,false,m,0.5,2.5,a; b",
    ]


def test_figures_are_scalars_by_table_and_name() -> None:
    assert dict(figures({"a": 1, "b": {"c": 2.5, "d": None}, "e": [1], "f": None})) == {"a": 1, "b.c": 2.5}


def test_the_picture_names_who_is_on_the_front_and_what_cost_is() -> None:
    points = [{"runtime.batch": batch} for batch in (1, 2, 3)]
    found = picture(Results(points, [ran(1), ran(0.5, sockets=16), ran(2)], "e2e_s.p99"))
    assert "front: cost 8, 1 s: batch 1" in found and "front: cost 16, 500 ms: batch 2" in found
    assert "batch 3" not in found and "sockets of one machine" in found
    assert found.count("<circle") == 3 + 2  # the choices, and in the legend a full one and a hollow one


def test_a_picture_without_a_candidate_is_drawn_all_the_same() -> None:
    assert picture(Results([{"seed": 1}], [{"cannot_run": "why"}], "e2e_s.p99")).startswith("<svg")


# Tasks


@pytest.mark.parametrize(
    "settings",
    [
        {"runtime.batch": 2},
        {"runtime.fusion": "unfused"},
        {"sharding.tensor_parallel": 4},
        {"experts.dtype": "int8"},
        {"experts.model": "mistral-7b"},
        {"machine.peer.latency": "2 us"},
        {"machine.name": "dgx-a100"},
        {"workload.input_tokens": 3000},
    ],
)
def test_a_point_is_the_run_of_its_settings_whatever_ran_before_it(settings: dict[str, object]) -> None:
    few = {"workload.requests": 12, "experts.count": 6}
    first, other = (read_config(None, {**few, **more}.items()) for more in ({}, settings))
    fresh = [run(config, LocalBackend(), prepare(config)).summary for config in (first, other)]
    assert [solve(config)["summary"] for config in (first, other, first)] == [*fresh, fresh[0]]


def test_a_process_compiles_the_same_models_on_the_same_machine_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[int] = []
    made = Compiler.kernels
    monkeypatch.setattr(Compiler, "kernels", lambda *given: compiled.append(1) or made(*given))
    numbers = {"workload.requests": 5, "machine.kernel.sync": "3.1 us"}  # a machine of which nothing is kept
    for seed, new in ((0, True), (0, False)):
        compiled.clear()
        solve(read_config(None, {**numbers, "seed": seed}.items()))
        assert bool(compiled) == new

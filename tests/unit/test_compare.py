"""Is the first machine said to be better by what it is better by, on every metric?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cluster.backends import LocalBackend
from cluster.compare import METRICS, Column, as_json, compare, ratio, value, variants
from cluster.config import Config
from cluster.config_file import read_config
from cluster.nodes.node import State
from cluster.runner import prepare, run
from node.errors import InputError
from node.spec_file import load_machine

LESS_IS_BETTER = {
    "makespan_s", "ttft_s.p50", "ttft_s.p99", "tpot_s.p50", "e2e_s.p50", "e2e_s.p99", "switch_s_mean",
}  # fmt: skip
MORE_IS_BETTER = {"throughput_requests_per_s", "throughput_tokens_per_s", "hit_rate"}


def config(**settings: object) -> Config:
    named = {key.replace("__", ".", 1).replace("__", "."): value for key, value in settings.items()}
    return read_config(None, {"cluster.backend": "local", "workload.requests": 12, **named}.items())


def summary(number: float | None) -> dict[str, object]:
    """A summary in which every metric is ``number``."""
    found: dict[str, Any] = {}
    for path, _ in METRICS.values():
        table = found
        for key in path[:-1]:
            table = table.setdefault(key, {})
        table[path[-1]] = number
    return found


# Ratios


def test_every_metric_is_better_one_way() -> None:
    first, other = Column("a", summary(2.0)), Column("b", summary(8.0))
    assert {metric for metric in METRICS if ratio(first, other, metric) == 4.0} == LESS_IS_BETTER
    assert {metric for metric in METRICS if ratio(first, other, metric) == 0.25} == MORE_IS_BETTER
    assert set(METRICS) == LESS_IS_BETTER | MORE_IS_BETTER


def test_each_metric_is_read_from_its_own_place() -> None:
    found = as_json([Column("a", run_once().summary), Column("b", run_once().summary)])
    summary: Any = run_once().summary
    for metric in METRICS:
        expected = summary
        for key in metric.split("."):
            expected = expected[key]
        assert value(summary, metric) == expected > 0
    assert found["first_is_better_by"] == {"b": dict.fromkeys(METRICS, 1.0)}


def test_what_a_run_does_not_have_is_none() -> None:
    here, empty = Column("a", summary(2.0)), Column("b", summary(None))
    without = Column("c", summary(2.0) | {"tpot_s": None})  # as where every answer has one token
    for metric in METRICS:
        assert value(empty.summary, metric) is None
        assert ratio(here, empty, metric) is None and ratio(empty, here, metric) is None
        assert (ratio(here, without, metric) is None) == (metric == "tpot_s.p50")


def test_nothing_is_divided_by_zero() -> None:
    none, some = Column("a", summary(0.0)), Column("b", summary(2.0))
    for metric in METRICS:
        assert ratio(none, some, metric) is None and ratio(some, none, metric) is None
        assert value(none.summary, metric) == 0.0


def test_the_json_holds_every_summary_and_the_ratios_to_the_first() -> None:
    columns = [Column("a", summary(2.0)), Column("b", summary(4.0)), Column("c", summary(None))]
    found: Any = as_json(columns)
    assert found["machines"] == [{"label": column.label, **column.summary} for column in columns]
    assert set(found["first_is_better_by"]) == {"b", "c"}
    assert found["first_is_better_by"]["b"]["makespan_s"] == 2.0
    assert found["first_is_better_by"]["b"]["hit_rate"] == 0.5
    assert found["first_is_better_by"]["c"] == dict.fromkeys(METRICS)


# Machines


def run_once() -> Any:
    settings = config()
    return run(settings, LocalBackend(), prepare(settings))


def test_a_machine_with_a_host_link_is_there_twice() -> None:
    found = variants(["sn40l-node", "dgx-a100", "dgx-h100"], config())
    assert [label for label, _ in found] == [
        "sn40l-node", "dgx-a100", "dgx-a100, link per GPU", "dgx-h100", "dgx-h100, link per GPU",
    ]  # fmt: skip
    links = [machine.host_link.sharing if machine.host_link else None for _, machine in found]
    assert links == [None, "shared", "per_socket", "shared", "per_socket"]
    assert found[1][1] == load_machine("dgx-a100")


def test_a_link_that_was_set_comes_first_and_then_the_other_way() -> None:
    found = variants(["dgx-a100"], config(machine__host_link__sharing="per_socket"))
    links = {label: machine.host_link and machine.host_link.sharing for label, machine in found}
    assert links == {"dgx-a100": "per_socket", "dgx-a100, one link": "shared"}


def test_numbers_that_were_set_hold_for_every_machine() -> None:
    found = variants(["sn40l-node", "dgx-a100"], config(machine__hbm__capacity="70 GB"))
    assert {machine.hbm.capacity for _, machine in found} == {70 * 10**9}


# Runs


@pytest.fixture
def watched() -> list[tuple[str, int, State]]:
    return []


@pytest.fixture
def watch(watched: list[tuple[str, int, State]]) -> Callable[..., Any]:
    return lambda label, requests: lambda state: watched.append((label, requests, state))


def test_each_machine_serves_the_same_workload(watched: list[tuple[str, int, State]], watch: Any) -> None:
    settings = config()
    machines = variants(["sn40l-node", "dgx-a100"], settings)
    columns = compare(settings, machines, LocalBackend, watch)
    assert [column.label for column in columns] == [label for label, _ in machines]
    for column, (_, machine) in zip(columns, machines, strict=True):
        assert column.summary == run(settings, LocalBackend(), prepare(settings, machine)).summary
    assert list(dict.fromkeys(label for label, _, _ in watched)) == [label for label, _ in machines]
    assert {requests for _, requests, _ in watched} == {12}
    assert watched[-1][2].completed == 12
    alone, shared = columns[2], columns[1]
    assert ratio(alone, shared, "switch_s_mean") == pytest.approx(8, rel=1e-6)  # eight links instead of one


def test_what_does_not_fit_one_machine_is_refused_before_the_first_run(watch: Any) -> None:
    settings = config(experts__count=200)  # 163 fit a DGX
    with pytest.raises(InputError, match="out of memory in DDR"):
        compare(settings, variants(["sn40l-node", "dgx-a100"], settings), lambda: pytest.fail("a run began"), watch)

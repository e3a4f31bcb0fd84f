"""Is every value held to its type, its choices and its bounds, and does an error say where to mend it?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from cluster.config import AT_LEAST_ONE, CHOICES, MOST, Config
from cluster.config_file import parse_setting, read_config
from cluster.deploy import machine_of, options_of, window_of
from cluster.runner import prepare
from node.errors import InputError
from node.runtime.service import Service
from node.units import PS_PER_S

Given = Callable[..., Config]
Fault = Callable[..., str]
Toml = Callable[[str | bytes], Path]
TABLES = [entry.name for entry in fields(Config) if entry.name not in ("seed", "explicit")]
KEYS = [f"{table}.{entry.name}" for table in TABLES for entry in fields(getattr(Config(), table))]
LISTS = ("experts.group", "slo.classes")


@pytest.mark.parametrize("text", ["", "=", "runtime.batch", "runtime.batch=", "=4", " = ", "runtime.batch= "])
def test_a_setting_without_key_or_value_is_an_error(text: str) -> None:
    with pytest.raises(InputError, match=r"must be table\.key=value") as caught:
        parse_setting(text)
    assert repr(text) in str(caught.value)


def test_a_setting_is_one_line() -> None:
    with pytest.raises(InputError):
        parse_setting("runtime.batch=4\nseed=5")


@pytest.mark.parametrize("key", [key for key in KEYS if key not in (*LISTS, "machine.numbers", "runtime.pinned")])
def test_every_key_refuses_a_value_of_another_type(key: str, toml: Toml, fault: Fault) -> None:
    table, name = key.split(".")
    expected = type(getattr(getattr(Config(), table), name))
    for value, literal in (([1], "[1]"), (1, "1") if expected is bool else (True, "true")):
        said = f"{key} = {value!r}: must be of type "
        message = fault((key, value))
        assert message.startswith(f"--set: {said}") and "NoneType" not in message
        assert expected is type(None) or expected.__name__ in message
        path = toml(f"[{table}]\n{name} = {literal}\n")
        assert fault(path=path).startswith(f"{path}: {said}")


PINNED = "must be numbers of experts, 0 to 149, each once"
A_RATE = "must be a finite number above 0"
A_TABLE = "must be [[experts.group]] tables of model, count, weight, dtype"
TOKENS = "must be a whole number from 0 to 1,000,000"
A_CLASS = "must be [[slo.classes]] tables of name, share, priority, ttft, e2e"
NO_KEY = f"unknown key; there are seed and the tables {', '.join(TABLES)}"
WRONG: list[tuple[str, object, str]] = [  # what is said after where it was set, the key and the value
    ("seed", "1", "must be of type int"),
    ("seed", 1.0, "must be of type int"),
    ("seed", True, "must be of type int"),
    ("runtime.batch", 1.0, "must be of type int"),
    ("runtime.batch", "8", "must be of type int"),
    ("runtime.fairness", 30, "must be of type str"),
    *(("runtime.pinned", value, "must be of type list") for value in (3, "[3]", True)),
    *(("runtime.pinned", value, PINNED) for value in ([150], [-1], [3, 3], [1.0], ["3"], [True], [[3]])),
    *(("runtime.drain", value, "must be a whole number from 0 to 1,000,000") for value in (-1, MOST + 1)),
    ("workload.rate", "2", "must be of type float"),
    ("workload.limit", 1.5, "must be of type int"),
    ("workload.trace", 3, "must be of type str"),
    ("workload.input_tokens", 1.5, "must be of type int or str"),
    ("experts.group.count", "3", "must be of type int"),
    ("experts.group.weight", "1", "must be of type float"),
    ("experts.group.model", 7, "must be of type str"),
    *(("experts.group", value, A_TABLE) for value in (5, "llama-2-7b", [], [1], [{"count": 3}, 4])),
    ("experts.group.size", 3, "unknown key; [[experts.group]] has model, count, weight, dtype"),
    *((key, 1, NO_KEY) for key in ("batch", "runtine.batch", "explicit", "seed.x", "", ".batch", "runtime.")),
    ("seed", -1, "must be a whole number of at least 0"),
    *(("workload.rate", rate, A_RATE) for rate in (float("nan"), float("inf"), 0.0, -1.0)),
    ("experts.group.count", 0, "must be at least 1"),
    *(("experts.group.weight", weight, "must be a number above zero") for weight in (0.0, float("nan"), float("inf"))),
    *((key, n, TOKENS) for key in ("runtime.prefill_chunk", "runtime.kv_block") for n in (-1, MOST + 1)),
    ("runtime.preemption", "swap", "runtime.kv_block must say what a page is; set it, for example to 16"),
    ("runtime.prefill_chunk", 7, "must be 0 or at least runtime.batch = 8, a token for each of them"),
    *(("slo.classes", value, A_CLASS) for value in (5, "all", [], [{"name": "a"}, 4])),
    ("slo.classes.rate", 3, "unknown key; [[slo.classes]] has name, share, priority, ttft, e2e"),
    *(("slo.classes.name", name, "each class must have a name of its own") for name in ("", "first")),
    *(("slo.classes.share", share, "must be a number above zero") for share in (0.0, float("nan"), float("inf"), -1.0)),
    *(("slo.classes.priority", step, "must be a whole number from 0 to 9") for step in (-1, 10)),
    ("slo.classes.priority", 1.5, "must be of type int"),
    ("slo.classes.ttft", "0 s", "must be above zero, for example '2 s'"),
    ("slo.ttft", "0 s", "must be above zero, for example '2 s'"),
    ("slo.e2e", "0 ms", "must be above zero, for example '2 s'"),
    ("slo.e2e", 5, "must be of type str"),
    ("experts.group.dtype", "bf8", "must be one of fp32, bf16, fp16, fp8, int8, int4"),
]


@pytest.mark.parametrize(("key", "value", "said"), WRONG)
def test_a_wrong_value_is_told_with_what_is_allowed(key: str, value: object, said: str, fault: Fault) -> None:
    table, _, name = key.rpartition(".")
    first = {"experts.group": {"dtype": "int8"}, "slo.classes": {"name": "first"}}.get(table)
    entry = {name: value} if table == "experts.group" or name == "name" else {"name": "second", name: value}
    message = fault((table, [first, entry]) if first else (key, value))
    assert message == f"--set: {key}{'' if 'unknown' in said else f' = {value!r}'}: {said}"


@pytest.mark.parametrize(
    ("key", "value"), [("prefetch", True), ("partial", True), ("prefill_chunk", 512), ("kv_block", 16)]
)
def test_what_cuts_runs_up_does_not_go_with_the_switching_of_programs(
    key: str, value: object, given: Given, fault: Fault
) -> None:
    other = f"runtime.{key}", value
    assert given(other).runtime.switching == "expert" and given(("runtime.switching", "program"))
    assert fault(("runtime.switching", "program"), other) == (
        "--set: runtime.switching = 'program': programs are loaded between whole runs, but "
        f"runtime.{key} = {value}; remove one of the two"
    )


@pytest.mark.parametrize("zeros", [400, 5000])
def test_a_number_beyond_all_bounds_is_an_error_of_the_user(zeros: int) -> None:
    with pytest.raises(InputError):
        read_config(None, [parse_setting(f"workload.rate=1{'0' * zeros}")])


def test_every_choice_is_held_to_its_list(given: Given, fault: Fault) -> None:
    assert {key: set(choices) for key, choices in CHOICES.items()} == {
        "experts.dtype": {"fp32", "bf16", "fp16", "fp8", "int8", "int4"},
        "sharding.placement": {"modulo", "popularity"},
        "sharding.home": {"one_group", "all_groups"},
        "sharding.router": {"replicated", "group"},
        "runtime.scheduler": {"affinity", "paper"},
        "runtime.eviction": {"lru", "lfu", "arc", "cost_aware", "belady"},
        "runtime.call_overhead": {"per_request", "per_batch", "none"},
        "runtime.fusion": {"unfused", "conventional", "fused", "looped"},
        "runtime.orchestration": {"ho", "so"},
        "runtime.preemption": {"recompute", "swap"},
        "runtime.switching": {"expert", "program"},
        "routing.policy": {"round_robin", "least_loaded", "expert_affinity"},
        "cluster.backend": {"ray", "local"},
    }
    for key, choices in CHOICES.items():
        assert fault((key, "x")) == f"--set: {key} = 'x': must be one of {', '.join(choices)}"
        table, name = key.split(".")
        also = (("runtime.kv_block", 16),) if key == "runtime.preemption" else ()
        assert [getattr(getattr(given((key, choice), *also), table), name) for choice in choices] == list(choices)


def test_counts_are_from_one_to_a_million(given: Given, fault: Fault) -> None:
    assert {key.partition(".")[2] for key in AT_LEAST_ONE} == {
        "count", "router_tokens", "tensor_parallel", "batch", "queue_limit", "nodes", "sockets_per_actor",
        "node_workers",
    }  # fmt: skip
    assert MOST == 10**6
    for key in AT_LEAST_ONE:
        for value in (0, -1, MOST + 1):
            assert fault((key, value)) == f"--set: {key} = {value}: must be a whole number from 1 to 1,000,000"
        assert given((key, 1)) and given((key, MOST))


def test_nobody_is_late_without_a_promise(given: Given, fault: Fault) -> None:
    late = ("runtime.shed_late", True)
    said = "runtime.shed_late = True: slo.ttft must say when a request is late; set it for all or a class"
    assert fault(late) == fault(late, ("slo.e2e", "9 s")) == f"--set: {said}"
    for promise in (("slo.ttft", "2 s"), ("slo.classes", [{"name": "a"}, {"name": "b", "ttft": "1 s"}])):
        assert given(late, promise).runtime.shed_late


def test_what_is_promised_to_all_holds_for_classes_that_say_nothing_else(given: Given) -> None:
    classes = [{"name": "a", "share": 3.0, "priority": 2, "ttft": "500 ms"}, {"name": "b", "e2e": "1 s"}]
    slo = given(("slo.ttft", "2 s"), ("slo.classes", classes)).slo
    assert slo.services() == (Service("a", 2, PS_PER_S // 2, None), Service("b", 0, 2 * PS_PER_S, PS_PER_S))
    assert slo.shares() == (3.0, 1.0)
    assert given(("slo.e2e", "3 s")).slo.services() == (Service("all", 0, None, 3 * PS_PER_S),)


def test_a_group_is_no_larger_than_a_catalogue_may_be(fault: Fault) -> None:
    assert "experts.group.count" in fault(("experts.group", [{"count": MOST + 1}]))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("kernel.sync", "1 GB", "not a non-negative quantity in s; allowed units: ps, ns, us, ms, s"),
        ("kernel.sync", {"value": "1 us", "kind": "published"}, "needs exactly value, kind "),
        ("kernel.sync", {"value": "1 us", "kind": "guessed", "source": "me"}, "(published, derived, assumed)"),
        ("hbm.efficiency", 1.1, "a fraction is at most 1"),
        ("sockets", 0, "must be above zero"),
        ("host_link.bandwidth", "32 GB/s", "DDR needs either ddr.bandwidth and ddr.efficiency"),
    ],
)
def test_a_wrong_number_of_the_machine_says_what_is_allowed(path: str, value: object, said: str, given: Given) -> None:
    with pytest.raises(InputError) as caught:
        machine_of(given((f"machine.{path}", value)))
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"--set: machine.{path} = " if path != "host_link.bandwidth" else "machine ")


@pytest.mark.parametrize(
    ("key", "read"),
    [
        ("runtime.kv_reserve", options_of),
        ("runtime.program_reserve", options_of),
        ("runtime.fairness", options_of),
        ("runtime.min_residency", options_of),
        ("cluster.window", window_of),
    ],
)
@pytest.mark.parametrize("value", ["2", "2 parsecs", "-1 s", "-1 GiB", "nan s", "s", "1 s 2", "1 TB/s"])
def test_a_quantity_in_another_unit_is_an_error(
    key: str, read: Callable[[Config], object], value: str, given: Given
) -> None:
    with pytest.raises(InputError, match="allowed units") as caught:
        also = (("runtime.switching", "program"),) if key == "runtime.program_reserve" else ()
        read(given((key, value), *also))
    assert str(caught.value).startswith(f"{key} = {value!r}: ")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("cluster.window", "0 s", "--set: cluster.window = '0 s': must be above zero"),
        ("cluster.window", "1e400 s", "cluster.window = '1e400 s': "),
        ("cluster.window", "1e300 s", "cluster.window = '1e300 s': "),
        ("runtime.kv_reserve", "1.5 B", "--set: runtime.kv_reserve = '1.5 B': must be a whole number of bytes"),
        (
            "sharding.tensor_parallel",
            3,
            "--set: sharding.tensor_parallel = 3: must divide the machine's 8 sockets: one of 1, 2, 4, 8",
        ),
        ("experts.count", 2000, "out of memory in DDR"),
        ("runtime.kv_reserve", "600 GiB", "out of memory in HBM"),
        ("runtime.kv_reserve", "1 MiB", "runtime.kv_reserve"),
        ("workload.trace", "none.csv", "none.csv"),
        ("experts.model", "gpt-5", "gpt-5"),
    ],
)
def test_what_is_wrong_is_found_before_anything_runs(key: str, value: object, said: str, given: Given) -> None:
    with pytest.raises(InputError) as caught:
        prepare(given((key, value)))
    assert said in str(caught.value)

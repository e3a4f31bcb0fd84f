"""Is every key of the configuration checked, does the last word win, and does an error say where to mend it?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from cluster.config import AT_LEAST_ONE, CHOICES, MOST, Config
from cluster.config_file import _UNUSED, parse_setting, read_config
from cluster.deploy import deployment_of, machine_of, options_of, window_of
from cluster.runner import prepare
from node.deployment import RuntimeOptions
from node.errors import InputError
from node.expert import ExpertGroup
from node.units import PS_PER_S

TABLES = [entry.name for entry in fields(Config) if entry.name not in ("seed", "explicit")]
KEYS = [f"{table}.{entry.name}" for table in TABLES for entry in fields(getattr(Config(), table))]
Toml = Callable[[str | bytes], Path]


@pytest.fixture
def toml(tmp_path: Path) -> Toml:
    def write(content: str | bytes) -> Path:
        path = tmp_path / "settings.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def given(*settings: tuple[str, object], path: Path | None = None) -> Config:
    return read_config(path, settings)


def fault(*settings: tuple[str, object], path: Path | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read_config(path, settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Precedence


def test_nothing_given_is_the_default_tree() -> None:
    assert given() == Config()


def test_set_goes_over_the_file_and_the_file_over_the_default(toml: Toml) -> None:
    path = toml('seed = 7\n[runtime]\nbatch = "many"\neviction = "lfu"\n[workload]\nrate = 3\n')
    assert fault(path=path).startswith(f"{path}: runtime.batch = 'many': ")
    config = given(("runtime.batch", 3), ("runtime.batch", 2), path=path)  # of two, the last
    assert (config.seed, config.workload.rate, type(config.workload.rate)) == (7, 3.0, float)
    assert (config.runtime.batch, config.runtime.eviction, config.runtime.fairness) == (2, "lfu", "30 s")
    assert config.explicit == {"seed", "runtime.batch", "runtime.eviction", "workload.rate"}


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        (" runtime.batch = 4 ", ("runtime.batch", 4)),
        ("workload.rate=2.5", ("workload.rate", 2.5)),
        ("runtime.scheduler=paper", ("runtime.scheduler", "paper")),
        ('runtime.scheduler="paper"', ("runtime.scheduler", "paper")),
        ("runtime.kv_reserve=2 GiB", ("runtime.kv_reserve", "2 GiB")),
        ("workload.input_tokens=uniform(low=1, high=2)", ("workload.input_tokens", "uniform(low=1, high=2)")),
        ("a=b=c", ("a", "b=c")),
        ("a=true", ("a", True)),
        ("experts.group=[{count=3}]", ("experts.group", [{"count": 3}])),
        ("a={value=1, kind='x'}", ("a", {"value": 1, "kind": "x"})),
    ],
)
def test_a_setting_is_read_as_toml_or_else_as_text(text: str, pair: tuple[str, object]) -> None:
    found = parse_setting(text)
    assert found == pair and type(found[1]) is type(pair[1])


@pytest.mark.parametrize("text", ["", "=", "runtime.batch", "runtime.batch=", "=4", " = ", "runtime.batch= "])
def test_a_setting_without_key_or_value_is_an_error(text: str) -> None:
    with pytest.raises(InputError, match=r"must be table\.key=value") as caught:
        parse_setting(text)
    assert repr(text) in str(caught.value)


def test_a_setting_is_one_line() -> None:
    with pytest.raises(InputError):
        parse_setting("runtime.batch=4\nseed=5")


# Types


@pytest.mark.parametrize("key", [key for key in KEYS if key not in ("experts.group", "machine.numbers")])
def test_every_key_refuses_a_value_of_another_type(key: str, toml: Toml) -> None:
    table, name = key.split(".")
    expected = type(getattr(getattr(Config(), table), name))
    for value, literal in (([1], "[1]"), (1, "1") if expected is bool else (True, "true")):
        said = f"{key} = {value!r}: must be of type "
        message = fault((key, value))
        assert message.startswith(f"--set: {said}") and "NoneType" not in message
        assert expected is type(None) or expected.__name__ in message
        path = toml(f"[{table}]\n{name} = {literal}\n")
        assert fault(path=path).startswith(f"{path}: {said}")


A_RATE = "must be a finite number above 0"
A_TABLE = "must be [[experts.group]] tables of model, count, weight, dtype"
NO_KEY = f"unknown key; there are seed and the tables {', '.join(TABLES)}"
WRONG: list[tuple[str, object, str]] = [  # what is said after where it was set, the key and the value
    ("seed", "1", "must be of type int"),
    ("seed", 1.0, "must be of type int"),
    ("seed", True, "must be of type int"),
    ("runtime.batch", 1.0, "must be of type int"),
    ("runtime.batch", "8", "must be of type int"),
    ("runtime.fairness", 30, "must be of type str"),
    ("workload.rate", "2", "must be of type float"),
    ("workload.limit", 1.5, "must be of type int"),
    ("workload.trace", 3, "must be of type str"),
    ("workload.input_tokens", 1.5, "must be of type int or str"),
    ("experts.group.count", "3", "must be of type int"),
    ("experts.group.weight", "1", "must be of type float"),
    ("experts.group.model", 7, "must be of type str"),
    *(("experts.group", value, A_TABLE) for value in (5, "llama-2-7b", [], [1], [{"count": 3}, 4])),
    ("experts.group.size", 3, "unknown key; a group has model, count, weight, dtype"),
    *((key, 1, NO_KEY) for key in ("batch", "runtine.batch", "explicit", "seed.x", "", ".batch", "runtime.")),
]
OF_CHECKED: list[tuple[str, object, str]] = [  # the same of checks that no longer know where a value was set
    ("seed", -1, "must be a whole number of at least 0"),
    *(("workload.rate", rate, A_RATE) for rate in (float("nan"), float("inf"), 0.0, -1.0)),
    ("experts.group.count", 0, "must be at least 1"),
    *(("experts.group.weight", weight, "must be a number above zero") for weight in (0.0, float("nan"), float("inf"))),
    ("experts.group.dtype", "bf8", "must be one of fp32, bf16, fp16, fp8, int8, int4"),
]


@pytest.mark.parametrize(("key", "value", "said"), WRONG + OF_CHECKED)
def test_a_wrong_value_is_told_with_what_is_allowed(key: str, value: object, said: str) -> None:
    _, _, of_group = key.partition("experts.group.")
    message = fault(("experts.group", [{"dtype": "int8"}, {of_group: value}]) if of_group else (key, value))
    where = "--set: " if (key, value, said) in WRONG else ""
    assert message == f"{where}{key}{'' if 'unknown' in said else f' = {value!r}'}: {said}"


@pytest.mark.parametrize("zeros", [400, 5000])
def test_a_number_beyond_all_bounds_is_an_error_of_the_user(zeros: int) -> None:
    with pytest.raises(InputError):
        read_config(None, [parse_setting(f"workload.rate=1{'0' * zeros}")])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[runtine]\n", f"runtine: {NO_KEY}"),  # even if it is empty
        ("[runtine]\nbatch = 2\n", f"runtine: {NO_KEY}"),
        ("batch = 2\n", f"batch: {NO_KEY}"),
        ("runtime = 2\n", f"runtime: {NO_KEY}"),
        ("[runtime]\nbatches = 2\n", "runtime.batches: unknown key; [runtime] has scheduler, batch, "),
        ("[runtime.batches]\nx = 2\n", "runtime.batches.x: unknown key; [runtime] has scheduler, batch, "),
        ('[machine.kernel]\nsink = "1 us"\n', "machine.kernel.sink: unknown key; a machine has sockets, "),
    ],
)
def test_an_unknown_name_in_a_file_is_told_with_the_file(text: str, said: str, toml: Toml) -> None:
    path = toml(text)
    assert fault(path=path).startswith(f"{path}: {said}")


def test_every_choice_is_held_to_its_list() -> None:
    assert {key: set(choices) for key, choices in CHOICES.items()} == {
        "runtime.scheduler": {"affinity", "paper"},
        "runtime.eviction": {"lru", "lfu"},
        "runtime.call_overhead": {"per_request", "per_batch", "none"},
        "runtime.fusion": {"unfused", "conventional", "fused", "looped"},
        "runtime.orchestration": {"ho", "so"},
        "cluster.backend": {"ray", "local"},
    }
    for key, choices in CHOICES.items():
        assert fault((key, "x")) == f"{key} = 'x': must be one of {', '.join(choices)}"
        table, name = key.split(".")
        assert [getattr(getattr(given((key, choice)), table), name) for choice in choices] == list(choices)


def test_counts_are_from_one_to_a_million() -> None:
    assert {key.partition(".")[2] for key in AT_LEAST_ONE} == {
        "count", "router_tokens", "tensor_parallel", "batch", "sockets_per_actor",
    }  # fmt: skip
    assert MOST == 10**6
    for key in AT_LEAST_ONE:
        for value in (0, -1, MOST + 1):
            assert fault((key, value)) == f"{key} = {value}: must be a whole number from 1 to 1,000,000"
        assert given((key, 1)) and given((key, MOST))


# Keys without effect

TRACE = (("workload.trace", "t.csv"), "workload.trace is set")
AT_ONCE = (("workload.arrivals", "at_once"), "workload.arrivals is at_once")
GROUPS = (("experts.group", [{"count": 2}]), "experts.group is set")
WITHOUT_EFFECT: list[tuple[str, object, tuple[tuple[str, object], str]]] = [
    ("workload.requests", 5, TRACE),
    ("workload.rate", 5.0, TRACE),
    ("workload.rate", 5.0, AT_ONCE),
    ("workload.arrivals", "fixed", TRACE),
    ("workload.input_tokens", 5, TRACE),
    ("workload.output_tokens", 5, TRACE),
    ("workload.zipf_s", 1.5, (("workload.popularity", "uniform"), "workload.popularity is not zipf")),
    ("workload.rate_scale", 2.0, AT_ONCE),
    ("experts.count", 5, GROUPS),
    ("experts.model", "llama-3-8b", GROUPS),
    ("experts.dtype", "int8", GROUPS),
    ("experts.router_tokens", 5, (("experts.router", "none"), "experts.router is none")),
    ("runtime.fairness", "5 s", (("runtime.scheduler", "paper"), "runtime.scheduler is paper")),
    ("runtime.orchestration", "so", (("runtime.fusion", "unfused"), "runtime.fusion is not fused or looped")),
    ("cluster.address", "auto", (("cluster.backend", "local"), "cluster.backend is not ray")),
]


def test_every_rule_on_keys_without_effect_is_tried_here() -> None:
    tried = sorted((key, reason) for key, _, (_, reason) in WITHOUT_EFFECT)
    assert tried == sorted((key, reason) for key, rules in _UNUSED.items() for _, reason in rules)


@pytest.mark.parametrize(("key", "value", "because"), WITHOUT_EFFECT)
def test_a_key_without_effect_is_an_error_that_says_why(
    key: str, value: object, because: tuple[tuple[str, object], str], toml: Toml
) -> None:
    cause, reason = because
    said = f"{key}: has no effect, because {reason}; remove one of the two"
    assert fault((key, value), cause) == fault(cause, (key, value)) == f"--set: {said}"
    assert given((key, value)) and given(cause)
    table, name = key.split(".")
    path = toml(f"[{table}]\n{name} = {value!r}\n")
    assert fault(cause, path=path) == f"{path}: {said}"


def test_scaling_the_rate_of_a_trace_has_an_effect() -> None:
    config = given(("workload.trace", "t.csv"), ("workload.rate_scale", 2.0))
    assert (config.workload.trace, config.workload.rate_scale) == ("t.csv", 2.0)


def test_a_key_that_the_command_does_not_read_is_an_error(toml: Toml) -> None:
    path = toml("[runtime]\nbatch = 2\n")
    with pytest.raises(InputError) as caught:
        read_config(path, [], lambda key: key != "runtime.batch")
    assert str(caught.value) == f"{path}: runtime.batch: this command does not use it"
    assert read_config(None, [("seed", 1)], lambda key: key == "seed").seed == 1


# Groups of experts


def test_groups_of_experts_are_numbered_in_the_order_of_the_file(toml: Toml) -> None:
    path = toml('[[experts.group]]\nmodel = "llama-3-8b"\ncount = 2\nweight = 3\n[[experts.group]]\ndtype = "int8"\n')
    catalogue = given(path=path).experts.catalogue()
    assert catalogue.groups == (ExpertGroup("llama-3-8b", 2, 3.0, "bf16"), ExpertGroup("llama-2-7b", 150, 1.0, "int8"))
    assert catalogue.weights()[:3] == (3.0, 3.0, 1.0) and catalogue.count == 152
    assert catalogue.programs()[:3] == (0, 0, 1)


def test_one_model_is_a_catalogue_of_one_group_and_router_none_is_no_router() -> None:
    catalogue = given(("experts.count", 5), ("experts.dtype", "int8"), ("experts.router", "none")).experts.catalogue()
    assert (catalogue.groups, catalogue.router) == ((ExpertGroup("llama-2-7b", 5, 1.0, "int8"),), None)


def test_a_group_is_no_larger_than_a_catalogue_may_be() -> None:
    assert "experts.group.count" in fault(("experts.group", [{"count": MOST + 1}]))


# The machine


def test_numbers_of_the_machine_come_bare_or_with_their_source(toml: Toml) -> None:
    path = toml(
        '[machine]\nname = "dgx-a100"\nsockets = 4\n[machine.hbm]\nbandwidth = "1 TB/s"\n'
        '[machine.kernel]\nsync = { value = "2 us", kind = "published", source = "a paper" }\n'
    )
    machine = machine_of(given(("machine.hbm.bandwidth", "3 TB/s"), path=path))
    assert (machine.name, machine.sockets, machine.hbm.bandwidth, machine.kernel.sync) == ("dgx-a100", 4, 3e12, 2e-6)
    figures = {figure.path: (figure.value, figure.kind, figure.source) for figure in machine.figures}
    assert figures["kernel.sync"] == ("2 us", "published", "a paper")
    assert figures["hbm.bandwidth"] == ("3 TB/s", "assumed", "--set")
    assert machine.compute.units == 108  # the rest is the machine's own


def test_a_bare_number_of_the_machine_names_the_file_it_is_from(toml: Toml) -> None:
    machine = machine_of(given(path=toml("[machine]\nsockets = 4\n")))
    assert "settings.toml" in next(figure.source for figure in machine.figures if figure.path == "sockets")


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
def test_a_wrong_number_of_the_machine_says_what_is_allowed(path: str, value: object, said: str) -> None:
    with pytest.raises(InputError) as caught:
        machine_of(given((f"machine.{path}", value)))
    assert said in str(caught.value) and str(caught.value).startswith("machine")


# Files, options and quantities


@pytest.mark.parametrize(
    "content", ["[runtime\n", "runtime.batch 4\n", "a = 1\na = 2\n", b"\xff\xfe\x00", b"a = '\x00'"]
)
def test_a_file_that_is_no_toml_is_named_in_one_line(content: str | bytes, toml: Toml) -> None:
    path = toml(content)
    assert fault(path=path).startswith(f"{path}: cannot be read as TOML: ")


def test_a_file_that_is_missing_or_a_folder_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    assert fault(path=missing) == f"{missing}: cannot be read as TOML: No such file or directory"
    assert fault(path=tmp_path) == f"{tmp_path}: cannot be read as TOML: Is a directory"


def test_every_option_reaches_the_runtime() -> None:
    texts = {"scheduler": "paper", "eviction": "lfu", "call_overhead": "none", "fusion": "fused", "orchestration": "so"}
    settings = {f"runtime.{name}": text for name, text in texts.items()}
    found = deployment_of(given(*settings.items(), ("runtime.batch", 3), ("experts.router_tokens", 7))).options
    assert found == RuntimeOptions(**texts, batch=3, router_tokens=7)  # type: ignore[arg-type]
    assert {name for name, text in texts.items() if getattr(RuntimeOptions(), name) == text} == {"fusion"}


def test_quantities_are_read_with_their_units() -> None:
    def reserve(text: str, degree: int) -> int:
        return options_of(given(("runtime.kv_reserve", text), ("sharding.tensor_parallel", degree))).kv_reserve

    assert (reserve("1.5 GiB", 1), reserve("2 GB", 1)) == (3 * 2**29, 2 * 10**9)
    assert (reserve("16 GiB", 8), reserve("9 B", 8)) == (2 * 2**30, 2)  # split over the group's sockets, rounded up
    assert options_of(given(("runtime.fairness", "250 ms"))).fairness == PS_PER_S // 4
    assert window_of(given(("cluster.window", "1 ps"))) == 1


@pytest.mark.parametrize(
    ("key", "read"),
    [("runtime.kv_reserve", options_of), ("runtime.fairness", options_of), ("cluster.window", window_of)],
)
@pytest.mark.parametrize("value", ["2", "2 parsecs", "-1 s", "-1 GiB", "nan s", "s", "1 s 2", "1 TB/s"])
def test_a_quantity_in_another_unit_is_an_error(key: str, read: Callable[[Config], object], value: str) -> None:
    with pytest.raises(InputError, match="allowed units") as caught:
        read(given((key, value)))
    assert str(caught.value).startswith(f"{key} = {value!r}: ")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("cluster.window", "0 s", "cluster.window = '0 s': must be above zero"),
        ("cluster.window", "1e400 s", "cluster.window = '1e400 s': "),
        ("cluster.window", "1e300 s", "cluster.window = '1e300 s': "),
        ("runtime.kv_reserve", "1.5 B", "runtime.kv_reserve = '1.5 B': must be a whole number of bytes"),
        (
            "sharding.tensor_parallel",
            3,
            "sharding.tensor_parallel = 3: must divide the machine's 8 sockets: one of 1, 2, 4, 8",
        ),
        ("experts.count", 2000, "out of memory in DDR"),
        ("runtime.kv_reserve", "600 GiB", "out of memory in HBM"),
        ("runtime.kv_reserve", "1 MiB", "runtime.kv_reserve"),
        ("workload.trace", "none.csv", "none.csv"),
        ("experts.model", "gpt-5", "gpt-5"),
    ],
)
def test_what_is_wrong_is_found_before_anything_runs(key: str, value: object, said: str) -> None:
    with pytest.raises(InputError) as caught:
        prepare(given((key, value)))
    assert said in str(caught.value)

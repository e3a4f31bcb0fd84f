"""Does the last word win, and does the config say what was given?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from cluster.config import Config
from cluster.config_file import parse_setting
from cluster.deploy import deployment_of, machine_of, options_of, window_of
from node.expert import ExpertGroup
from node.options import RuntimeOptions
from node.units import PS_PER_S

Given = Callable[..., Config]
Fault = Callable[..., str]
Toml = Callable[[str | bytes], Path]
TABLES = [entry.name for entry in fields(Config) if entry.name not in ("seed", "explicit")]


def test_nothing_given_is_the_default_tree(given: Given) -> None:
    assert given() == Config()


def test_set_goes_over_the_file_and_the_file_over_the_default(toml: Toml, given: Given, fault: Fault) -> None:
    path = toml('seed = 7\n[runtime]\nbatch = "many"\neviction = "lfu"\n[workload]\nrate = 3\n')
    assert fault(path=path).startswith(f"{path}: runtime.batch = 'many': ")
    config = given(("runtime.batch", 3), ("runtime.batch", 2), path=path)  # of two, the last
    assert (config.seed, config.workload.rate, type(config.workload.rate)) == (7, 3.0, float)
    assert (config.runtime.batch, config.runtime.eviction, config.runtime.fairness) == (2, "lfu", "30 s")
    here = ("seed", "runtime.eviction", "workload.rate")
    assert config.explicit == {**dict.fromkeys(here, str(path)), "runtime.batch": "--set"}


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


def test_groups_of_experts_are_numbered_in_the_order_of_the_file(toml: Toml, given: Given) -> None:
    path = toml('[[experts.group]]\nmodel = "llama-3-8b"\ncount = 2\nweight = 3\n[[experts.group]]\ndtype = "int8"\n')
    catalogue = given(path=path).experts.catalogue()
    assert catalogue.groups == (ExpertGroup("llama-3-8b", 2, 3.0, "bf16"), ExpertGroup("llama-2-7b", 150, 1.0, "int8"))
    assert catalogue.weights()[:3] == (3.0, 3.0, 1.0) and catalogue.count == 152
    assert catalogue.programs()[:3] == (0, 0, 1)


def test_one_model_is_a_catalogue_of_one_group_and_router_none_is_no_router(given: Given) -> None:
    catalogue = given(("experts.count", 5), ("experts.dtype", "int8"), ("experts.router", "none")).experts.catalogue()
    assert (catalogue.groups, catalogue.router) == ((ExpertGroup("llama-2-7b", 5, 1.0, "int8"),), None)


def test_numbers_of_the_machine_come_bare_or_with_their_source(toml: Toml, given: Given) -> None:
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


def test_a_bare_number_of_the_machine_names_the_file_it_is_from(toml: Toml, given: Given) -> None:
    machine = machine_of(given(path=toml("[machine]\nsockets = 4\n")))
    assert "settings.toml" in next(figure.source for figure in machine.figures if figure.path == "sockets")


def test_every_option_reaches_the_runtime(given: Given) -> None:
    texts = {"scheduler": "paper", "eviction": "lfu", "call_overhead": "none", "fusion": "fused", "orchestration": "so"}
    settings = {f"runtime.{name}": text for name, text in texts.items()}
    found = deployment_of(given(*settings.items(), ("runtime.batch", 3), ("experts.router_tokens", 7))).options
    assert found == RuntimeOptions(**texts, batch=3, router_tokens=7)  # type: ignore[arg-type]
    stay = options_of(given(("runtime.min_residency", "250 ms"), ("runtime.drain", 7)))
    assert (stay.min_residency, stay.drain) == (PS_PER_S // 4, 7)
    assert {name for name, text in texts.items() if getattr(RuntimeOptions(), name) == text} == {"fusion"}


def test_quantities_are_read_with_their_units(given: Given) -> None:
    def reserve(text: str, degree: int) -> int:
        return options_of(given(("runtime.kv_reserve", text), ("sharding.tensor_parallel", degree))).kv_reserve

    assert (reserve("1.5 GiB", 1), reserve("2 GB", 1)) == (3 * 2**29, 2 * 10**9)
    assert (reserve("16 GiB", 8), reserve("9 B", 8)) == (2 * 2**30, 2)  # split over the group's sockets, rounded up
    assert options_of(given(("runtime.fairness", "250 ms"))).fairness == PS_PER_S // 4
    assert window_of(given(("cluster.window", "1 ps"))) == 1

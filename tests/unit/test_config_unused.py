"""Is a key that nothing reads an error that says why?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from cluster.config import Config
from cluster.config_file import _UNUSED, read_config
from node.errors import InputError

Given = Callable[..., Config]
Fault = Callable[..., str]
Toml = Callable[[str | bytes], Path]
TABLES = [entry.name for entry in fields(Config) if entry.name not in ("seed", "explicit")]


TRACE = (("workload.trace", "t.csv"), "workload.trace is set")
AT_ONCE = (("workload.arrivals", "at_once"), "workload.arrivals is at_once")
ALL_GROUPS = (("sharding.home", "all_groups"), "sharding.home is all_groups")
ABOVE_ONE = "routing.nodes is above 1, and a node's sockets are in one process"
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
    ("sharding.placement", "popularity", ALL_GROUPS),
    ("sharding.replicas", 2, ALL_GROUPS),
    ("sharding.rebalance", "60 s", ALL_GROUPS),
    ("sharding.router", "group", (("experts.router", "none"), "experts.router is none")),
    (
        "runtime.fairness",
        "5 s",
        (("runtime.scheduler", "paper"), "runtime.scheduler is paper and no class has a priority"),
    ),
    ("runtime.program_reserve", "1 GiB", (("runtime.switching", "expert"), "runtime.switching is not program")),
    ("runtime.orchestration", "so", (("runtime.fusion", "unfused"), "runtime.fusion is not fused or looped")),
    ("cluster.sockets_per_actor", 2, (("routing.nodes", 2), ABOVE_ONE)),
    ("cluster.node_workers", 2, (("cluster.backend", "local"), "cluster.backend is not ray")),
    ("cluster.address", "auto", (("cluster.backend", "local"), "cluster.backend is not ray")),
]


def test_every_rule_on_keys_without_effect_is_tried_here() -> None:
    tried = sorted((key, reason) for key, _, (_, reason) in WITHOUT_EFFECT)
    assert tried == sorted((key, reason) for key, rules in _UNUSED.items() for _, reason in rules)


@pytest.mark.parametrize(("key", "value", "because"), WITHOUT_EFFECT)
def test_a_key_without_effect_is_an_error_that_says_why(
    key: str, value: object, because: tuple[tuple[str, object], str], toml: Toml, given: Given, fault: Fault
) -> None:
    cause, reason = because
    said = f"{key}: has no effect, because {reason}; remove one of the two"
    assert fault((key, value), cause) == fault(cause, (key, value)) == f"--set: {said}"
    needed = [("runtime.switching", "program")] if key == "runtime.program_reserve" else []
    assert given((key, value), *needed) and given(cause)
    table, name = key.split(".")
    path = toml(f"[{table}]\n{name} = {value!r}\n")
    assert fault(cause, path=path) == f"{path}: {said}"


def test_fairness_bounds_what_paper_drains(given: Given) -> None:
    settings = ("runtime.scheduler", "paper"), ("runtime.fairness", "5 s"), ("runtime.drain", 1)
    assert given(*settings).runtime.fairness == "5 s"


def test_scaling_the_rate_of_a_trace_has_an_effect(given: Given) -> None:
    config = given(("workload.trace", "t.csv"), ("workload.rate_scale", 2.0))
    assert (config.workload.trace, config.workload.rate_scale) == ("t.csv", 2.0)


def test_a_key_that_the_command_does_not_read_is_an_error(toml: Toml) -> None:
    path = toml("[runtime]\nbatch = 2\n")
    with pytest.raises(InputError) as caught:
        read_config(path, [], lambda key: key != "runtime.batch")
    assert str(caught.value) == f"{path}: runtime.batch: this command does not use it"
    assert read_config(None, [("seed", 1)], lambda key: key == "seed").seed == 1

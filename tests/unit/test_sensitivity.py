"""Are inputs varied over their ranges, and ranked by what that does, as worked out by hand?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from cluster.config import Config
from cluster.config_file import read_config
from cluster.sensitivity import Effect, Varied, as_json, effects, picture, varied_of
from cluster.sweep.tasks import Found, Task
from node.errors import InputError
from node.spec import Figure, Machine
from node.spec_file import load_machine, paths

RANGED = {"value": "400 GB/s", "kind": "assumed", "source": "us", "range": ["100 GB/s", "500 GB/s"]}


def machine(**numbers: object) -> Machine:
    return load_machine("sn40l-node", {path.replace("__", "."): value for path, value in numbers.items()})


def varied(found: Machine, *kinds: str, factor: float = 2.0) -> dict[str, tuple[str, str]]:
    return {one.figure.path: (one.low, one.high) for one in varied_of(found, kinds, factor)[0]}


# Ranges


def test_a_stated_range_is_taken_and_another_is_a_factor_in_the_units_of_the_value() -> None:
    found = varied(machine(peer__bandwidth=RANGED), "assumed", "derived")
    assert found["peer.bandwidth"] == ("100 GB/s", "500 GB/s")
    assert found["host.call_overhead"] == ("19.465 ms", "77.86 ms")
    assert found["pipeline.grain"] == ("80 cycles", "320 cycles")
    assert found["compute.macs_per_cycle"] == ("96", "384")
    assert varied(machine(), "derived", factor=4.0)["power.socket"] == ("157.5 W", "2520 W")


def test_ends_are_whole_where_the_value_is_and_a_fraction_is_at_most_one() -> None:
    found = varied(machine(pipeline__lanes=3, sram__bank_capacity="3 B", compute__efficiency=0.6), "assumed")
    assert found["pipeline.lanes"] == ("2", "6") and found["sram.bank_capacity"] == ("2 B", "6 B")
    assert found["compute.efficiency"] == ("0.3", "1")
    assert varied(machine(compute__efficiency="60 %"), "assumed")["compute.efficiency"] == ("30 %", "100 %")
    spelt = varied(machine(peer__latency="5 µs", ddr__bandwidth="100GB/s", peer__bandwidth="1,000 GB/s"), "assumed")
    assert (spelt["peer.latency"], spelt["ddr.bandwidth"]) == (("2.5e-06 s", "1e-05 s"), ("50 GB/s", "200 GB/s"))
    assert spelt["peer.bandwidth"] == ("500 GB/s", "2000 GB/s")
    assert varied(machine(pipeline__lanes=1), "assumed")["pipeline.lanes"] == ("1", "2")


@pytest.mark.parametrize("name", ["sn40l-node", "dgx-a100", "dgx-h100"])
def test_every_end_is_a_value_that_the_machine_can_have(name: str) -> None:
    found = load_machine(name)
    for one in varied_of(found, ("assumed", "derived", "published"), 3.0)[0]:
        for end in (one.low, one.high):
            load_machine(name, {one.figure.path: end})


def test_what_is_varied_is_of_the_kinds_asked_for_or_states_a_range() -> None:
    found = varied(machine(cost_per_hour=98), "assumed")
    assert "hbm.bandwidth" in found  # published, with a range, for sources disagree
    assert "hbm.capacity" not in found and "power.socket" not in found and "cost_per_hour" not in found
    without = varied_of(load_machine("dgx-a100"), ("assumed",), 2.0)[1]
    assert [figure.path for figure in without] == ["kernel.sync"]  # 0 s
    hosted = varied_of(load_machine("dgx-a100"), ("published",), 2.0)[1]
    assert [figure.path for figure in hosted] == ["host_link.sharing", "kernel.fusion"]  # choices


@pytest.mark.parametrize(
    "ends", [["500 GB/s", "600 GB/s"], ["500 GB/s", "100 GB/s"], ["100 GB/s"], "100 GB/s", ["1 s", "2 s"], []]
)
def test_a_range_that_is_none_is_refused(ends: object) -> None:
    with pytest.raises(InputError, match=r"machine\.peer\.bandwidth: range"):
        machine(peer__bandwidth={**RANGED, "range": ends})


def test_a_choice_has_no_range() -> None:
    entry = {"value": "fused", "kind": "assumed", "source": "us", "range": ["unfused", "looped"]}
    with pytest.raises(InputError, match="range"):
        machine(kernel__fusion=entry)


def test_a_range_goes_from_the_config_to_the_machine() -> None:
    config = read_config(None, [("machine.peer.bandwidth", RANGED)])
    figures = {figure.path: figure for figure in load_machine("sn40l-node", config.machine.numbers).figures}
    assert figures["peer.bandwidth"].range == ("100 GB/s", "500 GB/s")


def test_all_stated_ranges_are_around_their_values() -> None:
    assert {figure.path for figure in machine().figures if figure.range} >= {"peer.bandwidth", "hbm.bandwidth"}
    assert "cost_per_hour" in paths()


# Effects


def solve(tasks: Iterable[Task]) -> Iterator[tuple[int, Found]]:
    """A machine whose result is 10 + peer bandwidth in GB/s + 3 x call overhead in ms; in no order."""

    def result(config: Config) -> Found:
        found = load_machine("sn40l-node", config.machine.numbers)
        if found.peer.bandwidth > 450e9:
            return {"cannot_run": "too quick"}
        figure = 10 + found.peer.bandwidth / 1e9 + 3 * found.host.call_overhead * 1e3
        return {"overloaded": False, "summary": {"e2e_s": {"p50": figure}, "machine": "m"}}

    yield from reversed([(number, result(config)) for number, config in tasks])


def of(path: str, low: str, high: str) -> Varied:
    return Varied(Figure(path, "0", "assumed", "us"), low, high, stated=True)


BASE = read_config(None, [("machine.peer.bandwidth", "100 GB/s"), ("machine.host.call_overhead", "10 ms")])  # 140
CALLS, PEER = of("host.call_overhead", "9 ms", "20 ms"), of("peer.bandwidth", "60 GB/s", "500 GB/s")


def test_inputs_are_ranked_by_the_greatest_change_either_way() -> None:
    steps: list[int] = []
    found = effects(BASE, [CALLS, PEER], "e2e_s.p50", solve, lambda: steps.append(1))
    assert [(one.varied, one.at_low, one.at_high, one.reason) for one in found] == [
        (PEER, 100.0, None, "too quick"),
        (CALLS, 137.0, 170.0, None),
    ]
    assert [one.relative for one in found] == pytest.approx([40 / 140, 30 / 140])
    assert len(steps) == 5


def test_a_base_that_cannot_run_or_has_no_such_figure_is_refused() -> None:
    with pytest.raises(InputError, match="too quick"):
        effects(read_config(None, [("machine.peer.bandwidth", "500 GB/s")]), [CALLS], "e2e_s.p50", solve)
    with pytest.raises(InputError, match=r"--result 'e2e_s\.p51': the run has no such figure; it has e2e_s\.p50$"):
        effects(BASE, [CALLS], "e2e_s.p51", solve)


@pytest.mark.parametrize(
    ("base", "low", "high", "relative"), [(0.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, float("inf")), (2.0, None, None, 0.0)]
)
def test_the_effect_on_a_result_of_zero_or_none(base: float, low: Any, high: Any, relative: float) -> None:
    assert Effect(CALLS, base, low, high).relative == relative


def test_json_and_picture_have_every_input_its_range_and_its_effect() -> None:
    found = effects(BASE, [CALLS, PEER], "e2e_s.p50", solve)
    answer: Any = as_json("e2e_s.p50", 2.0, found, [Figure("kernel.sync", "0 s", "assumed", "x")])
    assert answer["base"] == 140.0 and answer["without_range"][0]["path"] == "kernel.sync"
    first = answer["inputs"][0]
    assert (first["path"], first["low"], first["high"], first["range_stated"]) == (
        "peer.bandwidth", "60 GB/s", "500 GB/s", True,
    )  # fmt: skip
    assert (first["at_low"], first["at_high"], first["cannot_run"]) == (100.0, None, "too quick")
    drawn = picture("e2e_s.p50", found)
    assert drawn.index("host.call_overhead") < drawn.index("peer.bandwidth")  # from the bottom up
    assert drawn.count("<circle") == 3 + 2  # three results, and the legend's two

"""Does the command keep its word on what is large, slow, oddly named or pointless?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Said = tuple[int, str, str]
Coe = Callable[..., Said]
LOCAL = "run --backend local --set workload.requests=20"


def refused(said: Said, part: str) -> None:
    code, _, err = said
    assert code == 2 and err.startswith("coe: error: ") and err.count("\n") == 1 and part in err


def test_request_times_that_overflow_64_bits_together_are_summed_exactly(coe: Coe) -> None:
    """30,000 at once wait for 800 s on average: 2 x 10^19 ps."""
    sets = ("workload.arrivals=at_once", "workload.input_tokens=128", "workload.output_tokens=20")
    code, _, err = coe("run --backend local --output big --set workload.requests=30000", *_set(*sets))
    assert code == 0, err
    summary = json.loads(Path("big/summary.json").read_text())
    assert summary["e2e_s"]["mean"] * 30_000 > 2**63 / 1e12
    assert 0.3 < summary["e2e_s"]["mean"] / summary["makespan_s"] < 0.7


def _set(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


@pytest.mark.parametrize(
    "number",
    [
        "hbm.bandwidth=1 kB/s",
        "host.call_overhead=1e7 s",
        "peer.latency=1e6 s",
        "kernel.sync=1e6 s",
        "ddr.bandwidth=1 B/s",
        "compute.clock=1e-300 Hz",
    ],
)
def test_a_machine_too_slow_for_virtual_time_is_told(coe: Coe, number: str) -> None:
    refused(coe(LOCAL, *_set(f"machine.{number}")), "virtual time ")
    assert not list(Path().iterdir())


def test_what_looks_like_markup_is_shown_as_it_is(coe: Coe) -> None:
    Path("odd.toml").write_text('base = "sn40l-node"\ntitle = "x [/b] [red]y"\n[hbm]\ncapacity = "48 GiB"\n')
    code, out, err = coe(f"{LOCAL} --machine odd.toml --output", "o[/x]")
    assert (code, "Traceback" in err) == (0, False)
    assert "x [/b] [red]y" in out and "written to o[/x]" in out
    assert "x [/b] [red]y" in coe("machines odd.toml")[1]


def test_two_machines_of_one_name_are_refused(coe: Coe) -> None:
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Path(folder, "node.toml").write_text('base = "sn40l-node"\n')
    for command in ("footprint", "compare --backend local"):
        refused(coe(f"{command} --machines a/node.toml,b/node.toml"), "two are named 'node'")


@pytest.mark.parametrize(
    "text", ["[workload.nothing]\n", "[experts.foo]\n", "[workload.rate]\n", "[machine.foo]\n", "[no]\n"]
)
def test_an_empty_table_that_means_nothing_is_refused(coe: Coe, text: str) -> None:
    Path("c.toml").write_text(text)
    refused(coe(f"{LOCAL} --config c.toml"), "c.toml: ")


@pytest.mark.parametrize("setting", ["runtime.orchestration=so", "runtime.fusion=fused"])
def test_what_the_machine_makes_pointless_is_refused(coe: Coe, setting: str) -> None:
    refused(coe(f"{LOCAL} --machine dgx-a100", *_set(setting)), setting.partition("=")[0])


@pytest.mark.parametrize("setting", ["workload.popularity=uniform", "workload.zipf_s=2.0"])
def test_what_the_trace_makes_pointless_is_refused(coe: Coe, setting: str) -> None:
    Path("t.jsonl").write_text('{"timestamp": 0, "input_length": 5, "output_length": 5, "expert": 3}\n')
    refused(coe("run --backend local --trace t.jsonl", *_set(setting)), "names the expert of each request")


def test_several_machines_take_a_number_where_they_know_it(coe: Coe) -> None:
    code, out, _ = coe("footprint --json --experts 1600", *_set("machine.ddr.bandwidth=20 GB/s"))
    nodes = {row["machine"]: row["nodes"] for row in json.loads(out)["rows"]}
    assert code == 0 and nodes["sn40l-node"] == -(-1600 // 38)  # too slow to count what is below HBM
    refused(
        coe("compare --backend local --machines sn40l-node", *_set("machine.host_link.bandwidth=1 GB/s")), "has this"
    )


def test_a_comparison_tells_what_a_run_tells(coe: Coe) -> None:
    Path("m.jsonl").write_text('{"timestamp": 0, "input_length": 5000, "output_length": 5, "hash_ids": [1]}\n')
    code, _, err = coe("compare --backend local --machines sn40l-node,dgx-a100 --trace m.jsonl")
    assert code == 0
    assert "hash_ids ignored" in err and "exceed their model's context" in err and "fitted to prompts of 128" in err

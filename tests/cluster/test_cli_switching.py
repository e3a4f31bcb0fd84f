"""Does ``coe switching`` say of each machine what it should, in its table, as JSON and as a picture?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

Coe = Callable[[str], Any]  # a line -> code, out, err
FEW = "switching --models llama-2-7b,falcon-40b --set workload.requests=60 --set experts.count=60 "


def good(said: Any) -> str:
    assert said.code == 0, said.err
    return said.out


def test_every_machine_is_there_with_its_link_shared_both_ways(coe: Coe) -> None:
    answer = json.loads(good(coe(FEW + "--json")))
    labels = ["sn40l-node", "dgx-a100", "dgx-a100, link per GPU", "dgx-h100", "dgx-h100, link per GPU"]
    assert [one["machine"] for one in answer["runs"]] == labels == [one["machine"] for one in answer["shares"]]
    assert [one["model"] for one in answer["activations"]] == ["llama-2-7b"] * 5 + ["falcon-40b"] * 5
    for one in answer["runs"]:
        assert sum(one["requests"].values()) == one["summary"]["completed"] == 60
        assert one["copies"] == one["summary"]["expert_activations"] and one["copy_out_bytes"] == 0
        assert abs(one["probed"]["switching_s"] / one["true_s"] - 1) < 1e-9
    kinds = {(one["machine"], one["path"]): one["kind"] for one in answer["inputs"]}
    assert kinds["sn40l-node", "ddr.efficiency"] == "derived"
    assert kinds["dgx-h100, link per GPU", "host_link.sharing"] == "assumed"


def test_the_table_says_why_nothing_is_copied_out_and_what_hot_means(coe: Coe) -> None:
    out = " ".join(good(coe(FEW + "--machines sn40l-node")).split())
    assert "copied out: 0 B in 0 s: weights are read-only and every expert has its home copy in DDR" in out
    assert "hot: waited for no copy; cold: waited for one, in the first batch" in out
    assert "(1 - h) A / (R + E + (1 - h) A)" in out and "ddr.efficiency 0.62 (derived)" in out
    assert "largest less smallest TTFT at full batch" in out


def test_the_picture_has_its_four_panels(coe: Coe, tmp_path: Path) -> None:
    good(coe(FEW + "--machines sn40l-node --svg a.svg --set machine.hbm.capacity='20 GB'"))
    texts = [one.text or "" for one in ElementTree.parse(tmp_path / "a.svg").iter("{http://www.w3.org/2000/svg}text")]
    titles = ("Activation of one expert", "Share of activations in", "Requests of the workload", "Age at eviction")
    assert [any(words.startswith(title) for words in texts) for title in titles] == [True] * 4
    assert any("ddr.bandwidth 200 GB/s (published)" in words for words in texts)
    assert {"hot", "warm", "cold", "llama-2-7b", "falcon-40b"} <= set(texts)


def test_a_machine_without_room_is_said_and_the_others_run(coe: Coe) -> None:
    out = good(coe(FEW + "--machines sn40l-node,dgx-a100 --set experts.count=200"))
    assert "dgx-a100 cannot run the workload: out of memory in DDR of each socket of group 0" in " ".join(out.split())
    assert "sn40l-node" in out.partition("Requests of the workload")[2]


def test_nobody_can_run_and_still_the_arithmetic_is_there(coe: Coe) -> None:
    out = good(coe(FEW + "--machines dgx-a100 --set experts.count=200 --svg a.svg"))
    assert "421 ms" in out and "Requests of the workload" not in out


def test_a_trace_is_the_workload(coe: Coe, tmp_path: Path) -> None:
    rows = [{"timestamp": 1000 * n, "input_length": 100, "output_length": 5, "expert": n % 3} for n in range(9)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = "switching --models llama-2-7b --machines sn40l-node --trace t.jsonl --set experts.count=3 --json"
    run = json.loads(good(coe(line)))["runs"][0]
    assert run["requests"] == {"hot": 6, "warm": 0, "cold": 3} and run["evictions"] == 0 and run["age_s"] is None

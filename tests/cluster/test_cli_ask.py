"""Do ``coe compare``, ``machines``, ``footprint`` and help say what they should?"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from node.spec_file import load_machine, machine_names

SAMDA = Path(__file__).resolve().parents[2] / "examples/samda.toml"
Coe = Callable[[str], Any]  # a line -> code, out, err


def good(said: Any) -> str:
    assert said.code == 0, said.err
    return said.out


def names(folder: Path) -> list[str]:
    """All there is, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def test_compare_writes_every_machine_beside_the_first(coe: Coe, tmp_path: Path) -> None:
    out = good(coe("compare --backend local --set workload.requests=5 --output both"))
    found = json.loads((tmp_path / "both" / "compare.json").read_text())
    assert names(tmp_path / "both") == ["compare.json", "report.html"] and set(found) == {
        "machines",
        "first_is_better_by",
    }
    labels = [machine["label"] for machine in found["machines"]]
    assert labels[0] == "sn40l-node" and len(labels) == 5 and list(found["first_is_better_by"]) == labels[1:]
    times, other = found["first_is_better_by"]["dgx-a100"], found["machines"][1]
    assert times["makespan_s"] == other["makespan_s"] / found["machines"][0]["makespan_s"]
    assert f"({times['makespan_s']:.2f}x)" in out


def test_machines_are_listed(coe: Coe) -> None:
    out = good(coe("machines"))
    assert machine_names() and all(re.search(rf"^{name} ", out, re.MULTILINE) for name in machine_names())


@pytest.mark.parametrize("name", ["sn40l-node", "dgx-h100"])
def test_every_number_of_a_machine_is_told_with_kind_and_source(coe: Coe, name: str) -> None:
    lines = [re.split(r"\s{2,}", line.strip()) for line in good(coe(f"machines {name}")).splitlines()]
    figures = load_machine(name).figures
    rows = [line for line in lines if len(line) == 4 and line[0] != "number"]
    assert [row[:3] for row in rows] == [[figure.path, figure.value, figure.kind] for figure in figures]
    for row, figure in zip(rows, figures, strict=True):
        rest = [*lines, [""]][lines.index(row) + 1]
        ends = f" ({' to '.join(figure.range)})" if figure.range else ""
        assert figure.source + ends == " ".join([row[3], *(rest if len(rest) == 1 else [])]).strip()


def test_a_number_that_is_set_is_told_as_such(coe: Coe) -> None:
    out = good(coe("machines sn40l-node --set machine.kernel.sync='2 us'"))
    assert re.search(r"^kernel\.sync +2 us +assumed +--set *$", out, re.MULTILINE)


def test_a_footprint_is_a_row_for_each_machine_and_number_of_experts(coe: Coe) -> None:
    found = json.loads(good(coe("footprint --experts 38,850 --machines sn40l-node,dgx-h100 --json")))
    keys = ("machine", "experts", "nodes", "resident_in_hbm", "held_below_hbm", "state", "cost_per_hour")
    assert list(found) == ["rows", "machines"] and all(tuple(row) == keys for row in found["rows"])
    assert [tuple(row.values()) for row in found["rows"]] == [
        ("sn40l-node", 38, 1, 38, 0, "fits", None),
        ("sn40l-node", 850, 1, 38, 812, "spills", None),
        ("dgx-h100", 38, 1, 38, 0, "fits", None),
        ("dgx-h100", 850, 19, 45, 118, "out_of_memory", None),
        ("dgx-h100, link per GPU", 38, 1, 38, 0, "fits", None),
        ("dgx-h100, link per GPU", 850, 6, 45, 118, "out_of_memory", None),
    ]
    slow = json.loads(
        good(coe("footprint --experts 850 --machines sn40l-node --set footprint.activation_limit='1 ms' --json"))
    )
    assert slow["rows"][0]["nodes"] == 23
    few = json.loads(
        good(coe("footprint --experts 10 --machines sn40l-socket --set sharding.tensor_parallel=1 --json"))
    )
    assert few["rows"][0]["held_below_hbm"] == 8  # the default of 150 experts, which do not fit, does not matter


def test_a_footprint_without_json_is_a_table(coe: Coe) -> None:
    out = good(coe("footprint --experts 850"))
    experts = r"^ +850 +1 \(spills\) +19 \(full\) +19 \(full\) +19 \(full\) +6 \(full\)"
    assert re.search(experts, out, re.MULTILINE)
    assert re.search(r"^dgx-h100, link per GPU +45 +163 +46 +164 +26\.3 ms +19 +6 *$", out, re.MULTILINE)
    assert "850 experts / 45 a machine = 18.89: 19 machines" in out


@pytest.mark.parametrize("line", ["--help", "-h", "run --help", "--version"])
def test_help_is_no_error(coe: Coe, line: str) -> None:
    assert coe(line).code == 0 and not coe(line).err


def test_without_a_command_there_is_help(coe: Coe) -> None:
    said = coe("")
    assert "Usage: coe [OPTIONS] COMMAND" in said.out + said.err and "error" not in said.err


def test_an_encoder_and_its_experts_are_compared_on_three_machines(coe: Coe, tmp_path: Path) -> None:
    out = good(coe(f"compare --backend local --config {SAMDA} --set workload.requests=40 --output out"))
    columns = json.loads((tmp_path / "out" / "compare.json").read_text())["machines"]
    assert all(f" {name}" in out for name in ("sn40l-node", "dgx-a100", "dgx-h100"))
    assert [column["completed"] for column in columns] == [40] * 5

"""Does ``coe sweep`` write the same bytes on any number of workers, and after it was killed?"""

from __future__ import annotations

import csv
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import COMMAND, ENVIRONMENT

Coe = Callable[[str], Any]  # a line -> code, out, err
SWEEP = """
[workload]
requests = 40
[experts]
count = 60
[grid]
"sharding.tensor_parallel" = [4, 8]
"runtime.eviction" = ["lru", "lfu"]
"machine.ddr.capacity" = ["50 GiB", "1.5 TiB"]
seed = [0, 1]
"""
FILES = ["definition.json", "front.svg", "points", "points.csv", "sweep.json"]
TABLES = ("points.csv", "sweep.json", "front.svg")


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    path = tmp_path / "s.toml"
    path.write_text(SWEEP)
    return path


def good(said: Any) -> str:
    assert said.code == 0, said.err
    return said.out


def tables(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in TABLES}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "points.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_has_a_row_for_each_point_and_a_reason_for_those_that_cannot_run(
    coe: Coe, tmp_path: Path, sweep: Path
) -> None:
    out = good(coe("sweep s.toml --backend local"))
    folder = tmp_path / "runs" / "s"
    assert sorted(path.name for path in folder.iterdir()) == FILES
    found = rows(folder)
    assert len(found) == 16 and "16 points" in out and "written to runs/s" in out
    small = [row for row in found if row["machine.ddr.capacity"] == "50 GiB"]
    assert all(row["cannot_run"].startswith("out of memory in DDR of each socket") for row in small)
    assert all(row["e2e_s.p99"] == row["on_front"] == "" for row in small) and len(small) == 8
    assert "cannot run (4 of 16): out of memory in DDR" in out
    other = [row for row in found if row not in small]
    assert all(row["cannot_run"] == "" and row["completed"] == "40" for row in other)
    assert "true" in {row["on_front"] for row in other}
    assert "assumed inputs: peer.bandwidth" not in out and "assumed inputs: compute.efficiency 1.0" in out
    assert "peer.bandwidth 400 GB/s" in (folder / "front.svg").read_text()
    inputs = json.loads((folder / "sweep.json").read_text())["inputs"]
    assert {one["path"]: one["kind"] for one in inputs}["peer.bandwidth"] == "assumed"
    assert "sockets of one machine" in out


def test_a_row_is_the_run_of_its_settings(coe: Coe, tmp_path: Path, sweep: Path) -> None:
    good(coe("sweep s.toml --backend local --output all"))
    row = rows(tmp_path / "all")[15]
    settings = "--set workload.requests=40 --set experts.count=60 --set runtime.eviction=lfu --seed 1"
    good(coe(f"run --backend local --output one {settings}"))
    summary = json.loads((tmp_path / "one" / "summary.json").read_text())
    assert float(row["e2e_s.p99"]) == summary["e2e_s"]["p99"] and float(row["makespan_s"]) == summary["makespan_s"]
    assert json.loads((tmp_path / "all" / "sweep.json").read_text())["points"][15]["summary"] == summary


def test_one_and_two_workers_and_this_process_write_the_same_bytes(
    coe: Coe, tmp_path: Path, sweep: Path, ray_cluster: None
) -> None:
    good(coe("sweep s.toml --backend local --output here"))
    good(coe("sweep s.toml --workers 1 --output one"))
    good(coe("sweep s.toml --workers 2 --output two"))
    assert tables(tmp_path / "here") == tables(tmp_path / "one") == tables(tmp_path / "two")


def test_a_sweep_that_was_killed_goes_on_to_the_same_bytes(coe: Coe, tmp_path: Path, sweep: Path) -> None:
    sweep.write_text(SWEEP.replace("requests = 40", "requests = 400"))
    points = tmp_path / "killed" / "points"
    command = [COMMAND, "sweep", "s.toml", "--backend", "local", "--output", "killed"]
    running = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    limit = time.monotonic() + 60
    while len(list(points.glob("0*.json"))) < 8 and time.monotonic() < limit:
        time.sleep(0.02)
    running.kill()
    running.wait()
    before = {path.name: path.stat().st_mtime_ns for path in points.glob("0*.json")}
    assert 8 <= len(before) < 16 and not (tmp_path / "killed" / "points.csv").exists()
    (points / ".000015.json.1").write_text("half of what wou")  # as a kill while writing leaves it
    good(coe("sweep s.toml --backend local --output killed"))
    assert {name: (points / name).stat().st_mtime_ns for name in before} == before  # not run again
    assert not list(points.glob(".*"))
    good(coe("sweep s.toml --backend local --output whole"))
    assert tables(tmp_path / "killed") == tables(tmp_path / "whole")


def test_a_point_that_cannot_be_read_is_run_again(coe: Coe, tmp_path: Path, sweep: Path) -> None:
    good(coe("sweep s.toml --backend local --output a"))
    whole = tables(tmp_path / "a")
    (tmp_path / "a" / "points" / "000003.json").write_text('{"half')
    good(coe("sweep s.toml --backend local --output a"))
    assert tables(tmp_path / "a") == whole


def test_a_finished_sweep_shows_another_latency_without_a_run(
    coe: Coe, tmp_path: Path, sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good(coe("sweep s.toml --backend local --output a"))
    monkeypatch.setattr("cluster.sweep.tasks.run", None)  # would fail
    assert "front: ttft_s.p50 against cost" in good(coe("sweep s.toml --backend local --output a --latency ttft_s.p50"))


@pytest.mark.parametrize(
    ("was", "becomes", "named"),
    [
        ("requests = 40", "requests = 41", "workload.requests changed"),
        ("seed = [0, 1]", "seed = [0, 2]", "grid changed"),
        ("[experts]", "[sharding]\n[experts]\nrouter = 'none'", "experts.router changed"),
    ],
)
def test_a_changed_file_is_refused_and_touches_nothing(
    coe: Coe, tmp_path: Path, sweep: Path, was: str, becomes: str, named: str
) -> None:
    good(coe("sweep s.toml --backend local --output a"))
    before = tables(tmp_path / "a")
    sweep.write_text(SWEEP.replace(was, becomes))
    code, out, err = coe("sweep s.toml --backend local --output a")
    assert (code, out, err.count("\n")) == (2, "", 1) and named in err and "holds another sweep" in err
    assert tables(tmp_path / "a") == before


def test_two_sweeps_at_once_in_one_folder_are_refused(coe: Coe, tmp_path: Path, sweep: Path) -> None:
    sweep.write_text(SWEEP.replace("requests = 40", "requests = 4000"))
    command = [COMMAND, "sweep", "s.toml", "--backend", "local", "--output", "a"]
    running = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    limit = time.monotonic() + 60
    while not list((tmp_path / "a").glob("points/0*.json")) and time.monotonic() < limit:
        time.sleep(0.02)
    code, out, err = coe("sweep s.toml --backend local --output a")
    running.kill()
    running.wait()
    assert (code, out) == (2, "") and err == "coe: error: --output 'a': another coe sweep is at work in it\n"


def test_the_users_price_is_the_cost(coe: Coe, tmp_path: Path, sweep: Path) -> None:
    sweep.write_text("[workload]\nrequests = 12\n[machine]\ncost_per_hour = 98.5\n[grid]\nruntime.batch = [1, 8]\n")
    out = good(coe("sweep s.toml --backend local --output a"))
    assert "machine.cost_per_hour, assumed, by the user" in out and "cost_per_hour 98.5" in out
    assert [row["cost_per_hour"] for row in rows(tmp_path / "a")] == ["98.5", "98.5"]
    assert float(rows(tmp_path / "a")[0]["cost"]) == float(rows(tmp_path / "a")[0]["makespan_s"]) * 98.5 / 3600


def test_a_ray_that_cannot_be_reached_leaves_no_folder(
    process: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, sweep: Path
) -> None:
    said = process("sweep", "s.toml", "--output", "a", "--address", "127.0.0.1:1", at=tmp_path)
    assert said.returncode == 2 and said.stdout == "" and said.stderr.count("\n") == 1
    assert "--address '127.0.0.1:1': nothing can be reached there" in said.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["s.toml"]

"""Does ``coe run`` write what it says, the same for the same seed, over Ray too?"""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pyarrow.csv
import pyarrow.parquet

RUN = "run --backend local --set workload.requests=12 "
FILES = ["report.html", "requests.parquet", "run.json", "summary.json", "timeline.json"]
Coe = Callable[[str], Any]  # a line -> code, out, err
OverRay = tuple[int, str, Path, set[IPv4Address | IPv6Address]]  # exit code, stderr, results, where Ray listened


def good(said: Any) -> str:
    assert said.code == 0, said.err
    return said.out


def names(folder: Path) -> list[str]:
    """All there is, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_writes_five_files_and_nothing_else(coe: Coe, tmp_path: Path) -> None:
    out = good(coe(RUN + "--output result --seed 3 --set runtime.batch=4"))
    assert names(tmp_path) == ["result"] and names(tmp_path / "result") == FILES
    summary, record = (json.loads((tmp_path / "result" / name).read_text()) for name in ("summary.json", "run.json"))
    assert summary["completed"] == 12 == len(pyarrow.parquet.read_table(tmp_path / "result" / "requests.parquet"))
    assert "written to result" in out and "12 of 12" in out
    assert set(record) == {"versions", "config", "seed", "wall_s", "windows", "restarts", "engine", "command"}
    assert record["windows"] > 0 == record["restarts"]
    assert (record["seed"], record["config"]["runtime"]["batch"], record["config"]["cluster"]["backend"]) == (
        3,
        4,
        "local",
    )
    assert set(record["versions"]) == {"python", "samba-coe", "ray", "numpy", "msgpack", "pyarrow"}
    assert record["command"][:4] == ["coe", "run", "--backend", "local"]


def test_without_output_each_run_has_a_new_folder(coe: Coe, tmp_path: Path) -> None:
    for number in (1, 2):
        out = good(coe(RUN))
        assert names(tmp_path) == ["runs"] and len(names(tmp_path / "runs")) == number
        assert f"written to runs/{names(tmp_path / 'runs')[-1]}" in out
    assert all(names(folder) == FILES for folder in (tmp_path / "runs").iterdir())


def test_requests_come_as_csv_too(coe: Coe, tmp_path: Path) -> None:
    good(coe(RUN + "--output a --requests-format csv"))
    good(coe(RUN + "--output b"))
    assert names(tmp_path / "a") == ["report.html", "requests.csv", *FILES[2:]]
    table = pyarrow.parquet.read_table(tmp_path / "b" / "requests.parquet")
    assert pyarrow.csv.read_csv(tmp_path / "a" / "requests.csv").equals(table)


def test_a_timeline_of_no_events_has_none(coe: Coe, tmp_path: Path) -> None:
    good(coe(RUN + "--output a --timeline 0"))
    trace = json.loads((tmp_path / "a" / "timeline.json").read_text())
    assert {event["ph"] for event in trace["traceEvents"]} == {"M"} and trace["otherData"]["events_left_out"] > 0


def test_a_seed_decides_every_byte_and_another_seed_others(coe: Coe, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        good(coe(RUN + f"--output {name} --seed {seed}"))
    results = {name: content(tmp_path / name) for name in "abc"}
    assert all(found.pop("run.json") for found in results.values())  # when, and by what command
    assert results["a"] == results["b"]
    assert all(results["a"][name] != results["c"][name] for name in results["a"])


def test_options_go_over_set_and_set_over_the_file(coe: Coe, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('seed = 1\n[workload]\nrequests = 7\nlimit = 6\n[cluster]\nbackend = "local"\n')
    good(coe("run --config own.toml --set workload.limit=5 --set seed=2 --limit 4 --output a"))
    assert json.loads((tmp_path / "a" / "summary.json").read_text())["completed"] == 4
    assert json.loads((tmp_path / "a" / "run.json").read_text())["seed"] == 2


def test_the_command_over_ray_writes_the_bytes_of_the_local_one(coe: Coe, tmp_path: Path, over_ray: OverRay) -> None:
    code, err, folder, _ = over_ray
    assert (code, err, names(folder)) == (0, "", FILES)
    good(coe(RUN + "--output local"))
    found, expected = content(folder), content(tmp_path / "local")
    assert all(found[name] == expected[name] for name in FILES if name != "run.json")


def test_a_ray_that_the_command_starts_listens_on_loopback_only(over_ray: OverRay) -> None:
    listening = over_ray[3]
    assert listening and {address.is_loopback for address in listening} == {True}

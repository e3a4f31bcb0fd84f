"""Does a run that is stopped or killed go on to the bytes of one that never was, on whatever backend?"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.resuming import made_with
from tests.cluster.conftest import COMMAND, ENVIRONMENT

WORKLOAD = "--set workload.requests=60 --set workload.rate=5 --set experts.count=40 --set seed=5"
RUN = f"run --backend local {WORKLOAD}"
NODES = "--set routing.nodes=3 --set routing.policy=least_loaded"
SLOW = "--pace 3"  # 12 s of virtual time take 4 s; a window is 1.5 s of it
FILES = ("summary.json", "requests.parquet", "timeline.json", "report.html")
STOPPED = "coe: stopped by {} at virtual time "
Coe = Callable[[str], Any]  # a line -> code, out, err
Process = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def going(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """``going(line)``: a run in ``tmp_path`` that has written its first checkpoint."""
    running: list[subprocess.Popen[str]] = []

    def begin(line: str) -> subprocess.Popen[str]:
        command = [COMMAND, *line.split(), "--checkpoint", "0.001"]
        one = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, text=True, stderr=subprocess.PIPE,
                               stdout=subprocess.DEVNULL)  # fmt: skip
        running.append(one)
        assert one.stderr is not None
        assert "to go on from the last checkpoint" in one.stderr.readline()
        return one

    yield begin
    for one in running:
        one.kill()
        one.wait()


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def whole(process: Process, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """What runs come to that nobody stops: of one node, and of three."""
    folder = tmp_path_factory.mktemp("whole")
    for name, more in (("one", ""), ("three", NODES)):
        assert process(*f"{RUN} {more} --output {name}".split(), at=folder).returncode == 0
    return {name: content(folder / name) for name in ("one", "three")}


@pytest.mark.parametrize("name", ["one", "three"])
def test_a_run_that_is_killed_goes_on_from_its_last_checkpoint(
    name: str, going: Any, coe: Coe, tmp_path: Path, whole: dict[str, dict[str, bytes]]
) -> None:
    one = going(f"{RUN} {NODES if name == 'three' else ''} {SLOW} --output a")
    one.kill()
    assert one.wait() == -signal.SIGKILL and not (tmp_path / "a").exists()
    said = coe("run --resume a.partial")
    assert said.code == 0 and "written to a" in said.out
    assert content(tmp_path / "a") == whole[name]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_run_that_is_stopped_twice_goes_on_to_the_same_bytes_over_ray_too(
    going: Any, process: Process, tmp_path: Path, whole: dict[str, dict[str, bytes]]
) -> None:
    for line, what in ((f"{RUN} {SLOW} --output a", signal.SIGTERM), (f"run {SLOW} --resume a.partial", signal.SIGINT)):
        one = going(line)
        one.send_signal(what)
        told = one.stderr.read().splitlines()
        assert one.wait() == 128 + what
        assert told[-1].startswith(STOPPED.format(what.name)) and told[-1].endswith("coe run --resume a.partial")
        assert [path.name for path in tmp_path.iterdir()] == ["a.partial"]
        assert [path.name for path in (tmp_path / "a.partial").iterdir()] == ["checkpoint"]
    over_ray = "run --resume a.partial --backend ray --set cluster.sockets_per_actor=3 --set cluster.window=700ms"
    assert process(*over_ray.split(), at=tmp_path).returncode == 0
    assert content(tmp_path / "a") == whole["one"]
    assert json.loads((tmp_path / "a" / "run.json").read_text())["config"]["cluster"]["backend"] == "ray"


def test_a_run_that_waits_for_the_clock_does_not_wait_to_be_stopped(going: Any, tmp_path: Path) -> None:
    one = going(f"{RUN} --pace 0.02 --output a")  # would take ten minutes
    one.terminate()
    assert one.wait(timeout=60) == 128 + signal.SIGTERM and (tmp_path / "a.partial").exists()


def test_without_output_checkpoints_and_results_are_under_runs(going: Any, coe: Coe, tmp_path: Path) -> None:
    one = going(f"{RUN} {SLOW}")
    one.terminate()
    assert one.wait() == 128 + signal.SIGTERM
    (found,) = (tmp_path / "runs").iterdir()
    assert found.name.endswith("-run.partial")
    assert coe(f"run --resume {found}").code == 0
    (results,) = (tmp_path / "runs").iterdir()
    assert results.name.endswith("-run") and (results / "summary.json").exists()


def test_a_run_with_checkpoints_that_ends_leaves_none(coe: Coe, tmp_path: Path) -> None:
    said = coe(f"{RUN} --set cluster.window='1 s' --checkpoint 0.001 --output a")
    assert said.code == 0 and said.err.count("to go on from the last checkpoint") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


# Mistakes


@pytest.fixture(scope="module")
def aside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a run with ``--output a``."""
    folder = tmp_path_factory.mktemp("aside")
    line = [COMMAND, *f"{RUN} {SLOW} --output a --checkpoint 0.001".split()]
    with subprocess.Popen(
        line, cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as one:
        while not (folder / "a.partial" / "checkpoint").exists():
            assert one.poll() is None
            time.sleep(0.05)
        one.kill()
    return folder / "a.partial"


WRONG = [
    ("run --resume none.partial", "no checkpoint there: No such file or directory; allowed: a folder NAME.partial"),
    ("run --resume a.partial/checkpoint", "no checkpoint there: Not a directory"),
    ("run --resume empty.partial", "no checkpoint there: No such file or directory"),
    ("run --resume other.partial", "what is there is no checkpoint of coe run"),
    ("run --resume cut.partial", "the checkpoint is damaged"),
    ("run --resume flipped.partial", "the checkpoint is damaged"),
    ("run --resume renamed", "is not called NAME.partial; say with --output where results go"),
    (
        "run --resume a.partial --seed 5",
        "--seed: seed: a run that goes on does so as it began; allowed beside --resume",
    ),
    ("run --resume a.partial --set workload.requests=7", "--set: workload.requests: a run that goes on does so as it"),
    ("run --resume a.partial --machine dgx-a100", "--machine: machine.name: a run that goes on does so as it began"),
    ("run --resume a.partial --timeline 5", "--timeline: a run that goes on has the timeline that it began with"),
    ("run --resume a.partial --metrics-port 0", "--metrics-port: a run that goes on has the metrics that it began"),
    ("run --resume a.partial --output taken", "--output 'taken': exists already"),
    ("run --resume a.partial --set cluster.window=0s", "cluster.window = '0s': must be above zero"),
    ("run --resume a.partial --checkpoint 0", "'--checkpoint': 0.0 is not in the range x>0"),
    ("run --resume a.partial --checkpoint often", "'--checkpoint': 'often' is not a valid float"),
    (f"{RUN} --output a", "there is a.partial, of a run that is not over; go on with it (--resume a.partial), or"),
]


@pytest.mark.parametrize(("line", "message"), WRONG)
def test_a_mistake_is_one_line_and_the_checkpoint_stays(
    line: str, message: str, aside: Path, coe: Coe, tmp_path: Path
) -> None:
    whole = (aside / "checkpoint").read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    given = {"a.partial": whole, "renamed": whole, "cut.partial": whole[:-9], "flipped.partial": flipped,
             "other.partial": b'{"format": "other"}\n', "empty.partial": None, "taken": None}  # fmt: skip
    for name, data in given.items():
        (tmp_path / name).mkdir()
        if data is not None:
            (tmp_path / name / "checkpoint").write_bytes(data)
    said = coe(line)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("coe: error: ") and said.err.count("\n") == 1 and message in said.err
    assert {path.name for path in tmp_path.iterdir()} == set(given)
    assert (tmp_path / "a.partial" / "checkpoint").read_bytes() == whole


def test_other_code_does_not_go_on(aside: Path, coe: Coe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(aside, tmp_path / "a.partial")
    monkeypatch.setattr(made_with, "SOURCES", (".py",))  # as if there were no tables and no templates
    said = coe("run --resume a.partial")
    assert said.code == 2 and "other code made it (" in said.err and said.err.count("\n") == 1


def test_other_packages_do_not_go_on(aside: Path, coe: Coe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(aside, tmp_path / "a.partial")
    real = made_with.version
    monkeypatch.setattr(made_with, "version", lambda name: "1.0" if name == "numpy" else real(name))
    said = coe("run --resume a.partial")
    assert said.code == 2 and f"made with numpy {real('numpy')}, here is 1.0" in said.err


def test_a_renamed_checkpoint_goes_where_it_is_told_to(aside: Path, coe: Coe, tmp_path: Path) -> None:
    shutil.copytree(aside, tmp_path / "renamed")
    assert coe("run --resume renamed --output b --requests-format csv").code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"b"}
    assert (tmp_path / "b" / "requests.csv").exists()


def test_the_head_of_a_checkpoint_says_how_far_it_is(aside: Path) -> None:
    head = json.loads((aside / "checkpoint").open("rb").readline())
    assert head["how_far"]["requests"] == 60 and 0 < head["how_far"]["virtual_s"] < 12
    assert set(head["made_with"]) == {"code", "engine", "python", *made_with.PACKAGES}

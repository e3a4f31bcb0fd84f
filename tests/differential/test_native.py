"""Is the compiled engine the same as its sources, only quicker? It is compiled here, from a copy of them.

Whole runs are compared to the byte; then tests of the engine are run once more, with the compiled one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkout import checkout

ALIKE = ("summary.json", "requests.parquet", "timeline.json", "report.html")
# of what one engine does and another may not: schedulers, pages, programs, overlap, groups, homes that move, nodes
RUNS = {
    "default": (),
    "paper": ("runtime.scheduler=paper", "runtime.eviction=lfu"),
    "pages": (
        "runtime.prefill_chunk=256",
        "runtime.kv_block=16",
        "runtime.preemption=swap",
        "runtime.kv_reserve=8 GiB",
    ),
    "programs": ("runtime.switching=program",),
    "overlap": ("runtime.prefetch=true", "runtime.partial=true", "sharding.tensor_parallel=2"),
    "one socket each": ("sharding.tensor_parallel=1", "sharding.rebalance=30 s", "runtime.eviction=arc"),
    "several nodes": ("routing.nodes=3", "routing.policy=expert_affinity"),
    "no router": ("experts.router=none", "runtime.eviction=belady", "runtime.queue_limit=40"),
}
PAUSED = "test_a_life_a_window_changes_nothing"
TESTS = (
    "tests/golden/test_golden.py",
    "tests/property/test_simulation.py",
    *(
        f"tests/property/test_pauses.py::{PAUSED}[{name}]"
        for name in ("affinity", "partial", "pages swapped", "rebalance")
    ),
    f"tests/property/test_pauses.py::{PAUSED}_of_several_nodes[least_loaded]",
    "tests/property/test_fairness.py",
    "tests/unit/test_continuous.py",
    "tests/unit/test_programs.py",
)


def environment(engine: str) -> dict[str, str]:
    return os.environ | {"COE_ENGINE": engine}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkout whose engine is compiled."""
    if shutil.which("gcc") is None or not Path(sysconfig.get_path("include"), "Python.h").exists():
        pytest.skip("no C compiler, or no headers of this Python: make test-deps installs Debian's")
    folder = checkout(tmp_path_factory.mktemp("native"))
    command = [sys.executable, "-m", "node.compile_native"]
    made = subprocess.run(command, cwd=folder, env=environment("python"), capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def coe(copy: Path, engine: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cluster", *arguments]
    return subprocess.run(command, cwd=copy, env=environment(engine), capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_the_same_to_the_byte(name: str, copy: Path, tmp_path: Path) -> None:
    for engine in ("python", "native"):
        settings = [part for text in ("workload.requests=400", *RUNS[name]) for part in ("--set", text)]
        said = coe(copy, engine, "run", "--backend", "local", "--output", str(tmp_path / engine), *settings)
        assert said.returncode == 0, said.stderr
        assert json.loads((tmp_path / engine / "run.json").read_text())["engine"] == engine
    for file in ALIKE:
        assert (tmp_path / "native" / file).read_bytes() == (tmp_path / "python" / file).read_bytes()


@pytest.mark.parametrize("name", ["overlap", "several nodes"])
def test_over_ray_too(name: str, copy: Path, tmp_path: Path) -> None:
    settings = [part for text in ("workload.requests=60", *RUNS[name]) for part in ("--set", text)]
    for backend, engine in (("local", "python"), ("ray", "native")):
        said = coe(copy, engine, "run", "--backend", backend, "--output", str(tmp_path / backend), *settings)
        assert said.returncode == 0, said.stderr
    for file in ALIKE:
        assert (tmp_path / "ray" / file).read_bytes() == (tmp_path / "local" / file).read_bytes()


def test_a_checkpoint_goes_on_in_the_engine_that_made_it(copy: Path, tmp_path: Path) -> None:
    run = ["run", "--backend", "local", "--set", "workload.requests=60", "--set", "workload.rate=5"]
    assert coe(copy, "python", *run, "--output", str(tmp_path / "whole")).returncode == 0
    command = [sys.executable, "-m", "cluster", *run, "--output", str(tmp_path / "killed")]
    slowly = [*command, "--pace", "3", "--checkpoint", "0.001"]
    with subprocess.Popen(slowly, cwd=copy, env=environment("native"), text=True, stderr=subprocess.PIPE) as one:
        assert one.stderr is not None and "to go on from the last checkpoint" in one.stderr.readline()
        one.kill()
    partial = str(tmp_path / "killed.partial")
    refused = coe(copy, "python", "run", "--resume", partial)
    assert refused.returncode == 2
    assert "made by the engine 'native', here is 'python'; set COE_ENGINE=native to go on" in refused.stderr
    said = coe(copy, "native", "run", "--resume", partial)
    assert said.returncode == 0, said.stderr
    for file in ALIKE:
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_tests_of_the_engine_pass(copy: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *TESTS]
    said = subprocess.run(command, cwd=copy, env=environment("native"), capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout[-3000:]
    engine = "import node.lane, node.native; print(node.native.engine(), node.lane.__file__)"
    said = subprocess.run(
        [sys.executable, "-c", engine], cwd=copy, env=environment("native"), capture_output=True, text=True, check=True
    )
    assert said.stdout.split()[0] == "native" and said.stdout.strip().endswith(".so")


def test_what_goes_wrong_is_said_of_the_same_line(copy: Path) -> None:
    wrong = "from node.allocator import Allocator; Allocator(0, 10).release(3)"
    said = [
        subprocess.run(
            [sys.executable, "-c", wrong],
            cwd=copy,
            env=environment(engine),
            capture_output=True,
            text=True,
            check=False,
        )
        for engine in ("python", "native")
    ]
    lines = [re.findall(r"allocator.py\", (line \d+, in \w+)", one.stderr)[-1] for one in said]
    assert lines[0] == lines[1] and lines[0].endswith(", in release")


def test_when_a_source_changes_it_is_left_alone(copy: Path) -> None:
    units = copy / "node" / "units.py"
    before = units.read_text()
    try:
        units.write_text(before + "\n")
        refused = coe(copy, "native", "--version")
        assert refused.returncode == 2 and "is of other sources" in refused.stderr
        assert coe(copy, "python", "--version").returncode == 0
    finally:
        units.write_text(before)
    assert coe(copy, "native", "--version").returncode == 0

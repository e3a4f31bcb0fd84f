"""What tests of the cluster share: one Ray on this machine, what a run writes as hashes, ``coe`` as a process."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

import ray

from cluster.__main__ import main
from cluster.runner import Run
from tests.listening import Address, listening_at
from tests.written import hashes_of

Hashes = dict[str, str]
Addresses = set[Address]
COMMAND = Path(sys.executable).with_name("coe")
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
    "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
}


class Said(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Ray on loopback, for the whole session."""
    ray.init(address="local", num_cpus=16, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def hashes(tmp_path: Path) -> Callable[[Run], Hashes]:
    """The SHA-256 of what a run writes of its results, by name."""

    return lambda result: hashes_of(result, tmp_path)


@pytest.fixture
def coe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """``coe(line, *more)``: ``coe`` in this process, in a folder of its own; the line is split as a shell would."""
    monkeypatch.chdir(tmp_path)

    def command(line: str, *more: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["coe", *shlex.split(line), *more])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Said(code, *capfd.readouterr())

    return command


@pytest.fixture(scope="session")
def process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``process(*arguments, at)``: ``coe`` in a process of its own, in the folder ``at``."""

    def run(*arguments: str, at: Path) -> subprocess.CompletedProcess[str]:
        command = [COMMAND, *arguments]
        return subprocess.run(command, cwd=at, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture(scope="session")
def over_ray(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, Path, Addresses]:
    """``coe run`` over a Ray of its own: exit code, stderr, results, and the addresses where that Ray listened."""
    folder = tmp_path_factory.mktemp("over_ray")
    line = "run --set workload.requests=12 --set cluster.sockets_per_actor=4 --output ray"
    listening: Addresses = set()
    with (folder / "err").open("w") as err:
        running = subprocess.Popen(
            [COMMAND, *line.split()], cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=err
        )
        limit = time.monotonic() + 60
        while running.poll() is None and time.monotonic() < limit:
            listening |= {address for address, _ in listening_at(running.pid)}
            time.sleep(0.2)
        running.kill()  # no effect on one that has ended
    return running.wait(), (folder / "err").read_text(), folder / "ray", listening

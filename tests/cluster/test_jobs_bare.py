"""Does Ray's own command run a checkout where nothing is installed but ``ray[default]``?"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.checkout import checkout
from tests.dashboard import Head, head

RUN = "python -m cluster run --set workload.requests=12"
Submit = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="module")
def bare(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Head, Path]]:
    """A cluster whose Python has ``ray[default]``, and pip, which Ray takes for a job's packages; and that Python's."""
    folder = tmp_path_factory.mktemp("bare")
    venv, uv = folder / "venv", Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--seed", "--python", sys.executable, venv], check=True)
    install = [uv, "pip", "install", "--quiet", "--python", venv / "bin" / "python", "ray[default]"]
    pinned = subprocess.run(
        [*install, "-c", source / "requirements-image.lock"], capture_output=True, text=True, check=False
    )
    if pinned.returncode:
        pytest.skip(f"no package registry is reachable: {' '.join(pinned.stderr.split())[:200]}")
    with head(folder, secrets.token_hex(32), venv) as found:
        yield found, venv / "bin"


@pytest.fixture
def submit(bare: tuple[Head, Path], source: Path) -> Submit:
    """``submit(*options)``: the run as a job."""
    cluster, programs = bare
    command = [programs / "ray", "job", "submit", "--address", cluster.address, "--working-dir", "."]
    return lambda *options: cluster.said(*command, *options, "--", *RUN.split(), at=source, seconds=400)


def test_what_lacks_is_one_line(submit: Submit) -> None:
    said = submit()
    assert said.returncode != 0 and "Traceback" not in said.stdout
    assert "coe: error: the package numpy is not installed here: pip install -r requirements.lock" in said.stdout


def test_with_the_lock_as_its_environment_it_ends_with_results(bare: tuple[Head, Path], submit: Submit) -> None:
    said = submit("--runtime-env-json", '{"pip": "requirements.lock"}')
    assert said.returncode == 0, said.stdout[-3000:]
    folder = Path(said.stdout.rsplit("written to ", 1)[1].splitlines()[0])
    assert json.loads((folder / "summary.json").read_text())["completed"] == 12
    assert not (bare[1].parent / "lib" / "python3.11" / "site-packages" / "numpy").exists()

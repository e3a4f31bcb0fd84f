"""What tests of the cluster share: one Ray on this machine, and what a run writes as hashes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

import ray

from cluster.output import write_json
from cluster.requests_table import write_requests
from cluster.runner import Run

Hashes = dict[str, str]


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Ray on loopback, for the whole session."""
    ray.init(address="local", num_cpus=16, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def hashes(tmp_path: Path) -> Callable[[Run], Hashes]:
    """The SHA-256 of what a run writes of its results, by name."""

    def write(result: Run) -> Hashes:
        write_json(tmp_path / "summary.json", result.summary)
        write_requests(result.columns, result.workload.refused, tmp_path / "requests.parquet")
        names = ("summary.json", "requests.parquet")
        return {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in names}

    return write

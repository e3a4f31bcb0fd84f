"""A Prometheus of a test's own on loopback, and what it answers."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
needs_prometheus = pytest.mark.skipif(
    PROMETHEUS is None or PROMTOOL is None, reason="no prometheus and promtool here: make test-deps installs Debian's"
)
LIMIT_S = 60


class Prometheus:
    """One that serves at ``url``."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str, **asked: object) -> Any:
        """The data of an answer; what it says is wrong is the test's failure."""
        query = urllib.parse.urlencode(asked, doseq=True)
        try:
            with urllib.request.urlopen(f"{self._url}/api/v1/{path}?{query}", timeout=LIMIT_S) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{asked}: {error.read().decode()}") from None

    def now(self, query: str) -> list[Any]:
        """The series of an instant query."""
        return list(self.get("query", query=query)["result"])

    def numbers(self, query: str, start: float, end: float) -> list[tuple[dict[str, str], list[float]]]:
        """Labels of each series of a query, and its values at each second that are numbers; series without one go."""
        found = self.get("query_range", query=query, start=start, end=end, step=1)["result"]
        series = [(one["metric"], [float(value) for _, value in one["values"]]) for one in found]
        numbers = [(labels, [value for value in values if not math.isnan(value)]) for labels, values in series]
        return [(labels, values) for labels, values in numbers if values]

    def wait_for(self, query: str) -> None:
        """Until an instant query has a series."""
        limit = time.monotonic() + LIMIT_S
        while not self.now(query):
            assert time.monotonic() < limit, f"{query}: nothing in {LIMIT_S} s"
            time.sleep(0.2)


@contextlib.contextmanager
def scraping(targets: Sequence[str], rules: Path, folder: Path) -> Iterator[Prometheus]:
    """A Prometheus that reads ``targets`` (host:port) four times a second and evaluates ``rules`` every second."""
    config = {
        "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "samba-coe", "static_configs": [{"targets": list(targets)}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    assert PROMETHEUS is not None
    files = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    with (folder / "prometheus.log").open("w") as log:
        command = [PROMETHEUS, *files, f"--web.listen-address={address}"]
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        _ready(f"http://{address}/-/ready", server, folder / "prometheus.log")
        yield Prometheus(f"http://{address}")
    finally:
        server.terminate()
        server.wait()


def _ready(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    limit = time.monotonic() + LIMIT_S
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=LIMIT_S):
            return
        assert server.poll() is None and time.monotonic() < limit, log.read_text()
        time.sleep(0.1)

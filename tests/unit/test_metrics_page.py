"""Does ``docs/metrics.md`` define every metric, once, with its labels? Do Prometheus and the series' number hold?"""

from __future__ import annotations

import re
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest

from cluster.metrics.exporter import registry_of, served
from cluster.metrics.families import FAMILIES
from node.errors import InputError
from tests.metered import config, metered, series

PAGE = Path(__file__).parents[2] / "docs/metrics.md"
ROW = re.compile(r"^\| `(coe_\w+)` \| ([\w, ]*) ?\| (.+) \|$", re.MULTILINE)
MOST_SERIES, SOCKETS = 3000, 8


def test_the_page_defines_every_metric_once() -> None:
    rows = ROW.findall(PAGE.read_text())
    found = {name: tuple(label for label in labels.strip().split(", ") if label) for name, labels, _ in rows}
    assert len(found) == len(rows)
    assert found == {name: family.labels for name, family in FAMILIES.items()}


def test_help_and_names_are_prometheus_own_way() -> None:
    """``promtool check metrics``, of what is read over HTTP."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not there: make test-deps installs Debian's prometheus, where it may")
    _, board = metered(config(slo__ttft="1 s"))
    with served(registry_of(board), "127.0.0.1", 0) as url, urllib.request.urlopen(url) as answer:
        text = answer.read()
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    assert {line.split()[2].decode() for line in text.splitlines() if line.startswith(b"# TYPE coe_")} >= {
        f"{name}_total" if family.kind == "counter" else name
        for name, family in FAMILIES.items()
        if "_link_" not in name
    }


@pytest.mark.parametrize(("experts", "shown"), [(0, 0), (16, 16), (1000, 60)])
def test_series_are_bounded(experts: int, shown: int) -> None:
    _, board = metered(config(experts__count=150), experts=experts)
    found = series(board)
    assert sum(map(len, found.values())) < MOST_SERIES
    assert len(found["coe_expert_hits_total"]) <= min(experts, 150) + 1
    assert len(found["coe_expert_hits_total"]) > min(shown, 16)
    assert len(found["coe_socket_up"]) == SOCKETS


def test_a_port_that_is_taken_is_the_users_mistake() -> None:
    _, board = metered(config(workload__requests=5))
    with served(registry_of(board), "127.0.0.1", 0) as url:
        port = int(url.split(":")[2].split("/")[0])
        taken = pytest.raises(
            InputError, match=f"--metrics-port {port} .* cannot be listened on: Address already in use"
        )
        with taken, served(registry_of(board), "127.0.0.1", port):
            pass
    with served(registry_of(board), "127.0.0.1", port):  # which is free again
        pass


def test_only_loopback_unless_told_otherwise() -> None:
    _, board = metered(config(workload__requests=5))
    with served(registry_of(board), "127.0.0.1", 0) as url:
        port = url.split(":")[2].split("/")[0]
        listening = Path("/proc/net/tcp").read_text()
    assert f"0100007F:{int(port):04X} " in listening and f"00000000:{int(port):04X} " not in listening

"""A rehearsal with real programs: a Ray cluster, a paced job, Prometheus, dashboards and alerts, a socket that dies.

Tests go in order, on one job.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
import yaml
from prometheus_client import CollectorRegistry

from cluster.metrics.exporter import served
from cluster.metrics.of_sockets import ActorCollector, Found
from tests.checkout import checkout
from tests.cluster.conftest import COMMAND
from tests.dashboard import Head, head
from tests.prometheus_server import Prometheus, needs_prometheus, scraping

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = sorted((ROOT / "dashboards").glob("*.json"))
RULES = ROOT / "dashboards" / "rules" / "samba-coe.rules.yml"
LIMIT_S = 90
TOKEN = secrets.token_hex(32)
FOR_S = 12  # so long it is read before anything is asked
CHOSEN = {"$run": "live", "$node": ".*", "$socket": ".*", "$__rate_interval": "5s", "$__range": "10s"}
# more experts than fit, each as likely; promises that are not all kept; a queue that is full at times
RUN = """
[workload]
requests = 1100
rate = 4.0
popularity = "uniform"
[runtime]
queue_limit = 6
[slo]
ttft = "300 ms"
"""

pytestmark = needs_prometheus


class Links:
    """What an actor of functional mode, which ``coe run`` does not have, tells of its links: more at each scrape."""

    def __init__(self) -> None:
        self._scrapes = 0

    def found(self) -> Found:
        self._scrapes += 1
        each = {"coe_link_bytes": 100_000, "coe_link_frames": 3}
        return {name: [(("0", "0", "1"), self._scrapes * count)] for name, count in each.items()}


class Live(NamedTuple):
    """A ``job`` that Prometheus has read for a while, up to ``end``; its files are in ``folder``."""

    prometheus: Prometheus
    end: float
    job: subprocess.Popen[bytes]
    folder: Path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    with head(tmp_path_factory.mktemp("cluster"), TOKEN) as found:
        yield found


@pytest.fixture(scope="module")
def live(cluster: Head, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The job, as Prometheus has read it for a while."""
    folder = tmp_path_factory.mktemp("live")
    (folder / "run.toml").write_text(RUN)
    line = f"run --config {folder}/run.toml --pace 5 --metrics-port 0 --output {folder}/live"
    source = checkout(tmp_path_factory.mktemp("checkout"))
    command = [COMMAND, "submit", "--address", cluster.address, "--working-dir", source, "--", *line.split()]
    with (folder / "said").open("w") as said:
        job = subprocess.Popen(command, cwd=folder, env=cluster.environment, stdout=said, stderr=subprocess.STDOUT)
    try:
        registry = CollectorRegistry()
        registry.register(ActorCollector("live", Links().found))
        with (
            served(registry, "127.0.0.1", 0) as links,
            scraping([_target(job, folder / "said"), urlsplit(links).netloc], RULES, folder) as prometheus,
        ):
            prometheus.wait_for("coe_expert_evictions_total > 0")
            time.sleep(FOR_S)
            assert job.poll() is None, (folder / "said").read_text()
            yield Live(prometheus, time.time(), job, folder)
    finally:
        job.kill()
        job.wait()


def _target(job: subprocess.Popen[bytes], said: Path) -> str:
    """Where the run says that it serves its metrics, as host:port."""
    limit = time.monotonic() + LIMIT_S
    while "/metrics" not in (text := said.read_text()):
        assert job.poll() is None and time.monotonic() < limit, text
        time.sleep(0.1)
    return text.partition("metrics: http://")[2].partition("/metrics")[0]


def substituted(query: str) -> str:
    """A query as Grafana asks it: all nodes and sockets of the run are chosen."""
    for name, value in CHOSEN.items():
        query = query.replace(name, value)
    assert "$" not in query, f"{query}: has a variable that is not known"
    return query


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_query_of_every_panel_returns_numbers_with_the_labels_of_its_legend(live: Live, path: Path) -> None:
    panels = [panel for panel in json.loads(path.read_text())["panels"] if panel["type"] != "row"]
    queries = [(panel["title"], target) for panel in panels for target in panel["targets"]]
    assert len(queries) >= len(panels) > 5
    wrong = []
    for title, target in queries:
        found = live.prometheus.numbers(substituted(target["expr"]), live.end - 6, live.end)
        named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        if not found or not all(named <= labels.keys() for labels, _ in found):
            wrong.append(f"{title}: {target['expr']}: {found}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("variable", "values"), [("run", {"live"}), ("node", {"0"}), ("socket", set("01234567"))])
def test_every_variable_has_the_values_that_there_are(live: Live, variable: str, values: set[str]) -> None:
    variables = json.loads(DASHBOARDS[0].read_text())["templating"]["list"]
    query = next(one["query"] for one in variables if one["name"] == variable)
    series, label = query.removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
    found = live.prometheus.get(f"label/{label}/values", **{"match[]": substituted(series)})
    assert set(found) == values


def test_what_is_by_the_virtual_second_is_what_the_workload_has_whatever_the_pace(live: Live) -> None:
    panels = {panel["title"]: panel for path in DASHBOARDS for panel in json.loads(path.read_text())["panels"]}
    arrived, busy = (panels[title]["targets"][0]["expr"] for title in ("Requests in a virtual second", "Tile busy"))
    ((_, rates),) = live.prometheus.numbers(substituted(arrived), live.end - 6, live.end)
    assert 2 < sum(rates) / len(rates) < 8  # 4, more or less by chance; 20 in a second of wall time
    shares = live.prometheus.numbers(substituted(busy), live.end - 6, live.end)
    assert len(shares) == 8 and all(0 < sum(share) / len(share) < 1.3 for _, share in shares)


def test_every_recording_rule_is_recorded(live: Live) -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    records = {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}
    assert len(records) > 5
    assert {record for record in records if not live.prometheus.numbers(record, live.end - 6, live.end)} == set()


def test_every_rule_of_the_file_is_evaluated_without_a_mistake(live: Live) -> None:
    groups = live.prometheus.get("rules")["groups"]
    health = {(rule["name"], rule["health"], rule.get("lastError")) for group in groups for rule in group["rules"]}
    assert len(health) > 10 and {(state, error) for _, state, error in health} == {("ok", None)}


def sockets_of(token: str) -> dict[int, int]:
    """The processes of socket actors of the cluster that wants the token, by pid, and their parents."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environment, name = (entry / "environ").read_bytes(), (entry / "cmdline").read_bytes()
            if token.encode() in environment and name.startswith(b"ray::SocketShell"):
                found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def firing(prometheus: Prometheus) -> dict[str, set[str]]:
    """Alerts that are firing, by name, and of which sockets."""
    found: dict[str, set[str]] = {}
    for alert in prometheus.get("alerts")["alerts"]:
        if alert["state"] == "firing":
            found.setdefault(alert["labels"]["alertname"], set()).add(alert["labels"].get("socket", ""))
    return found


def test_a_socket_that_dies_is_an_alert_until_it_is_back_and_the_job_ends_with_results(live: Live) -> None:
    prometheus, limit = live.prometheus, time.monotonic() + LIMIT_S
    sockets = sockets_of(TOKEN)
    assert len(sockets) == 8 and "CoeSocketDown" not in firing(prometheus)
    os.kill(min(sockets), signal.SIGKILL)
    while "CoeSocketDown" not in (found := firing(prometheus)):
        assert time.monotonic() < limit and live.job.poll() is None
        time.sleep(0.1)
    (socket,) = found["CoeSocketDown"]
    while "CoeSocketDown" in firing(prometheus) or not prometheus.now(f'coe_socket_up{{socket="{socket}"}} == 1'):
        assert time.monotonic() < limit
        time.sleep(0.1)
    assert "CoeSocketRestarted" in firing(prometheus)
    assert live.job.wait(LIMIT_S) == 0, (live.folder / "said").read_text()
    summary, record = (json.loads((live.folder / "live" / name).read_text()) for name in ("summary.json", "run.json"))
    assert record["restarts"] == 1
    assert summary["completed"] + summary["queue_full"] == summary["requests"] == 1100
    last = prometheus.numbers("coe_requests_arrived_total", live.end, time.time())
    assert max(max(values) for _, values in last) <= 1100

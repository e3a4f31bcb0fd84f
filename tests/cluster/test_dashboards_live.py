"""Does every panel, and every recording rule, say something of a real run that a real Prometheus reads?"""

from __future__ import annotations

import json
import re
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
from tests.cluster.conftest import COMMAND, ENVIRONMENT
from tests.prometheus_server import Prometheus, needs_prometheus, scraping

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = sorted((ROOT / "dashboards").glob("*.json"))
RULES = ROOT / "dashboards" / "rules" / "samba-coe.rules.yml"
FOR_S = 12  # so long it is read before anything is asked
CHOSEN = {"$run": "live", "$node": ".*", "$socket": ".*", "$__rate_interval": "5s", "$__range": "10s"}
# more experts than fit, each as likely; promises that are not all kept; a queue that is full at times
RUN = """
[workload]
requests = 4000
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
    """A run that Prometheus has read for a while, up to ``end``."""

    prometheus: Prometheus
    end: float


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A run at a pace, of which no one waits for the end."""
    folder = tmp_path_factory.mktemp("live")
    (folder / "run.toml").write_text(RUN)
    line = "run --config run.toml --backend local --pace 5 --metrics-port 0 --output live"
    with (folder / "err").open("w") as err:
        run = subprocess.Popen(
            [COMMAND, *line.split()], cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=err
        )
    try:
        registry = CollectorRegistry()
        registry.register(ActorCollector("live", Links().found))
        with (
            served(registry, "127.0.0.1", 0) as links,
            scraping([_target(run, folder / "err"), urlsplit(links).netloc], RULES, folder) as prometheus,
        ):
            prometheus.wait_for("coe_expert_evictions_total > 0")
            time.sleep(FOR_S)
            assert run.poll() is None, (folder / "err").read_text()
            yield Live(prometheus, time.time())
    finally:
        run.kill()
        run.wait()


def _target(run: subprocess.Popen[bytes], err: Path) -> str:
    """Where the run says that it serves its metrics, as host:port."""
    limit = time.monotonic() + 60
    while "/metrics" not in (said := err.read_text()):
        assert run.poll() is None and time.monotonic() < limit, said
        time.sleep(0.1)
    return said.partition("http://")[2].partition("/metrics")[0]


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

"""Are the dashboards what their code says, and does every panel say what it shows, of what, in which unit?"""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
import yaml

from cluster.metrics.families import FAMILIES
from dashboards.__main__ import ROOT, texts
from dashboards.promql import gauge, increase, rate

PATHS = sorted((ROOT / "dashboards").glob("*.json"))
MADE = {path.stem: json.loads(path.read_text()) for path in PATHS}
PANELS = {
    f"{name}: {panel['title']}": panel
    for name, dashboard in MADE.items()
    for panel in dashboard["panels"]
    if panel["type"] != "row"
}
UNITS = {"s", "bytes", "Bps", "percentunit", "reqps", "ops", "short", "bool_yes_no"}  # as Grafana spells them
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COUNTS = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
SERIES = {name + ending: family for name, family in FAMILIES.items() for ending in COUNTS[family.kind]}
UNSHOWN = {
    "coe_requests_refused": "is known before the run, and does not change",
    "coe_emulator_wall_seconds": "Prometheus has a clock of its own",
}
every_panel = pytest.mark.parametrize("panel", PANELS.values(), ids=PANELS)
every_dashboard = pytest.mark.parametrize("dashboard", MADE.values(), ids=MADE)


def queries(panel: dict[str, Any]) -> list[str]:
    return [target["expr"] for target in panel["targets"]]


def test_what_is_committed_is_what_the_code_makes() -> None:
    stale = [path.name for path, text in texts() if not path.exists() or path.read_text() != text]
    assert not stale, f"{stale}: run make dashboards"


def test_there_is_no_dashboard_that_the_code_does_not_make() -> None:
    names = ["emulator-health", "expert-switching", "fleet-overview", "memory-footprint", "sockets-and-links"]
    assert [path.stem for path in PATHS] == names
    assert set(PATHS) == {path for path, _ in texts() if path.suffix == ".json"}


@every_panel
def test_a_panel_says_what_it_shows_in_a_unit(panel: dict[str, Any]) -> None:
    description = panel["description"]
    assert len(description.split()) >= 6 and description.endswith(".") and "\n" not in description
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert all(target["legendFormat"] for target in panel["targets"])
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0


@every_panel
def test_a_panel_reads_the_chosen_source_and_run(panel: dict[str, Any]) -> None:
    assert panel["datasource"] == SOURCE and all(target["datasource"] == SOURCE for target in panel["targets"])
    for query in queries(panel):
        selectors = re.findall(r"coe_\w+(?:\{([^}]*)\})?", query)
        assert selectors and all('run="$run"' in selector for selector in selectors), query


@every_panel
def test_a_panel_asks_for_metrics_that_there_are_and_chooses_by_all_their_labels(panel: dict[str, Any]) -> None:
    for query in queries(panel):
        for name, selector in re.findall(r"(coe_\w+)\{([^}]*)\}", query):
            chosen = {label for label in ("node", "socket") if f'{label}=~"${label}"' in selector}
            assert chosen == {"node", "socket"} & set(SERIES[name].labels), query
            asked = set(re.findall(r"(\w+)(?:=~|!~|!=|=)", selector))
            assert asked <= {"run", *SERIES[name].labels}, query


@every_panel
def test_counters_are_rates_and_gauges_are_not(panel: dict[str, Any]) -> None:
    windows = {"rate": "$__rate_interval", "increase": "$__range"}
    for query in queries(panel):
        ranged = re.findall(r"(\w+)\((\w+)(?:\{[^}]*\})?\[([^\]]+)\]\)", query)
        assert all(windows[function] == window for function, _, window in ranged), query
        within = {name for _, name, _ in ranged}
        for name in re.findall(r"coe_\w+|process_\w+", query):
            counts = SERIES[name].kind != "gauge" if name in SERIES else name.endswith("_total")
            assert (name in within) == counts, f"{name} in {query}"
        assert query.count("[") == len(ranged), query


@every_panel
def test_what_counts_virtual_time_or_is_said_to_be_by_it_is_by_its_second(panel: dict[str, Any]) -> None:
    divided = "/ scalar(max(rate(coe_virtual_time_seconds_total{"
    for query in queries(panel):
        virtual = "in a virtual second" in panel["title"] or "rate(coe_socket_busy_seconds_total" in query
        assert (divided in query) == virtual, query


@every_panel
def test_a_legend_names_only_labels_that_its_series_have(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        by = set(itertools.chain(*(found.split(", ") for found in re.findall(r"by \(([^)]*)\)", target["expr"]))))
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= by - {"le"}


@every_dashboard
def test_what_is_chosen_is_the_same_everywhere_and_from_the_chosen_source(dashboard: dict[str, Any]) -> None:
    variables = dashboard["templating"]["list"]
    assert variables == MADE["fleet-overview"]["templating"]["list"]
    assert [one["name"] for one in variables] == ["datasource", "run", "node", "socket"]
    assert (variables[0]["type"], variables[0]["query"]) == ("datasource", "prometheus")
    assert all(one["datasource"] == SOURCE for one in variables[1:])
    assert [(one["multi"], one["includeAll"], one.get("allValue")) for one in variables[1:]] == [
        (False, False, None), (True, True, ".*"), (True, True, ".*")
    ]  # fmt: skip


@every_dashboard
def test_panels_lie_side_by_side_with_no_hole_between_them(dashboard: dict[str, Any]) -> None:
    taken = [
        (x, y)
        for at in (panel["gridPos"] for panel in dashboard["panels"])
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(taken) == len(set(taken)), "two panels overlap"
    assert max(x for x, _ in taken) < 24
    rows = sorted(panel["gridPos"]["y"] for panel in dashboard["panels"] if panel["type"] == "row")
    assert rows[0] == 0 and {y for _, y in taken} == set(range(max(y for _, y in taken) + 1))


def test_a_dashboard_is_of_a_size_that_one_can_look_at() -> None:
    assert all(5 <= sum(panel["type"] != "row" for panel in one["panels"]) <= 13 for one in MADE.values())


def test_dashboards_and_panels_have_names_of_their_own_and_links_lead_to_dashboards_that_there_are() -> None:
    uids = {dashboard["uid"] for dashboard in MADE.values()}
    assert len(uids) == len(MADE) and all(8 <= len(uid) <= 40 for uid in uids)
    for name, dashboard in MADE.items():
        assert dashboard["uid"] == f"coe-{name}" and dashboard["tags"] == ["samba-coe"]
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(set(ids)) == len(ids)
        (link,) = dashboard["links"]
        assert link["tags"] == ["samba-coe"] and link["includeVars"] and link["keepTime"] and not link["placement"]
    titles = {dashboard["uid"]: dashboard["title"] for dashboard in MADE.values()}
    links = [(link, key) for key, panel in PANELS.items() for link in panel.get("links", [])]
    assert len(links) > 5
    for link, key in links:
        uid = link["url"].removeprefix("/d/").partition("?")[0]
        assert link["url"] == f"/d/{uid}?${{__url_time_range}}&${{__all_variables}}" and link["title"] == titles[uid]
        assert uid != f"coe-{key.partition(':')[0]}", f"{key}: leads to where it is"


def test_requests_come_first_and_their_causes_below() -> None:
    titles = [panel["title"] for panel in MADE["fleet-overview"]["panels"]]
    seen, why = titles.index("What requests see"), titles.index("Why")
    assert seen == 0 and set(titles[:why]) >= {"Time to first token", "Time per further token", "End-to-end time"}
    assert set(titles[why:]) >= {"Where requests' time goes", "Hit rate", "Engines busy"}


def test_every_metric_is_on_some_dashboard() -> None:
    asked = " ".join(itertools.chain(*(queries(panel) for panel in PANELS.values())))
    endings = {"gauge": "", "counter": "_total", "histogram": "_bucket"}
    missing = {name for name, family in FAMILIES.items() if f"{name}{endings[family.kind]}{{" not in asked}
    assert missing == set(UNSHOWN)


def test_a_dashed_line_is_where_its_alert_fires() -> None:
    groups = yaml.safe_load((ROOT / "dashboards/rules/samba-coe.rules.yml").read_text())["groups"]
    rules = {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"] if "alert" in rule}
    dashed = [panel for panel in PANELS.values() if "dashed" in panel["description"]]
    lines = {
        re.findall(r"Coe\w+", panel["description"])[0]: panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1][
            "value"
        ]
        for panel in dashed
    }
    slow = float(rules["CoeSloBurn"].rpartition(" > ")[2])  # the second of the two, which burns 6 times what may
    fires = {name: float(rules[name].rpartition(" > ")[2]) for name in ("CoeSwitchShareHigh", "CoeEmulatorLag")}
    assert lines == pytest.approx({**fires, "CoeSloBurn": 1 - slow / 6})


def test_a_query_of_what_is_no_metric_or_of_another_kind_is_not_made() -> None:
    with pytest.raises(KeyError):
        rate("coe_request")
    with pytest.raises(ValueError, match="coe_requests: is a gauge, which has no rate"):
        rate("coe_requests")
    with pytest.raises(ValueError, match="coe_run: is a gauge, which has no rate"):
        increase("coe_run")
    with pytest.raises(ValueError, match="coe_tokens: is a counter, not a gauge"):
        gauge("coe_tokens")

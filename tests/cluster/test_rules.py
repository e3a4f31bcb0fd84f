"""Does each alert fire when it should, and only then, and is each recording what it says; by promtool's own tests."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.prometheus_server import PROMTOOL, needs_prometheus

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "dashboards" / "rules" / "samba-coe.rules.yml"
OBJECT = ROOT / "k8s" / "rules" / "prometheus-rules.yaml"
DEFINITION = ROOT.parent / "shared" / "crds" / "monitoring.coreos.com_prometheusrules.yaml"
TESTS = sorted((ROOT / "tests" / "rules").glob("*.yml"))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def rules(key: str) -> list[dict[str, Any]]:
    return [rule for group in read(RULES)["groups"] for rule in group["rules"] if key in rule]


def promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    assert PROMTOOL is not None
    return subprocess.run([PROMTOOL, *map(str, arguments)], capture_output=True, text=True, check=False)


@needs_prometheus
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_rules_do_what_is_expected_of_them(path: Path) -> None:
    said = promtool("test", "rules", path)
    assert said.returncode == 0, said.stdout + said.stderr


@needs_prometheus
def test_prometheus_takes_the_rules_and_the_config_that_has_them() -> None:
    for what, path in (("rules", RULES), ("config", ROOT / "dashboards" / "prometheus.yml")):
        said = promtool("check", what, path)
        assert said.returncode == 0, said.stdout + said.stderr


def fires(case: dict[str, Any], alert: dict[str, Any]) -> list[bool]:
    """At each time that is looked at, whether the alert is expected to."""
    looks = sorted(
        (look for look in case.get("alert_rule_test", []) if look["alertname"] == alert["alert"]),
        key=lambda look: float(look["eval_time"].removesuffix("m")),
    )
    labels = alert["labels"].items()
    return [any(labels <= found["exp_labels"].items() for found in look.get("exp_alerts", [])) for look in looks]


@pytest.mark.parametrize("alert", rules("alert"), ids=lambda alert: f"{alert['alert']}-{alert['labels']['severity']}")
def test_each_alert_is_seen_to_fire_to_end_and_not_to_fire(alert: dict[str, Any]) -> None:
    courses = [course for path in TESTS for case in read(path)["tests"] if (course := fires(case, alert))]
    whole = [course for course in courses if not course[0] and any(course) and not course[-1]]
    assert whole, "no case in which it does not fire, fires, and does not fire any more"
    assert any(not any(course) for course in courses), "no case in which it does not fire"


def test_each_recording_is_seen_to_have_a_value() -> None:
    looks = [look for path in TESTS for case in read(path)["tests"] for look in case.get("promql_expr_test", [])]
    seen = {name for look in looks if look.get("exp_samples") for name in re.findall(r"run\w*:\w+:\w+", look["expr"])}
    assert seen == {rule["record"] for rule in rules("record")}


@pytest.mark.parametrize("alert", rules("alert"), ids=lambda alert: alert["alert"])
def test_each_alert_says_what_it_is_about_how_bad_it_is_and_where_to_read_on(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"info", "warning", "critical"}
    told = alert["annotations"]
    assert "$labels.run" in told["description"] and told["summary"]
    file, _, section = told["runbook"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / file).read_text(), re.MULTILINE)
    assert section in {heading.lower() for heading in headings}
    assert section == alert["alert"].lower()


def test_the_object_for_kubernetes_has_the_same_rules() -> None:
    assert read(OBJECT)["spec"] == read(RULES)


@pytest.mark.skipif(not DEFINITION.exists(), reason=f"the operator's definition is not there: {DEFINITION}")
def test_the_operator_takes_the_object() -> None:
    (version,) = read(DEFINITION)["spec"]["versions"]
    found = read(OBJECT)
    assert (found["apiVersion"], found["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    Draft202012Validator(version["schema"]["openAPIV3Schema"]).validate(found)

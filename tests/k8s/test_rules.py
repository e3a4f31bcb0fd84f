"""Does every overlay have the rules that Prometheus itself is given?"""

from __future__ import annotations

import pytest
import yaml

from tests.k8s.manifests import NEEDS_KUBECTL, OVERLAYS, ROOT, of_kind, rendered


@NEEDS_KUBECTL
@pytest.mark.parametrize("name", OVERLAYS)
def test_they_are_those_of_every_overlay(name: str) -> None:
    (rule,) = of_kind("PrometheusRule", rendered(name))
    assert rule["spec"] == yaml.safe_load((ROOT / "dashboards/rules/samba-coe.rules.yml").read_text())

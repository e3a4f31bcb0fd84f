"""Are the operator's rules also rules of Prometheus itself?"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from k8s.rules.plain import plain_rules
from tests.k8s.manifests import NEEDS_KUBECTL, OVERLAYS, ROOT, of_kind, rendered


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool (make test-deps)")
def test_promtool_takes_them(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(plain_rules())
    checked = subprocess.run(
        ["promtool", "check", "rules", "--lint-fatal", tmp_path / "rules.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr + checked.stdout
    assert f"{plain_rules().count('expr:')} rules found" in checked.stdout


@NEEDS_KUBECTL
@pytest.mark.parametrize("name", OVERLAYS)
def test_they_are_those_of_every_overlay(name: str) -> None:
    (rule,) = of_kind("PrometheusRule", rendered(name))
    assert rule["spec"] == yaml.safe_load(plain_rules())


def test_make_writes_them() -> None:
    said = subprocess.run(["make", "--dry-run", "rules"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "-m k8s.rules.plain > build/rules.yml.part" in said.stdout

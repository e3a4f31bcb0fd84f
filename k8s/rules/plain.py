"""Print the PrometheusRule beside this file as a rule file of Prometheus itself: what is under its ``spec``."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml


def plain_rules() -> str:
    """The rule file."""
    rule = yaml.safe_load(Path(__file__).with_name("prometheus-rules.yaml").read_text())
    return yaml.safe_dump(rule["spec"], sort_keys=False)


if __name__ == "__main__":
    sys.stdout.write(plain_rules())

"""The rules of Prometheus as a Kubernetes object, which the Prometheus operator hands to its Prometheus."""

from __future__ import annotations

import textwrap

HEAD = """\
# Written by `make dashboards` from dashboards/rules/samba-coe.rules.yml: change that.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: samba-coe
  labels:
    app.kubernetes.io/part-of: samba-coe
spec:
"""


def prometheus_rule(rules: str) -> str:
    """The object whose ``spec`` is what the rule file ``rules`` says, comments included."""
    _, groups, rest = rules.partition("groups:\n")
    return HEAD + textwrap.indent(groups + rest, "  ")

"""Write every dashboard, and the rules as Kubernetes takes them: ``python -m dashboards``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from cluster.output import write_text
from dashboards import emulator_health, expert_switching, fleet_overview, memory_footprint, sockets_and_links
from dashboards.frame import text_of
from dashboards.prometheus_rule import prometheus_rule
from node.errors import InputError

ROOT = Path(__file__).parents[1]
RULES = ROOT / "dashboards" / "rules" / "samba-coe.rules.yml"
MODULES = (fleet_overview, expert_switching, memory_footprint, sockets_and_links, emulator_health)


def texts() -> Iterator[tuple[Path, str]]:
    """Every file that is made, and what is in it."""
    for module in MODULES:
        yield ROOT / "dashboards" / module.DASHBOARD.file, text_of(module.DASHBOARD)
    yield ROOT / "k8s" / "rules" / "prometheus-rules.yaml", prometheus_rule(RULES.read_text())


def main() -> int:
    """Write them."""
    try:
        for path, text in texts():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text)
            print(path.relative_to(ROOT))
    except (InputError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

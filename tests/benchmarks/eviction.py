"""Hit rates of every eviction policy, and their share of Belady's: the table of docs/design.md.

``python -m tests.benchmarks.eviction``; the engine alone, no sockets and no files. Nothing here asserts.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from cluster.config_file import parse_setting, read_config
from cluster.runner import prepare
from node.runtime.policies import EVICTION
from node.runtime.references import fewest_misses

TRACE = Path(__file__).resolve().parents[3] / "shared/traces/azure_llm_2023_conv.csv"
REQUESTS, EXPERTS, PERIOD = 20_000, 150, 1_000
PAPER = "runtime.scheduler=paper"
CASES: dict[str, tuple[str, ...]] = {
    "Azure, affinity": (f"workload.trace={TRACE}",),
    "Azure, paper, batch 8": (f"workload.trace={TRACE}", PAPER),
    "generated, paper": (f"workload.requests={REQUESTS}", PAPER),
    "drifting, paper": ("workload.trace=DRIFTING", PAPER),
    "two sizes, paper": (f"workload.requests={REQUESTS}", PAPER, "experts.group=SIZES"),
}
SIZES = [{"model": "llama-2-7b", "count": EXPERTS - 10, "weight": 1.0}, {"model": "llama-2-70b", "count": 10}]


def drifting(path: Path) -> None:
    """A request every 2 s, Zipf 1.0 over experts that change places every ``PERIOD`` requests."""
    random = np.random.default_rng(0)
    shares = 1 / np.arange(1, EXPERTS + 1)
    drawn = random.choice(EXPERTS, REQUESTS, p=shares / shares.sum())
    places = [random.permutation(EXPERTS) for _ in range(0, REQUESTS, PERIOD)]
    rows = [
        {"timestamp": 2000 * n, "input_length": 128, "output_length": 20, "expert": int(places[n // PERIOD][rank])}
        for n, rank in enumerate(drawn)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def measure(settings: tuple[str, ...], policy: str, trace: Path) -> str:
    """Hit rate, its share of that of MIN on the same references, and where sizes differ what was copied."""
    values = [parse_setting(text.replace("DRIFTING", str(trace))) for text in (*settings, f"runtime.eviction={policy}")]
    config = read_config(None, [(key, SIZES if value == "SIZES" else value) for key, value in values])
    deployment, workload = prepare(config)
    simulation = deployment.simulation(workload.requests)
    simulation.advance(2**63)
    sizes = [size.weights for size in deployment.settings.sizes]
    (group,) = simulation.groups
    best = len(workload.requests) - fewest_misses(group.cache.references.experts(), sizes, group.layout.experts.size)
    copied = sum(deployment.expert_bytes(expert) * times for expert, times in group.activations.items())
    moved = f", {copied / 1e12:.0f} TB" if len(set(sizes)) > 1 else ""
    return f"{group.hits / len(workload.requests):.1%} ({group.hits / best:.1%}{moved})"


def main() -> None:
    """Measure all cases."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "drifting.jsonl"
        drifting(trace)
        print(f"| | {' | '.join(EVICTION)} |")
        for name, settings in CASES.items():
            if str(TRACE) in settings[0] and not TRACE.exists():
                print(f"{name}: left out, there is no {TRACE}")
                continue
            found = [measure(settings, policy, trace) for policy in EVICTION]
            print(f"| {name} | {' | '.join(found)} |", flush=True)


if __name__ == "__main__":
    main()

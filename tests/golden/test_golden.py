"""Exact command traces and makespans of four small scenarios; ``make golden`` writes them anew.

A trace that changes is a change of what the emulator says: explain it in the commit.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from node.events import Kind
from node.request import Request
from node.units import MS

FOLDER = Path(__file__).parent
COLUMNS = ("group", "kind", "issued_ps", "completed_ps", "symbol", "address")
# name -> (arguments of ``deploy``, requests as (arrival in ms, tokens in, tokens out, expert))
SCENARIOS: dict[str, tuple[dict[str, object], list[tuple[float, int, int, int]]]] = {
    "paper_batch_of_8_distinct": (
        {"experts": (("llama-2-7b", 10),), "router": "llama-2-7b", "scheduler": "paper"},
        [(0, 128, 20, expert) for expert in range(8)],
    ),
    "affinity_with_evictions_and_a_cut": (
        {"experts": (("llama-2-7b", 4),), "router": "llama-2-7b", "slots": 2, "batch": 4, "eviction": "lfu"},
        [
            *((0, 128, 60, 0), (0, 64, 8, 0), (0, 200, 5, 1)),
            *((185 + number, 100 + number, 12, 0) for number in range(4)),
            *((700, 128, 1, 2), (700, 99, 20, 3), (1_400, 128, 20, 1), (1_400, 128, 20, 0)),
        ],
    ),
    "tp4_two_groups_with_a_shared_host_link": (
        {"machine": "dgx-a100", "experts": (("llama-2-7b", 6),), "degree": 4, "slots": 1, "batch": 2},
        [(30 * number, 128, 10 + number, expert) for number, expert in enumerate((0, 1, 2, 3, 0, 5, 5, 4))],
    ),
    "mistral_past_its_window": (
        {"experts": (("mistral-7b", 2),), "call_overhead": "per_batch"},
        [(0, 4_090, 20, 0), (0, 4_000, 30, 0), (0, 5_000, 12, 0), (3, 4_095, 2, 1)],
    ),
}


def written(found: dict[str, object]) -> str:
    """JSON, one command a line."""
    head = {key: value for key, value in found.items() if key != "commands"}
    lines = ",\n".join(f"    {json.dumps(command)}" for command in found["commands"])  # type: ignore[attr-defined]
    return json.dumps(head, indent=2)[:-2] + f',\n  "commands": [\n{lines}\n  ]\n}}\n'


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_gives_the_commands_and_the_makespan_that_it_always_gave(name, deploy, simulate, request):
    arguments, rows = SCENARIOS[name]
    requests = [Request(number, round(at * MS), *rest) for number, (at, *rest) in enumerate(rows)]
    outcome = simulate(deploy(**arguments), requests)
    commands = [
        [c.group, Kind(c.kind).name, c.issued, max(done.time for done in plan.completions), c.symbol, c.address]
        for group in sorted(outcome.planned)
        for plan in outcome.planned[group]
        for c in [plan.command]
    ]
    found = {"scenario": name, "makespan_ps": outcome.simulation.now, "columns": list(COLUMNS), "commands": commands}
    path = FOLDER / f"{name}.json"
    if request.config.getoption("--write-golden"):
        path.write_text(written(found))
    expected = json.loads(path.read_text())
    differing = [pair for pair in zip(expected["commands"], commands, strict=False) if pair[0] != pair[1]]
    assert not differing, f"first of {len(differing)}: {differing[0][0]} became {differing[0][1]}"
    assert found == expected


def golden(name: str, *kinds: str) -> list[list[int]]:
    """Of a golden trace the rows of these kinds, without them: group, issued, completed, symbol, address."""
    rows = json.loads((FOLDER / f"{name}.json").read_text())["commands"]
    return [[row[0], *row[2:]] for row in rows if row[1] in kinds]


def test_every_golden_trace_belongs_to_a_scenario():
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == sorted(SCENARIOS)


def test_the_traces_show_what_their_names_say():
    distinct = golden("paper_batch_of_8_distinct", "COPY")
    assert [symbol for _, _, _, symbol, _ in distinct] == list(range(8))
    evicting = golden("affinity_with_evictions_and_a_cut", "FREE")
    assert [symbol for _, _, _, symbol, _ in evicting if symbol < 4] == [1, 2, 3]  # lfu spares expert 0
    decodes = golden("affinity_with_evictions_and_a_cut", "DECODE")
    cut_off = 188 * MS  # the fourth newcomer makes a batch; the step under way takes 1.4 ms
    assert [end for _, issued, end, symbol, _ in decodes if issued < cut_off < end < cut_off + 1.4 * MS] != []
    copies = sorted(golden("tp4_two_groups_with_a_shared_host_link", "COPY"), key=lambda row: row[1])
    assert {group for group, *_ in copies} == {0, 1}
    assert all(first[2] <= then[1] for first, then in pairwise(copies))
    windowed = golden("mistral_past_its_window", "DECODE")
    assert windowed[0][2] == windowed[1][1]  # nothing ended in between: the window of one was full

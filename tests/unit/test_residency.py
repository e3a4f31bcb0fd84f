"""Are bins of a run what its commands say, whatever the windows and however often the bins have doubled?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest

from cluster.backends import LocalBackend
from cluster.config_file import read_config
from cluster.residency import MOST_BINS, Residency, Residents, most_asked
from cluster.runner import prepare, run
from node.deployment import Deployment
from node.events import Command, Kind, Tier, to_columns
from node.planned import Planned

US = 10**6
Row = tuple[Kind, int, int, int, int]  # kind, symbol, issued (us), end (us), bytes of HBM afterwards
# expert 0 is there from 10 to 40 us, expert 1 from 50 us on; a KV range (symbol 9) is there from 60 to 61 us
STORY: list[Row] = [
    (Kind.ALLOCATE, 0, 0, 0, 100),
    (Kind.COPY, 0, 0, 10, 100),
    (Kind.FREE, 0, 40, 40, 0),
    (Kind.ALLOCATE, 1, 40, 40, 120),
    (Kind.COPY, 1, 40, 50, 120),
    (Kind.ALLOCATE, 9, 60, 60, 170),
    (Kind.FREE, 9, 61, 61, 120),
]


def window(rows: Sequence[Row]) -> dict[int, Planned]:
    commands = [
        Command(number, 0, kind, issued * US, Tier.HBM, symbol)
        for number, (kind, symbol, issued, *_) in enumerate(rows)
    ]
    ends = np.array([end * US for *_, end, _ in rows])
    answers = np.array([[end * US, 0, 0, used] for *_, end, used in rows]).T
    return {0: Planned(to_columns(commands), [answers], ends)}


@pytest.fixture
def deployment(clockwork: Callable[..., Deployment]) -> Deployment:
    return clockwork(experts=3)


def observed(deployment: Deployment, makespan_us: int, *windows: Sequence[Row]) -> Residents:
    residency = Residency(deployment, most_asked(np.array([1, 1, 0]), 2))
    for rows in windows:
        residency.observe(window(rows))
    return residency.sums(makespan_us * US).residents()


def test_a_short_run_has_a_bin_for_each_microsecond(deployment: Deployment) -> None:
    found = observed(deployment, 99, STORY)
    assert found.edges.tolist() == [at / US for at in range(101)]
    assert found.experts.tolist() == [1, 0]  # most asked for first; expert 2, for whom nobody asks, is not shown
    first, zero, others = found.resident.tolist()
    assert zero == [float(10 <= at < 40) for at in range(100)]
    assert first == [float(at >= 50) for at in range(100)]
    assert others == [0.0] * 100
    assert np.flatnonzero(found.activations).tolist() == [10, 50] and np.flatnonzero(found.evictions).tolist() == [40]
    assert found.hbm_peak[0].tolist() == [
        100 if at < 40 else 120 if at == 40 else 120 if at < 60 else 170 if at <= 61 else 120 for at in range(100)
    ]


def test_bins_double_until_the_run_fits(deployment: Deployment) -> None:
    found = observed(deployment, 400, STORY)  # 401 us in bins of 4: 100 whole ones, and one of 1 us
    assert (found.width_us, len(found.edges)) == (4, 102)
    assert found.edges[[0, 1, -2, -1]].tolist() == pytest.approx([0, 4e-6, 400e-6, 401e-6])
    first, zero, _ = found.resident.tolist()
    assert zero[:12] == [0, 0, 0.5, 1, 1, 1, 1, 1, 1, 1, 0, 0]
    assert first[11:14] == [0, 0.5, 1] and first[-1] == 1
    assert found.activations[[2, 12]].tolist() == [1, 1] and found.activations.sum() == 2
    assert found.evictions[10] == 1 == found.evictions.sum()
    assert found.hbm_peak[0, [0, 9, 10, 14, 15, 16, 100]].tolist() == [100, 100, 120, 120, 170, 120, 120]


@pytest.mark.parametrize("makespan", [61, 127, 128, 400, 10**6])
def test_windows_change_nothing(deployment: Deployment, makespan: int) -> None:
    whole = observed(deployment, makespan, STORY)
    for cut in range(1, len(STORY)):
        parts = observed(deployment, makespan, STORY[:cut], STORY[cut:])
        assert all(np.array_equal(a, b) for a, b in zip(astuple(whole), astuple(parts), strict=True)), cut


def test_pinned_experts_are_there_from_the_start_and_others_are_summed(deployment: Deployment) -> None:
    rows = [(Kind.LOAD, 0, 0, 0, 100), (Kind.LOAD, 2, 0, 0, 200), (Kind.COPY, 1, 0, 5, 300)]
    first, zero, others = observed(deployment, 9, rows).resident.tolist()
    assert (zero, others) == ([1.0] * 10, [1.0] * 10) and first == [0.0] * 5 + [1.0] * 5


@pytest.mark.parametrize(
    "settings", [{}, {"runtime.prefetch": True}, {"sharding.tensor_parallel": 2}, {"runtime.pinned": [1, 5]}]
)
def test_of_a_run_they_add_up_to_its_summary(settings: dict[str, object]) -> None:
    told = {"cluster.backend": "local", "workload.requests": 150, "workload.rate": 2, **settings}
    prepared = prepare(read_config(None, told.items()))
    found = []
    for length in ("1 s", "10000 s"):
        config = read_config(None, {**told, "cluster.window": length}.items())
        result = run(config, LocalBackend(), prepared)
        found.append(result.residents)
        summary: Any = result.summary
        residents = result.residents
        assert residents.activations.sum() == summary["expert_activations"]
        assert MOST_BINS / 2 < len(residents.activations) <= MOST_BINS
        peaks = [socket["hbm_peak_bytes"] for socket in summary["sockets"]]
        assert residents.hbm_peak.max(axis=1).tolist() == peaks[:: len(peaks) // len(residents.hbm_peak)]
        assert 0 <= residents.resident.min() <= residents.resident[:-1].max() <= 1
        assert residents.edges[-1] == pytest.approx(summary["makespan_s"], abs=2e-6)
    assert all(np.array_equal(a, b) for one in found[1:] for a, b in zip(astuple(found[0]), astuple(one), strict=True))

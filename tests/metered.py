"""Runs with metrics, and what Prometheus would read of them."""

from __future__ import annotations

from collections import defaultdict

from prometheus_client import CollectorRegistry

from cluster.backends import Backend, LocalBackend
from cluster.config import Config
from cluster.config_file import read_config
from cluster.metering import board_of, live_of
from cluster.metrics.board import Board
from cluster.metrics.collector import BoardCollector
from cluster.pace import Pace
from cluster.runner import Run, prepare, run

Series = dict[tuple[tuple[str, str], ...], float]  # by labels, sorted, but for the run's


def config(**settings: object) -> Config:
    """A small busy run; ``a__b`` sets ``a.b``."""
    small = {"cluster.backend": "local", "workload.requests": 120, "workload.rate": 4.0, "experts.count": 60}
    named = {key.replace("__", "."): value for key, value in settings.items()}
    return read_config(None, {**small, **named}.items())


def metered(settings: Config, backend: Backend | None = None, experts: int = 16) -> tuple[Run, Board]:
    """A run, and the board as it left it."""
    prepared, pace = prepare(settings), Pace()
    board = board_of(settings, prepared, "tested", experts, pace)
    found = run(settings, backend or LocalBackend(), prepared, live_of(board, pace))
    board.running = False
    return found, board


def series(board: Board) -> dict[str, Series]:
    """All samples by name, as they would be read."""
    registry = CollectorRegistry()
    registry.register(BoardCollector(board))
    found: dict[str, Series] = defaultdict(dict)
    for metric in registry.collect():
        for sample in metric.samples:
            labels = dict(sample.labels)
            assert labels.pop("run") == "tested"
            key = tuple(sorted(labels.items()))
            assert key not in found[sample.name], "a series twice"
            found[sample.name][key] = sample.value
    return dict(found)

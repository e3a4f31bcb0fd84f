"""Workloads drawn from a seed, for tests of what a key changes in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cluster.workload import Workload, WorkloadConfig, load

CONFIG = WorkloadConfig(requests=300)
EIGHT = ([1.0] * 8, [4096] * 8)


def generate(seed: int = 1, weights: Sequence[float] = EIGHT[0], **keys: object) -> Workload:
    """The workload of ``CONFIG`` with other ``keys``."""
    return load(replace(CONFIG, **keys), weights, [4096] * len(weights), seed)  # type: ignore[arg-type]


def column(workload: Workload, name: str) -> list[int]:
    """A field of all its requests."""
    return [getattr(request, name) for request in workload.requests]

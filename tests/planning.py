"""Runs for tests of plans, of which it is given what they come to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cluster.config import Config
from cluster.sweep.tasks import Found, Task

COUNTED = 1000  # requests of a run


class Emulated:
    """Runs whose attainment is given: by candidate, how many requests of a seed are missed with 1, 2 ... nodes."""

    def __init__(self, missed: dict[str, Sequence[Sequence[int]]], capacity: Sequence[float]) -> None:
        self.missed, self.capacity, self.runs = missed, capacity, 0

    def __call__(self, tasks: Iterable[Task]) -> Iterator[tuple[int, Found]]:
        yield from reversed([(number, self.found(config)) for number, config in tasks])

    def found(self, config: Config) -> Found:
        self.runs += 1
        names = list(self.missed)
        rate = self.capacity[names.index(config.runtime.eviction)]
        of_seeds = self.missed[config.runtime.eviction][config.routing.nodes - 1]
        kept = (COUNTED - of_seeds[config.seed]) / COUNTED
        one = {"name": "all", "counted": COUNTED, "attainment": kept}
        levels = {"attainment": kept, "goodput_requests_per_s": kept, "classes": [one]}
        times = {"mean": 1.0, "p99": 2.0}
        summary = {"throughput_requests_per_s": rate, "ttft_s": times, "e2e_s": times, "hit_rate": 0.5}
        return {"overloaded": of_seeds[0] > 700, "summary": {**summary, "service_levels": levels}}

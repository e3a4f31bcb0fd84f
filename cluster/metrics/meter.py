"""Counts what a node does, window by window, once its sockets have done it: the source of its metrics."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cluster.metrics.comings import Came
from cluster.metrics.families import LATENCIES
from cluster.metrics.reading import OF_EXPERTS, Reading
from cluster.service_levels import attained
from node.deployment import Deployment
from node.events import Ints
from node.runtime.admission import Reason
from node.runtime.ledger import CHARGES
from node.simulation import Mark, Simulation
from node.units import PS_PER_S, exact_sum

# upper bounds in seconds: of what a request waits for, and of what a token takes
WAITS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
TOKENS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0015,
    0.002,
    0.003,
    0.005,
    0.0075,
    0.01,
    0.015,
    0.025,
    0.05,
    0.1,
    0.25,
    1,
    5,
)
BOUNDS_S = {latency: TOKENS if latency == "tpot" else WAITS for latency in LATENCIES}
_BOUNDS = {latency: np.array([round(s * PS_PER_S) for s in bounds]) for latency, bounds in BOUNDS_S.items()}


class Meter:
    """Observes how far a node is that ``simulation`` plans; ``experts`` by themselves, all others together."""

    def __init__(self, deployment: Deployment, simulation: Simulation, experts: Ints) -> None:
        self._simulation, self._services = simulation, deployment.options.services
        self._count = deployment.catalogue.count
        self._row = np.full(self._count, len(experts))
        self._row[experts] = np.arange(len(experts))
        self._activation_ps = np.array([deployment.activation_ps(expert) for expert in range(self._count)])
        classes, self._rows = len(self._services), len(experts) + 1
        self._done = 0
        self._gone = [0] * len(simulation.groups)
        self._completed, self._kept = [0] * classes, [0] * classes
        self._turned_away = np.zeros((classes, len(Reason)), dtype=np.int64)
        self._tokens, self._charges = [0, 0], [0] * len(CHARGES)
        self._buckets = np.zeros((classes, len(LATENCIES), len(WAITS) + 1), dtype=np.int64)
        self._sums = [[0] * len(LATENCIES) for _ in range(classes)]
        self._mark = simulation.mark()

    def observe(self, mark: Mark) -> None:
        """How far the node was when a window was planned that its sockets have done now."""
        self._mark = mark
        self._ended(mark.completed)
        self._left(mark)

    def reading(self, windows: int, counters: Mapping[int, Mapping[str, int]], came: Came) -> Reading:
        """All so far, which is so many ``windows``; ``counters``: the sockets' own; what ``came`` of their commands."""
        hits, misses = (np.array(by_expert[: self._count]) for by_expert in (self._mark.hits, self._mark.misses))
        of_experts = np.stack([came.activations, came.evictions, hits, misses, came.resident])
        rows = np.zeros((len(OF_EXPERTS), self._rows), dtype=np.int64)
        np.add.at(rows.T, self._row, of_experts.T)
        return Reading(
            now=self._mark.now,
            windows=windows,
            sockets={socket: dict(counted) for socket, counted in counters.items()},
            arrived=self._mark.arrived,
            running=self._mark.running,
            completed=list(self._completed),
            kept=list(self._kept),
            turned_away=self._turned_away.copy(),
            tokens=list(self._tokens),
            charges=list(self._charges),
            buckets=self._buckets.copy(),
            sums=[list(of_class) for of_class in self._sums],
            experts=rows,
            held=[int(came.resident.sum()), came.homes],
            activation_ps=int(came.activations @ self._activation_ps),
        )

    def _ended(self, completed: int) -> None:
        """Those who are complete since the last window."""
        numbers = self._simulation.ended(self._done, completed)
        self._done = completed
        if not len(numbers):
            return
        requests, columns = self._simulation.requests, self._simulation.columns_of(numbers)
        service_of, answers = requests.service[numbers], requests.output_tokens[numbers]
        self._tokens[0] += exact_sum(requests.input_tokens[numbers])
        self._tokens[1] += exact_sum(answers)
        for number, charge in enumerate(CHARGES):
            self._charges[number] += exact_sum(columns[charge])
        further = answers - 1
        kept = attained(self._services, service_of, columns)
        for service in range(len(self._services)):
            mine = service_of == service if len(self._services) > 1 else slice(None)
            of_class = {name: column[mine] for name, column in columns.items()}
            self._completed[service] += len(of_class["e2e"])
            self._kept[service] += int(kept[mine].sum())
            several = further[mine] > 0
            decoding = (of_class["e2e"] - of_class["ttft"])[several]
            of_class["tpot"] = decoding // further[mine][several]
            for number, latency in enumerate(LATENCIES):
                values = of_class[latency]
                place = np.searchsorted(_BOUNDS[latency], values)
                self._buckets[service, number] += np.bincount(place, minlength=len(WAITS) + 1)
                self._sums[service][number] += exact_sum(values)

    def _left(self, mark: Mark) -> None:
        """Those who were turned away since the last window."""
        service = self._simulation.requests.service
        for index, (group, upto) in enumerate(zip(self._simulation.groups, mark.turned_away, strict=True)):
            for one in group.admission.turned_away[self._gone[index] : upto]:
                self._turned_away[service[one.request], one.reason] += 1
            self._gone[index] = upto

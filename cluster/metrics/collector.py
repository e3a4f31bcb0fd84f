"""What Prometheus reads: the board, as the families of ``cluster.metrics.families``. It asks nobody, ever."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cluster.metrics.board import Board
from cluster.metrics.families import FAMILIES, LATENCIES, Family
from cluster.metrics.meter import BOUNDS_S
from cluster.metrics.reading import Reading
from cluster.metrics.samples import OF_NODE, OF_RUN, OF_SOCKET, Sample
from node.units import PS_PER_S


class BoardCollector(Collector):
    """All families of the run on ``board``."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterator[Metric]:
        """The families, in the order of their table; those without a sample are left out."""
        readings = list(self._board.readings.items())  # the run may post another meanwhile
        for name, family in FAMILIES.items():
            metric = self._histogram(name, family, readings) if family.kind == "histogram" else None
            if metric is None:
                kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
                metric = kind(name, family.help, labels=("run", *family.labels))
                for values, value in self._samples(name, readings):
                    metric.add_metric((self._board.facts.run, *values), value)
            if metric.samples:
                yield metric

    def _samples(self, name: str, readings: list[tuple[int, Reading]]) -> Iterator[Sample]:
        facts, health = self._board.facts, self._board.health
        if name in OF_RUN:
            yield from OF_RUN[name](self._board)
            return
        if name in OF_SOCKET and facts.sockets_apart:
            return
        if name == "coe_virtual_time_seconds":
            yield from self._virtual_time(dict(readings))
            return
        for node, reading in readings:
            if name in OF_NODE:
                for values, value in OF_NODE[name](facts, reading):
                    yield (str(node), *values), value
                continue
            for socket, counted in reading.sockets.items():
                number = node * facts.machine.sockets + socket
                if name == "coe_socket_up":
                    yield (str(node), str(socket)), number not in health.down
                elif name == "coe_socket_refusals":
                    yield (str(node), str(socket)), health.refusals.get(number, 0)
                elif name in OF_SOCKET:  # links are their actors' own to tell of
                    for values, value in OF_SOCKET[name](facts.machine, counted):
                        yield (str(node), str(socket), *values), value

    def _virtual_time(self, readings: dict[int, Reading]) -> Iterator[Sample]:
        """Of every node from the beginning; where a run waits for the clock, time passes with nothing in it."""
        passed = self._board.passed()
        for node in range(self._board.facts.nodes):
            now = readings[node].now if node in readings else 0
            yield (str(node),), max(now, passed) / PS_PER_S

    def _histogram(self, name: str, family: Family, readings: list[tuple[int, Reading]]) -> Metric:
        latency = name.removeprefix("coe_request_").removesuffix("_seconds")
        place = LATENCIES.index(latency)
        metric = HistogramMetricFamily(name, family.help, labels=("run", *family.labels))
        bounds = [*map(str, map(float, BOUNDS_S[latency])), "+Inf"]
        for node, reading in readings:
            for number, service in enumerate(self._board.facts.classes):
                buckets = list(zip(bounds, accumulate(reading.buckets[number, place].tolist()), strict=True))
                total = reading.sums[number][place] / PS_PER_S
                metric.add_metric((self._board.facts.run, str(node), service), buckets, total)
        return metric

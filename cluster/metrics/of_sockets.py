"""Metrics of the sockets of one actor, at a port of its own: where each socket is a pod, each pod is scraped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cluster.metrics.families import FAMILIES
from cluster.metrics.samples import OF_SOCKET, Counters, Sample
from node.errors import InputError
from node.spec import Machine

MOST_PORTS = 64  # that are tried
Found = Mapping[str, Iterable[Sample]]  # by family; labels with all values but ``run``


class Served(NamedTuple):
    """Where actors serve the metrics of ``run``: each at the first free port of its machine, from ``port`` on."""

    run: str
    host: str
    port: int


class ActorCollector(Collector):
    """What an actor has ``found`` of its sockets so far, asked for at each scrape."""

    def __init__(self, run: str, found: Callable[[], Found]) -> None:
        self._run, self._found = run, found

    def collect(self) -> Iterator[Metric]:
        """Its families."""
        for name, samples in self._found().items():
            family = FAMILIES[name]
            kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            metric = kind(name, family.help, labels=("run", *family.labels))
            for values, value in samples:
                metric.add_metric((self._run, *values), value)
            yield metric


def of_counters(machine: Machine, counters: Mapping[int, Counters]) -> Found:
    """The families of sockets, from their own ``counters``."""
    return {
        name: [
            (("0", str(socket), *values), value)
            for socket, counted in counters.items()
            for values, value in of_socket(machine, counted)
        ]
        for name, of_socket in OF_SOCKET.items()
    }


def serve(where: Served, found: Callable[[], Found]) -> int:
    """Serve on a thread, for as long as the actor lives: its port. ``InputError`` where none is to be had."""
    registry = CollectorRegistry()
    registry.register(ActorCollector(where.run, found))
    for port in range(where.port, where.port + MOST_PORTS):
        try:
            server, _ = start_http_server(port, addr=where.host, registry=registry)
        except OSError as error:
            reason = error.strerror or str(error)
            continue
        return int(server.server_port)
    raise InputError(
        f"--socket-metrics-port {where.port} on {where.host!r}: neither it nor the {MOST_PORTS - 1} ports above it can "
        f"be listened on: {reason}"
    )

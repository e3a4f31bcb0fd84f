"""Where metrics are to be had: at a port of this process, and at its end from a Pushgateway."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from urllib.error import URLError

from prometheus_client import CollectorRegistry, ProcessCollector, push_to_gateway, start_http_server

from cluster.metrics.board import Board
from cluster.metrics.collector import BoardCollector
from node.errors import InputError

JOB = "samba-coe"
SWITCH_S = 0.0005  # a scrape takes the interpreter a few times, and a run that is busy keeps it so long at most


def registry_of(board: Board) -> CollectorRegistry:
    """The families of ``board``, and those of this process."""
    registry = CollectorRegistry()
    registry.register(BoardCollector(board))
    ProcessCollector(registry=registry)
    return registry


@contextlib.contextmanager
def served(registry: CollectorRegistry, host: str, port: int) -> Iterator[str]:
    """Serve ``/metrics`` on a thread: its URL. ``InputError`` where the port is not to be had; 0 is any."""
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"--metrics-port {port} on --metrics-host {host!r}: cannot be listened on: {reason}") from None
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(SWITCH_S, before))
    try:
        yield f"http://{host}:{server.server_port}/metrics"
    finally:
        sys.setswitchinterval(before)
        server.shutdown()
        server.server_close()
        thread.join()


def push(registry: CollectorRegistry, gateway: str, run: str) -> None:
    """Push all to a Pushgateway, as of the instance ``run``; ``InputError`` where it does not take them."""
    try:
        push_to_gateway(gateway, job=JOB, registry=registry, grouping_key={"instance": run})
    except (OSError, URLError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise InputError(f"--push-gateway {gateway!r}: did not take the metrics: {reason}") from None

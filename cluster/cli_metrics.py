"""Options of a run that is followed while it goes on: its metrics, and its pace."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import click

from cluster.cli_options import ERR, options_together
from cluster.config import Config
from cluster.metering import board_of, live_of
from cluster.nodes.live import Live
from cluster.pace import FREE, Pace, factor_of
from cluster.residency import SHOWN
from cluster.workload import Workload
from node.deployment import Deployment
from node.errors import InputError

live_options = options_together(
    click.option("--pace", default=FREE, show_default=True, help="Virtual seconds in a second of wall time."),
    click.option("--metrics-port", type=click.IntRange(0, 65535), help="Serve Prometheus metrics there; 0: any port."),
    click.option("--metrics-host", default="127.0.0.1", show_default=True, help="Address to serve metrics at."),
    click.option("--metrics-experts", type=click.IntRange(0), default=SHOWN, show_default=True,
                 help="Experts with metrics of their own."),
    click.option("--socket-metrics-port", type=click.IntRange(1, 65535), metavar="PORT",
                 help="Each actor serves its sockets' metrics by itself, at the first free port from here on."),
    click.option("--linger", type=click.FloatRange(0), default=0.0, help="Serve metrics so many seconds longer."),
    click.option("--push-gateway", metavar="URL", help="Push metrics to this Pushgateway at the end."),
)  # fmt: skip


@dataclass(frozen=True)
class Followed:
    """What ``live_options`` give."""

    pace: str
    metrics_port: int | None
    metrics_host: str
    metrics_experts: int
    socket_metrics_port: int | None
    linger: float
    push_gateway: str | None

    def check(self) -> None:
        """``InputError`` for an option that has no effect, or a wrong one: before anything runs."""
        factor_of(self.pace)
        for name, given in (("linger", self.linger), ("metrics-host", self.metrics_host != "127.0.0.1")):
            if given and self.metrics_port is None:
                raise InputError(f"--{name}: has no effect without --metrics-port")
        if self.socket_metrics_port is not None and self.metrics_port is None:
            raise InputError("--socket-metrics-port: has no effect without --metrics-port")
        if self.metrics_experts != SHOWN and not self.metered:
            raise InputError("--metrics-experts: has no effect without --metrics-port or --push-gateway")

    @property
    def metered(self) -> bool:
        """Whether anybody asks for metrics."""
        return self.metrics_port is not None or self.push_gateway is not None


@contextlib.contextmanager
def followed(
    asked: Followed, config: Config, prepared: tuple[Deployment, Workload], output: str | None
) -> Iterator[Live]:
    """A run that others may follow, from now until it has ended, and as long after it as was asked for.

    ``watch`` of it is still to be set.
    """
    pace = Pace(factor_of(asked.pace))
    if not asked.metered:
        yield Live(pace=pace)
        return
    from cluster.metrics.exporter import push, registry_of, served  # noqa: PLC0415  only where it is asked for

    name = Path(output).name if output else f"{datetime.now():%Y%m%d-%H%M%S}-run"
    apart = asked.socket_metrics_port
    if apart is not None and config.cluster.backend == "local":
        raise InputError("--socket-metrics-port: has no effect with --backend local: there are no actors")
    if apart is not None and config.routing.nodes > 1:
        raise InputError(f"--socket-metrics-port: routing.nodes is {config.routing.nodes}; allowed: one node")
    board = board_of(config, prepared, name, asked.metrics_experts, pace, sockets_apart=apart is not None)
    registry = registry_of(board)
    with contextlib.ExitStack() as until:
        if asked.metrics_port is not None:
            url = until.enter_context(served(registry, asked.metrics_host, asked.metrics_port))
            ERR.print(f"metrics: {url}", highlight=False)
        try:
            live = live_of(board, pace)
            live.exporter = None if apart is None else (name, asked.metrics_host, apart)
            yield live
        finally:
            board.running = False
            pace.end()
        if asked.push_gateway is not None:
            push(registry, asked.push_gateway, name)
        if asked.linger:
            ERR.print(f"metrics stay up for {asked.linger:g} s; Ctrl-C ends that", highlight=False)
            with contextlib.suppress(KeyboardInterrupt):
                time.sleep(asked.linger)

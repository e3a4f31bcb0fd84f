"""Which socket is the slow one, and what goes over its links."""

from __future__ import annotations

from dashboards.frame import Dashboard, Row
from dashboards.panel import About, Query, lines, number, states
from dashboards.promql import gauge, increase, per_virtual_second, rate, total
from dashboards.titles import EMULATOR, SOCKETS, SWITCHING

BY_SOCKET, OF_SOCKET = "node, socket", "node {{node}} socket {{socket}}"
LONG = "A command counts when it is done, so a long one may take a point beyond 100 %."


def busy(engine: str) -> Query:
    """Share of virtual time in which an engine is at work, by socket."""
    counted = total(rate("coe_socket_busy_seconds", f'engine="{engine}"'), BY_SOCKET)
    return Query(per_virtual_second(counted), OF_SOCKET)


def moved(matcher: str, by: str, legend: str) -> Query:
    """Bytes in a virtual second."""
    return Query(per_virtual_second(total(rate("coe_socket_bytes", matcher), by)), legend)


AT_WORK = [
    states(
        About(
            "Sockets that answer",
            "short",
            """Each socket's actor: up, or down from when it is lost until it is made anew, restored and has caught up.
            Meanwhile virtual time stands still.""",
            next=EMULATOR,
        ),
        Query(f"min by (node, socket) ({gauge('coe_socket_up')})", OF_SOCKET),
        {"0": ("down", "red"), "1": ("up", "green")},
        others="green",
    ),
    lines(
        About(
            "Tile busy",
            "percentunit",
            "Share of virtual time in which kernels run, by socket. Sockets of a group are equal; groups that differ "
            f"have popular experts at home (sharding.placement). {LONG}",
        ),
        busy("tile"),
        most=1,
    ),
    lines(
        About(
            "DMA busy",
            "percentunit",
            f"Share of virtual time in which DMA copies between DDR and HBM, by socket. {LONG}",
            next=SWITCHING,
        ),
        busy("dma"),
        most=1,
    ),
    lines(
        About(
            "Commands in a virtual second",
            "ops",
            """What a socket is told to do: copies, kernels, room that is taken and given back. A socket with none has
            no requests.""",
        ),
        Query(per_virtual_second(total(rate("coe_socket_commands"), BY_SOCKET)), OF_SOCKET),
    ),
    lines(
        About(
            "Behind the furthest socket",
            "s",
            """How much earlier than the last of the chosen sockets each one was free again, in virtual seconds: a
            socket that falls behind for long is one of a group that has nothing to do.""",
        ),
        Query(
            f"scalar(max({gauge('coe_socket_clock_seconds')})) - "
            f"max by (node, socket) ({gauge('coe_socket_clock_seconds')})",
            OF_SOCKET,
        ),
    ),
    number(
        About(
            "Refused, in the time shown",
            "short",
            """Commands that a socket refused as out of range, overlapping or not alive: the first one ends the run with
            both histories, and is a fault of the emulator, never of a workload. And frames and calls that links refused
            in functional mode: altered, replayed, or of a stranger.""",
        ),
        Query(total(increase("coe_socket_refusals")), "commands"),
        Query(f"{total(increase('coe_link_refusals'))} or vector(0)", "frames and calls"),
        levels=[(1, "red")],
    ),
]

MOVED = [
    lines(
        About(
            "Link busy",
            "percentunit",
            f"Share of virtual time in which a socket's link to its peers sends, by socket. {LONG}",
        ),
        busy("link"),
        most=1,
    ),
    lines(
        About(
            "Sent to peers in a virtual second",
            "Bps",
            """Collectives of kernels (two all-reduces in a layer, under tensor parallelism) and home copies of experts
            that move (sharding.rebalance), all chosen sockets together.""",
        ),
        moved('direction="to_peers"', "what", "{{what}}"),
    ),
    lines(
        About(
            "Received from peers in a virtual second",
            "Bps",
            """Home copies of experts that come from another group (sharding.rebalance), by socket. What collectives
            bring is counted where it is sent.""",
        ),
        moved('direction="from_peers"', BY_SOCKET, OF_SOCKET),
    ),
    lines(
        About(
            "DDR to HBM in a virtual second",
            "Bps",
            "Experts, compiled programs and KV cache that comes back, by socket: what activations cost this socket.",
            next=SWITCHING,
        ),
        moved('direction="ddr_to_hbm"', BY_SOCKET, OF_SOCKET),
    ),
]

FRAMES = [
    lines(
        About(
            "Sent over links in a second, functional mode",
            "Bps",
            """Payload that coe generate --socket-metrics-port sends from socket to socket, in wall time. coe run
            computes no tensors and sends none.""",
            nothing="only coe generate sends tensors",
        ),
        Query(total(rate("coe_link_bytes"), BY_SOCKET), OF_SOCKET),
    ),
    lines(
        About(
            "Frames over links in a second, functional mode",
            "ops",
            """The frames that this payload goes in, in wall time. Many small ones are decode steps, which pay more for
            each frame than for its bytes.""",
            nothing="only coe generate sends tensors",
        ),
        Query(total(rate("coe_link_frames"), BY_SOCKET), OF_SOCKET),
    ),
]

DASHBOARD = Dashboard(
    *SOCKETS,
    "What each socket's tile, DMA and link are doing: whether one of them is the bottleneck, and on which socket.",
    [Row("At work", AT_WORK), Row("Moved", MOVED), Row("Over real links", FRAMES)],
)

"""What each family says, by name: from the board, from the reading of a node, from the counters of a socket."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain

from cluster.metrics.board import Board, Facts
from cluster.metrics.reading import OF_EXPERTS, Reading
from node.runtime.admission import Reason
from node.runtime.ledger import CHARGES
from node.spec import Machine
from node.units import PS_PER_S

Sample = tuple[tuple[str, ...], float]  # the values of its own labels, and its value
Samples = Iterable[Sample]
Counters = Mapping[str, int]
OTHERS = "other"  # experts that are not shown by themselves
ENGINES = ("dma", "tile", "link")
# what a socket moved: of its own counters, the direction and what it is
MOVED = {
    "copied": ("ddr_to_hbm", "expert"),
    "loaded": ("ddr_to_hbm", "program"),
    "swapped_in": ("ddr_to_hbm", "kv"),
    "swapped_out": ("hbm_to_ddr", "kv"),
    "sent": ("to_peers", "expert"),
    "received": ("from_peers", "expert"),
}


def one(value: float) -> Samples:
    """The only sample of a family without labels of its own."""
    return [((), value)]


def by(labels: Iterable[str], values: Iterable[float]) -> Samples:
    """A sample for each value of a label."""
    return [((label,), value) for label, value in zip(labels, values, strict=True)]


def _bytes(machine: Machine, counted: Counters) -> Samples:
    moved: list[Sample] = [(way, counted[what]) for what, way in MOVED.items()]
    sent = counted["link_busy"] * machine.peer.bandwidth / PS_PER_S  # sending goes at the link's full bandwidth
    return [*moved, (("to_peers", "collective"), round(sent))]


def _tiers(what: str) -> Callable[[Machine, Counters], Samples]:
    tiers = ("hbm", "ddr")
    return lambda _machine, counted: by(tiers, [counted[f"{tier}_{what}"] for tier in tiers])


OF_SOCKET: dict[str, Callable[[Machine, Counters], Samples]] = {
    "coe_socket_clock_seconds": lambda _machine, counted: one(counted["clock"] / PS_PER_S),
    "coe_socket_commands": lambda _machine, counted: one(counted["commands"]),
    "coe_socket_busy_seconds": lambda _machine, counted: by(
        ENGINES, [counted[f"{engine}_busy"] / PS_PER_S for engine in ENGINES]
    ),
    "coe_socket_bytes": _bytes,
    "coe_tier_capacity_bytes": lambda machine, _counted: by(
        ("sram", "hbm", "ddr"), [machine.sram.capacity, machine.hbm.capacity, machine.ddr.capacity]
    ),
    "coe_tier_used_bytes": _tiers("used"),
    "coe_tier_peak_bytes": _tiers("peak"),
}


def _experts(what: str) -> Callable[[Facts, Reading], Samples]:
    row = OF_EXPERTS.index(what)
    return lambda facts, reading: by([*map(str, facts.experts.tolist()), OTHERS], reading.experts[row].tolist())


def _in_node(_facts: Facts, reading: Reading) -> Samples:
    left = reading.arrived - sum(reading.completed) - int(reading.turned_away.sum())
    return by(("waiting", "running"), (left - reading.running, reading.running))


def _finished(facts: Facts, reading: Reading) -> Iterator[Sample]:
    for number, service in enumerate(facts.classes):
        yield (service, "completed"), reading.completed[number]
        for reason in Reason:
            yield (service, reason.name.lower()), int(reading.turned_away[number, reason])


def _promises(facts: Facts, reading: Reading) -> Iterator[Sample]:
    for number, service in enumerate(facts.classes):
        if facts.promised[number]:
            finished = reading.completed[number] + int(reading.turned_away[number].sum())
            yield (service, "yes"), reading.kept[number]
            yield (service, "no"), finished - reading.kept[number]


OF_NODE: dict[str, Callable[[Facts, Reading], Samples]] = {
    **{f"coe_expert_{what}": _experts(what) for what in OF_EXPERTS},
    "coe_experts": lambda _facts, reading: by(("hbm", "ddr"), reading.held),
    "coe_activation_seconds": lambda _facts, reading: one(reading.activation_ps / PS_PER_S),
    "coe_requests_arrived": lambda _facts, reading: one(reading.arrived),
    "coe_requests": _in_node,
    "coe_requests_finished": _finished,
    "coe_tokens": lambda _facts, reading: by(("input", "output"), reading.tokens),
    "coe_request_time_seconds": lambda _facts, reading: by(CHARGES, [spent / PS_PER_S for spent in reading.charges]),
    "coe_slo_requests": _promises,
}


def _held(facts: Facts) -> Iterator[Sample]:
    for machine in facts.held:
        yield (machine.machine, "hbm"), machine.in_hbm
        yield (machine.machine, "ddr"), machine.below


def _commands(board: Board) -> int:
    counters = chain.from_iterable(reading.sockets.values() for reading in list(board.readings.values()))
    return sum(counted["commands"] for counted in counters)


OF_RUN: dict[str, Callable[[Board], Samples]] = {
    "coe_run": lambda board: [((board.facts.machine.name, board.facts.backend, board.facts.version), 1)],
    "coe_run_requests": lambda board: one(board.facts.requests),
    "coe_requests_refused": lambda board: one(board.facts.refused),
    "coe_footprint_experts": lambda board: one(board.facts.catalogue),
    "coe_footprint_nodes": lambda board: [((held.machine,), held.nodes) for held in board.facts.held],
    "coe_footprint_held_experts": lambda board: _held(board.facts),
    "coe_footprint_spilled_experts": lambda board: [
        ((held.machine,), board.facts.catalogue - held.in_hbm) for held in board.facts.held
    ],
    "coe_emulator_running": lambda board: one(board.running),
    "coe_emulator_windows": lambda board: one(sum(reading.windows for reading in list(board.readings.values()))),
    "coe_emulator_commands": lambda board: one(_commands(board)),
    "coe_emulator_restarts": lambda board: one(board.health.restarts),
    "coe_emulator_wall_seconds": lambda board: one(board.wall_s()),
    "coe_emulator_pace": lambda board: one(board.pace or 0),
    "coe_emulator_lag_seconds": lambda board: one(board.lag_s()),
}

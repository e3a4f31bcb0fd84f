"""Every metric: its name, kind, labels and meaning. ``docs/metrics.md`` defines them, by symbols defined once.

``coe_*`` are of virtual time and emulated work, ``coe_emulator_*`` of the emulator's own. All have a label ``run``.
"""

from __future__ import annotations

from typing import NamedTuple

from node.runtime.ledger import CHARGES


class Family(NamedTuple):
    """One metric. ``kind``: counter, gauge, histogram; ``labels`` beside ``run``."""

    kind: str
    labels: tuple[str, ...]
    help: str


SOCKET, EXPERT, REQUEST = ("node", "socket"), ("node", "expert"), ("node", "class")
LATENCIES = ("ttft", "tpot", "e2e", "queue", "switch")  # a histogram each, of requests that are complete

FAMILIES: dict[str, Family] = {
    "coe_run": Family("gauge", ("machine", "backend", "version"), "1: what is run, by its labels"),
    "coe_run_requests": Family("gauge", (), "Requests of the whole workload, refused ones left out"),
    "coe_virtual_time_seconds": Family("counter", ("node",), "Virtual time that the node has come to"),
    "coe_socket_up": Family(
        "gauge", SOCKET, "1 where the socket's actor answers, 0 from when it is lost until it is back"
    ),
    "coe_socket_clock_seconds": Family("gauge", SOCKET, "Virtual time until which an engine of the socket was busy"),
    "coe_socket_busy_seconds": Family(
        "counter", (*SOCKET, "engine"), "Virtual time that an engine (dma, tile, link) was busy"
    ),
    "coe_socket_bytes": Family(
        "counter", (*SOCKET, "direction", "what"), "Bytes that the socket moved, by direction and by what they are"
    ),
    "coe_socket_commands": Family("counter", SOCKET, "Commands that the socket has done"),
    "coe_socket_refusals": Family("counter", SOCKET, "Commands that the socket refused; the first one ends the run"),
    "coe_link_bytes": Family("counter", (*SOCKET, "peer"), "Payload sent to a peer over its link, in functional mode"),
    "coe_link_frames": Family("counter", (*SOCKET, "peer"), "Frames sent to a peer over its link, in functional mode"),
    "coe_link_refusals": Family(
        "counter", (*SOCKET, "reason"), "Frames and calls that links refused, by the first socket of the actor"
    ),
    "coe_tier_capacity_bytes": Family("gauge", (*SOCKET, "tier"), "Bytes of a tier (sram, hbm, ddr) of the socket"),
    "coe_tier_used_bytes": Family("gauge", (*SOCKET, "tier"), "Bytes in use in a tier (hbm, ddr) of the socket"),
    "coe_tier_peak_bytes": Family("gauge", (*SOCKET, "tier"), "Most bytes in use so far in a tier of the socket"),
    "coe_expert_activations": Family("counter", EXPERT, "Copies of the expert from DDR to HBM, prefetches among them"),
    "coe_expert_hits": Family("counter", EXPERT, "Requests that found their expert in HBM"),
    "coe_expert_misses": Family(
        "counter", EXPERT, "Requests that a copy of their expert was made for, or waited for one"
    ),
    "coe_expert_evictions": Family("counter", EXPERT, "Times that the expert left HBM"),
    "coe_expert_resident": Family("gauge", EXPERT, "Socket groups that have the expert in HBM, or are copying it"),
    "coe_experts": Family(
        "gauge", ("node", "tier"), "Copies of experts in a tier, over all groups: in hbm, homes in ddr"
    ),
    "coe_activation_seconds": Family(
        "counter", ("node",), "Virtual time that copies of experts to HBM take, by themselves"
    ),
    "coe_requests_arrived": Family("counter", ("node",), "Requests that have reached the node"),
    "coe_requests": Family(
        "gauge", ("node", "state"), "Requests in the node: waiting, or running (served, not complete)"
    ),
    "coe_requests_finished": Family(
        "counter", (*REQUEST, "outcome"), "Requests that are complete, or were turned away (queue_full, late)"
    ),
    "coe_requests_refused": Family("counter", (), "Requests refused before the run, being over their expert's context"),
    "coe_tokens": Family("counter", ("node", "kind"), "Tokens (input, output) of requests that are complete"),
    "coe_request_time_seconds": Family(
        "counter", ("node", "charge"), f"Time of complete requests by what it went to: {', '.join(CHARGES)}"
    ),
    "coe_slo_requests": Family(
        "counter", (*REQUEST, "kept"), "Finished requests that were promised something, by whether it was kept"
    ),
    "coe_request_ttft_seconds": Family("histogram", REQUEST, "Time to first token of complete requests"),
    "coe_request_tpot_seconds": Family("histogram", REQUEST, "Time per further output token of complete requests"),
    "coe_request_e2e_seconds": Family("histogram", REQUEST, "End-to-end time of complete requests"),
    "coe_request_queue_seconds": Family(
        "histogram", REQUEST, "Time that complete requests waited to be routed or served"
    ),
    "coe_request_switch_seconds": Family(
        "histogram", REQUEST, "Time that complete requests waited for their expert's copy"
    ),
    "coe_footprint_experts": Family("gauge", (), "Experts of the catalogue"),
    "coe_footprint_nodes": Family("gauge", ("machine",), "Machines that hold all experts"),
    "coe_footprint_held_experts": Family(
        "gauge", ("machine", "tier"), "Experts that one machine holds in hbm, and below it"
    ),
    "coe_footprint_spilled_experts": Family(
        "gauge", ("machine",), "Experts that find no room in the HBM of one machine"
    ),
    "coe_emulator_running": Family("gauge", (), "1 while the run goes on, 0 once it has ended"),
    "coe_emulator_windows": Family("counter", (), "Windows of virtual time that sockets have done, of all nodes"),
    "coe_emulator_commands": Family("counter", (), "Commands that sockets have done, of all nodes"),
    "coe_emulator_restarts": Family("counter", (), "Actors that were lost and made anew"),
    "coe_emulator_wall_seconds": Family("counter", (), "Wall time since the run began, until it ended"),
    "coe_emulator_pace": Family(
        "gauge", (), "Virtual seconds in a second of wall time that were asked for; 0: as many as can be"
    ),
    "coe_emulator_lag_seconds": Family("gauge", (), "Wall time by which the run is behind its pace"),
}

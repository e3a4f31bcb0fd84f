"""``summary.json``: what a run came to; only what its input determines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cluster.measured import measured, spread
from cluster.not_served import TURNED_AWAY, NotServed
from cluster.service_levels import asked, service_levels
from cluster.workload import Workload
from node.deployment import Deployment
from node.events import Ints
from node.hardware.rdu import MOVED
from node.runtime.group import Group
from node.runtime.ledger import CHARGES
from node.runtime.programs import ProgramGroup
from node.runtime.references import fewest_misses
from node.simulation import Simulation
from node.spec import Machine
from node.units import PS_PER_S, exact_sum

Summary = dict[str, object]
Tally = dict[str, list[int]]  # what a node's groups counted, by group, and by expert
OF_EXPERTS = ("activations_of", "evictions_of", "hits_of", "misses_of")
S_PER_HOUR = 3600


def summarise(
    deployment: Deployment,
    workload: Workload,
    tallies: Sequence[Tally],
    columns: Mapping[str, Ints],
    counters: Mapping[int, Mapping[str, int]],
    others: NotServed,
    warmup: int,
) -> Summary:
    """The summary of nodes, one or several, that counted ``tallies``; ``others`` were not served.

    The first ``warmup`` requests to arrive are left out of ttft, tpot and e2e. Percentiles are by nearest rank.
    ``time_s``: what all requests spent on each charge. ``switch_s_mean`` is the mean time of an activation, DDR to HBM,
    waited for or not, ``switch_s`` that of all. ``experts``: counts by expert. Hits and misses are requests:
    a miss has a copy begun for it, or waits for what is left of a prefetch; where that is complete, whoever is served
    is a hit. ``prefetches`` are the activations ahead of use, of which ``prefetches_late`` were waited for, and
    ``prefetches_wasted`` never used. ``held_s``: how long groups were idle with requests waiting, because experts had
    to stay in the room of theirs. ``hit_rate_belady``: see ``_yardstick``. ``cost``: of all machines over the
    makespan, in the user's currency. ``experts_moved``: between groups. ``preemptions``: how often somebody made room
    for others, and what it cost (KV cache computed again, or moved to DDR and back). ``program_loads``: where compiled
    programs are switched, how often one was loaded, with its bytes over all sockets and its time.
    ``service_levels``: where something was promised; ``queue_full``, ``late``: how many were turned away so, where any
    was. ``nodes``, where there are several: see ``_node``.
    """
    machine, nodes = deployment.machine, len(tallies)
    makespan = max(max(tally["ended_ps"]) for tally in tallies) / PS_PER_S
    counted = measured(workload, columns, warmup)
    e2e, ttft, tokens = (columns[name][counted] for name in ("e2e", "ttft", "output_tokens"))
    several = tokens > 1
    tpot = (e2e - ttft)[several] / (tokens[several] - 1)
    in_all = {what: sum(sum(tally[what]) for tally in tallies) for what in tallies[0]}
    activations, hits, misses = (in_all[what] for what in ("activations", "hits", "misses"))
    summary: Summary = {
        "machine": machine.name,
        "requests": len(workload.requests) + len(workload.refused),
        "completed": len(columns["e2e"]),
        "over_context": workload.over_context,
        "refused": len(workload.refused),
        "warmup": warmup,
        "makespan_s": makespan,
        "ttft_s": spread(ttft, exact_sum(ttft)),
        "tpot_s": spread(tpot, float(tpot.sum())),
        "e2e_s": spread(e2e, exact_sum(e2e)),
        "throughput_requests_per_s": len(columns["e2e"]) / makespan,
        "throughput_tokens_per_s": int(columns["output_tokens"].sum()) / makespan,
        "input_tokens": exact_sum(columns["input_tokens"]),
        "output_tokens": exact_sum(columns["output_tokens"]),
        "time_s": {charge: exact_sum(columns[charge]) / PS_PER_S for charge in CHARGES},
        "expert_activations": activations,
        "expert_evictions": in_all["evictions_of"],
        "expert_hits": hits,
        "hit_rate": hits / (hits + misses),
        **_yardstick(deployment, hits, misses, in_all["fewest_misses"]),
        "switch_s_mean": in_all["switching_ps"] / activations / PS_PER_S if activations else 0.0,
        "switch_s": in_all["switching_ps"] / PS_PER_S,
        "bytes_ddr_to_hbm": sum(counters[socket]["copied"] for socket in sorted(counters)),
    }
    if deployment.options.prefetch:
        summary["prefetches"] = in_all["prefetches"]
        summary["prefetches_late"] = in_all["late"]
        summary["prefetches_wasted"] = in_all["wasted"]
    if deployment.sharding.rebalance:
        summary["experts_moved"] = in_all["experts_moved"]
        summary["bytes_moved"] = in_all["moved"] // 2  # each is sent by one and received by another
    if deployment.options.kv_block:
        summary["preemptions"] = in_all["preemptions"]
        summary["tokens_recomputed"], summary["bytes_swapped"] = in_all["recomputed"], in_all["swapped"]
    if deployment.options.switching == "program":
        summary["program_loads"], summary["program_bytes"] = in_all["program_loads"], in_all["program_bytes"]
        summary["program_load_s"] = in_all["program_load_ps"] / PS_PER_S
    if deployment.options.min_residency:
        summary["held_s"] = in_all["held_ps"] / PS_PER_S
    if asked(deployment.options.services):
        levels = service_levels(deployment.options.services, workload, columns, others, warmup, makespan)
        summary["service_levels"] = levels
    summary |= {reason: others.outcome.count(reason) for reason in TURNED_AWAY if reason in others.outcome}
    if machine.power is not None:
        summary["energy_j"] = machine.power.socket * machine.sockets * nodes * makespan
    if machine.cost_per_hour is not None:
        summary["cost"] = machine.cost_per_hour * nodes * makespan / S_PER_HOUR
    if nodes > 1:
        summary["nodes"] = [
            _node(tally, makespan, ttft[columns["node"][counted] == n]) for n, tally in enumerate(tallies)
        ]
    summary["experts"] = {
        what.removesuffix("_of"): [
            sum(of_expert) for of_expert in zip(*(tally[what] for tally in tallies), strict=True)
        ]
        for what in OF_EXPERTS
    }
    summary["sockets"] = [_socket(deployment.machine, counters[socket]) for socket in sorted(counters)]
    return summary


def tally_of(deployment: Deployment, simulation: Simulation) -> Tally:
    """What the groups of a node counted in a run that is over.

    ``switching_ps``: the time of their activations; ``fewest_misses``: those of Belady's MIN (``_yardstick``).
    """
    groups, sizes = simulation.groups, [size.weights for size in deployment.settings.sizes]
    return {
        "ended_ps": simulation.ended_ps,
        "busy_ps": simulation.busy_ps,
        "held_ps": simulation.held_ps,
        "hits": [group.hits for group in groups],
        "misses": [group.misses for group in groups],
        "late": [group.late for group in groups],
        "prefetches": [group.cache.prefetches for group in groups],
        "wasted": [group.cache.wasted + len(group.cache.unused) for group in groups],
        "activations": [group.activations.total() for group in groups],
        **_of_experts(deployment.catalogue.count, groups),
        "switching_ps": [
            sum(deployment.activation_ps(expert) * count for expert, count in group.activations.items())
            for group in groups
        ],
        "experts_moved": [0 if simulation.rebalancing is None else simulation.rebalancing.moved],
        "moved": [group.memory.moved * deployment.degree for group in groups],
        "preemptions": [group.preemptions for group in groups],
        "recomputed": [group.recomputed for group in groups],
        "swapped": [group.swapped * deployment.degree for group in groups],
        **_programs(deployment, groups),
        "fewest_misses": [
            fewest_misses(group.cache.references.experts(), sizes, group.layout.experts.size, group.layout.pinned)
            for group in groups
        ],
    }


def _of_experts(count: int, groups: Sequence[Group]) -> Tally:
    """Counts by expert, over all groups; what came to HBM and is not there any more was evicted, or moved away."""
    came = [
        [group.activations[expert] + (expert in group.layout.pinned) for expert in range(count)] for group in groups
    ]
    there = [[int(group.cache.resident(expert)) for expert in range(count)] for group in groups]
    return {
        "activations_of": [sum(group.activations[expert] for group in groups) for expert in range(count)],
        "evictions_of": (np.sum(came, axis=0) - np.sum(there, axis=0)).tolist(),
        "hits_of": [sum(group.hits_of[expert] for group in groups) for expert in range(count)],
        "misses_of": [sum(group.misses_of[expert] for group in groups) for expert in range(count)],
    }


def _programs(deployment: Deployment, groups: Sequence[Group]) -> Tally:
    """Loads of compiled programs, their bytes over all sockets and their time, where they are switched."""
    found = [group.programs for group in groups if isinstance(group, ProgramGroup)]
    return {
        "program_loads": [one.loads for one in found],
        "program_bytes": [one.loaded * deployment.degree for one in found],
        "program_load_ps": [one.loading_ps for one in found],
    }


def _node(tally: Tally, makespan: float, ttft: Ints) -> Summary:
    """One of several nodes. ``utilisation``: share of the makespan in which its groups were not idle, their mean."""
    served, busy = sum(tally["hits"]) + sum(tally["misses"]), tally["busy_ps"]
    times = spread(ttft, exact_sum(ttft))
    return {
        "completed": served,
        "hit_rate": sum(tally["hits"]) / served if served else None,
        "utilisation": sum(busy) / len(busy) / PS_PER_S / makespan,
        "ttft_s": {"p99": None if times is None else times["p99"]},
    }


def _yardstick(deployment: Deployment, hits: int, misses: int, fewest: int) -> Summary:
    """What Belady's MIN, by copies on demand, makes of the very references of this run, each group's in its own HBM.

    ``hit_rate_share_of_belady``: hits of the run by hits of MIN; None where MIN has none. ``hit_rate_belady_is_bound``:
    no eviction policy has more hits on these references, with the same experts pinned. With prefetch, or where sizes
    differ, one may.
    """
    sizes, pinned = deployment.settings.sizes[: deployment.catalogue.count], deployment.options.pinned
    best = hits + misses - fewest
    return {
        "hit_rate_belady": best / (hits + misses),
        "hit_rate_share_of_belady": hits / best if best else None,
        "hit_rate_belady_is_bound": not deployment.options.prefetch
        and len({size.weights for expert, size in enumerate(sizes) if expert not in pinned}) <= 1,
    }


def _socket(machine: Machine, found: Mapping[str, int]) -> dict[str, float]:
    """One socket. ``bytes``: what DMA moved; ``bytes_collectives``: sent over its peer links, at their bandwidth."""
    return {
        "commands": found["commands"],
        **{f"bytes_{what}": found[what] for what in MOVED},
        "bytes_collectives": round(found["link_busy"] * machine.peer.bandwidth / PS_PER_S),
        "hbm_peak_bytes": found["hbm_peak"],
        "ddr_used_bytes": found["ddr_used"],
        "dma_busy_s": found["dma_busy"] / PS_PER_S,
        "tile_busy_s": found["tile_busy"] / PS_PER_S,
        "link_busy_s": found["link_busy"] / PS_PER_S,
    }

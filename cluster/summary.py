"""``summary.json``: what a run came to; only what its input determines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cluster.measured import measured, spread
from cluster.not_served import TURNED_AWAY, NotServed
from cluster.service_levels import asked, service_levels
from cluster.workload import Workload
from node.deployment import Deployment
from node.events import Ints
from node.runtime.group import Group
from node.runtime.references import fewest_misses
from node.simulation import Simulation
from node.units import PS_PER_S, exact_sum

Summary = dict[str, object]
S_PER_HOUR = 3600


def summarise(
    deployment: Deployment,
    workload: Workload,
    simulation: Simulation,
    columns: Mapping[str, Ints],
    counters: Mapping[int, Mapping[str, int]],
    others: NotServed,
    warmup: int,
) -> Summary:
    """The summary of a run; ``others`` were not served. The first ``warmup`` to arrive are left out of ttft, tpot, e2e.

    Percentiles are by nearest rank. ``switch_s_mean`` is the mean time of an activation, DDR to HBM, waited for or not.
    Hits and misses are requests: a miss has a copy begun for it, or waits for what is left of a prefetch; where that is
    complete, whoever is served is a hit. ``prefetches`` are the activations ahead of use, of which ``prefetches_late``
    were waited for, and ``prefetches_wasted`` never used. ``held_s``: how long groups were idle with requests waiting,
    because experts had to stay in the room of theirs. ``hit_rate_belady``: see ``_yardstick``. ``cost``: of the
    machine over the makespan, in the user's currency. ``service_levels``: where something was promised; ``queue_full``,
    ``late``: how many were turned away so, where any was.
    """
    machine, makespan = deployment.machine, simulation.now / PS_PER_S
    counted = measured(workload, columns, warmup)
    e2e, ttft, tokens = (columns[name][counted] for name in ("e2e", "ttft", "output_tokens"))
    several = tokens > 1
    tpot = (e2e - ttft)[several] / (tokens[several] - 1)
    groups = simulation.groups
    activations = sum(group.activations.total() for group in groups)
    hits, misses = (sum(getattr(group, what) for group in groups) for what in ("hits", "misses"))
    switching = sum(
        deployment.activation_ps(expert) * count for group in groups for expert, count in group.activations.items()
    )
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
        "expert_activations": activations,
        "expert_hits": hits,
        "hit_rate": hits / (hits + misses),
        **_yardstick(deployment, groups, hits, hits + misses),
        "switch_s_mean": switching / activations / PS_PER_S if activations else 0.0,
        "bytes_ddr_to_hbm": sum(counters[socket]["copied"] for socket in sorted(counters)),
    }
    if deployment.options.prefetch:
        summary["prefetches"] = sum(group.cache.prefetches for group in groups)
        summary["prefetches_late"] = sum(group.late for group in groups)
        summary["prefetches_wasted"] = sum(group.cache.wasted + len(group.cache.unused) for group in groups)
    if deployment.options.min_residency:
        summary["held_s"] = sum(simulation.held_ps) / PS_PER_S
    if asked(deployment.options.services):
        levels = service_levels(deployment.options.services, workload, columns, others, warmup, makespan)
        summary["service_levels"] = levels
    summary |= {reason: others.outcome.count(reason) for reason in TURNED_AWAY if reason in others.outcome}
    if machine.power is not None:
        summary["energy_j"] = machine.power.socket * machine.sockets * makespan
    if machine.cost_per_hour is not None:
        summary["cost"] = machine.cost_per_hour * makespan / S_PER_HOUR
    summary["sockets"] = [_socket(counters[socket]) for socket in sorted(counters)]
    return summary


def _yardstick(deployment: Deployment, groups: Sequence[Group], hits: int, references: int) -> Summary:
    """What Belady's MIN, by copies on demand, makes of the very references of this run, each group's in its own HBM.

    ``hit_rate_share_of_belady``: hits of the run by hits of MIN; None where MIN has none. ``hit_rate_belady_is_bound``:
    no eviction policy has more hits on these references, with the same experts pinned. With prefetch, or where sizes
    differ, one may.
    """
    sizes, count = [size.weights for size in deployment.settings.sizes], deployment.catalogue.count
    pinned = deployment.options.pinned
    best = references - sum(
        fewest_misses(group.cache.references.experts(), sizes, group.layout.experts.size, group.layout.pinned)
        for group in groups
    )
    return {
        "hit_rate_belady": best / references,
        "hit_rate_share_of_belady": hits / best if best else None,
        "hit_rate_belady_is_bound": not deployment.options.prefetch
        and len({size for expert, size in enumerate(sizes[:count]) if expert not in pinned}) <= 1,
    }


def _socket(found: Mapping[str, int]) -> dict[str, float]:
    return {
        "hbm_peak_bytes": found["hbm_peak"],
        "ddr_used_bytes": found["ddr_used"],
        "dma_busy_s": found["dma_busy"] / PS_PER_S,
        "tile_busy_s": found["tile_busy"] / PS_PER_S,
        "link_busy_s": found["link_busy"] / PS_PER_S,
    }

"""What must hold at the end of every run, whatever was run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from node.deployment import Deployment
from node.errors import InvariantError
from node.runtime.group import Group
from node.runtime.ledger import CHARGES, Ints
from node.runtime.programs import ProgramGroup
from node.simulation import Simulation
from node.units import Picoseconds, blocks, exact_sum


def verify(
    deployment: Deployment,
    simulation: Simulation,
    counters: Mapping[int, Mapping[str, int]],
    columns: Mapping[str, Ints],
) -> None:
    """Raise ``InvariantError`` where a law is broken; ``columns`` are those of the simulation.

    Little's law: the integral of requests in the system over time is the sum of their end-to-end times, and of those
    turned away how long they waited. Homes: every request is served once, by a group that has its expert, or turned
    away. Bytes: each group's sockets copied activations x expert bytes; an activation is a miss or a prefetch, and a
    prefetch is used or evicted by the end, unless another group serves or a deadline ends whom it was for. Work: a
    group idles only with nobody waiting whose expert can come (the simulation raises at once), and for those who wait
    all the same no longer than its copies have to stay; an engine and the idle time never exceed the makespan, nor do
    both engines where no copy is beside a run (a prefetch for those whom another group serves may run while its own
    is idle, and end last of all). Memory: no tier was ever over its capacity, and only weights are left, and compiled
    programs where they are switched, of which sockets loaded the bytes that were planned. ``counters`` are the sockets'
    own.
    """
    makespan = simulation.now
    requests, turned_away = simulation.requests, simulation.turned_away
    numbers, gone = (np.array([one[at] for one in turned_away], dtype=np.int64) for at in (0, 1))
    kept = simulation.served()
    arrival = np.concatenate([requests.arrival[kept], requests.arrival[numbers]])
    waited, end = gone - requests.arrival[numbers], requests.arrival[kept] + columns["e2e"]
    spent = sum(exact_sum(columns[charge]) for charge in CHARGES) + exact_sum(waited)
    _same("Little's law: request time", request_time(arrival, np.concatenate([end, gone])), spent)
    _same("requests left in the system", len(requests) - simulation.completed - len(turned_away), 0)
    last = int(np.concatenate([end, gone]).max(initial=0))
    late = deployment.options.shed_late
    in_vain = deployment.options.prefetch and (late or any(layout.shared for layout in deployment.layouts))
    if in_vain:
        _at_most("end of the last request", last, makespan)
    else:
        _same("end of the last request", last, makespan)
    served = sum(group.hits + group.misses for group in simulation.groups)
    _same("hits and misses", served, simulation.completed)
    for group in simulation.groups:
        index = group.layout.group
        mine = columns["group"] == index
        _same(f"requests served by group {index}", int(mine.sum()), group.hits + group.misses)
        strangers = set(np.unique(requests.expert[kept][mine]).tolist()) - group.memory.had
        _same(f"experts that group {index} served and has not", len(strangers), 0)
        _same(f"requests that wait for group {index} at the end", group.waiting.count, 0)
        members = range(index * deployment.degree, (index + 1) * deployment.degree)
        copied = sum(counters[socket]["copied"] for socket in members)
        planned = sum(deployment.expert_bytes(expert) * count for expert, count in group.activations.items())
        _same(f"bytes copied in group {index}", copied, planned)
        _same(f"references of group {index}", len(group.cache.references), group.hits + group.misses)
        stay = deployment.options.min_residency * group.activations.total()
        _at_most(f"time that group {index} was held up", simulation.held_ps[index], stay)
        began = group.misses - group.late + group.cache.prefetches
        _same(f"misses and prefetches of group {index}", began, group.activations.total())
        vain = group.layout.shared or late
        if not vain:
            _same(f"experts that group {index} prefetched for nobody", len(group.cache.unused), 0)
        for socket in members:
            _verify_socket(deployment, simulation, group, f"socket {socket}", counters[socket], vain=vain)


def _verify_socket(
    deployment: Deployment,
    simulation: Simulation,
    group: Group,
    name: str,
    found: Mapping[str, int],
    *,
    vain: bool,
) -> None:
    """The laws of one socket of ``group``; ``vain``: a prefetch may be for nobody."""
    makespan, layout, sizes = simulation.now, group.layout, deployment.settings.sizes
    resident = layout.router.size + sum(sizes[expert].weights for expert in group.cache.residents())
    homes = sum(sizes[expert].weights for expert in group.memory.homes)
    programs = group.programs if isinstance(group, ProgramGroup) else None
    if programs is not None:
        resident, homes = resident + programs.used, homes + programs.homes
        _at_most(f"programs in HBM of {name}", programs.used, layout.programs.size)
    _same(f"HBM of {name} at the end", found["hbm_used"], resident)
    _same(f"DDR of {name} at the end", found["ddr_used"], homes)
    _same(f"bytes of programs loaded by {name}", found["loaded"], programs.loaded if programs is not None else 0)
    _at_most(f"HBM peak of {name}", found["hbm_peak"], deployment.machine.hbm.capacity)
    _at_most(f"DDR peak of {name}", found["ddr_peak"], deployment.machine.ddr.capacity)
    _same(f"bytes swapped by {name}", found["swapped_out"] + found["swapped_in"], group.swapped)
    _same(f"bytes moved by {name}", found["sent"] + found["received"], group.memory.moved)
    dma, tile = found["dma_busy"], found["tile_busy"]
    busy = dma + tile
    if deployment.options.prefetch or deployment.options.partial:
        busy = tile if deployment.options.prefetch and vain else max(dma, tile)
    _at_most(f"DMA, tile and idle time of {name}", busy + simulation.idle_ps[layout.group], makespan)
    _at_most(f"DMA time of {name}", dma, makespan)
    _at_most(f"link time of {name}", found["link_busy"], makespan)


def request_time(arrival: Ints, end: Ints) -> Picoseconds:
    """The integral over time of how many requests are in the system."""
    times = np.concatenate([arrival, end])
    order = np.argsort(times, kind="stable")
    total = inside = before = 0
    for block in blocks(len(order)):
        events = order[block]
        here = times[events]
        present = inside + np.cumsum(np.where(events < len(arrival), 1, -1))
        spans = np.diff(here, prepend=before)  # nobody is there before the first event
        waiting = np.concatenate([[inside], present[:-1]])
        # int64 would overflow: the upper and the lower half of each span by themselves
        total += (exact_sum(waiting * (spans >> 32)) << 32) + exact_sum(waiting * (spans & 0xFFFFFFFF))
        inside, before = int(present[-1]), int(here[-1])
    return total


def _same(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise InvariantError(f"{what}: {found:,}, but it must be {expected:,}")


def _at_most(what: str, found: int, limit: int) -> None:
    if found > limit:
        raise InvariantError(f"{what}: {found:,}, above {limit:,}")

"""The choices of the CoE runtime, and which of them a machine can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from node.errors import InputError
from node.runtime.homes import Sharding
from node.runtime.service import Service
from node.runtime.sharding import ModelSize
from node.spec import Machine
from node.units import Bytes, Picoseconds


@dataclass(frozen=True)
class RuntimeOptions:
    """The choices of the CoE runtime; names are those of the config's ``[runtime]`` table, checked there.

    Of functional mode: ``workspace``, bytes at the start of ``kv_reserve`` for what lies between kernels;
    ``precision``, float32, or bf16 to round where the machine does.
    """

    scheduler: str = "affinity"
    batch: int = 8
    eviction: str = "lru"
    kv_reserve: Bytes = 2 * 2**30
    call_overhead: str = "per_request"
    fairness: Picoseconds = 30 * 10**12
    fusion: str = "fused"
    orchestration: str = "ho"
    router_tokens: int = 20
    prefetch: bool = False
    partial: bool = False
    min_residency: Picoseconds = 0
    drain: int = 0
    pinned: tuple[int, ...] = ()
    services: tuple[Service, ...] = (Service(),)
    queue_limit: int | None = None
    shed_late: bool = False
    prefill_chunk: int = 0
    kv_block: int = 0
    preemption: str = "recompute"
    switching: str = "expert"
    program_reserve: Bytes = 2**25
    workspace: Bytes = 0
    precision: str = "float32"


def check_options(options: RuntimeOptions, sharding: Sharding, machine: Machine, degree: int) -> None:
    """``InputError`` for an option that ``machine`` cannot do, or not beside another one."""
    if options.switching == "program":
        _check_switching(sharding, machine)
    if sharding.rebalance:
        _check_rebalance(options, machine)
    for key in ("prefetch", "partial"):
        if getattr(options, key) and machine.hbm_share(degree) <= 0:
            raise InputError(
                f"runtime.{key}: a copy takes all HBM bandwidth of {machine.name} and leaves kernels none; "
                f"set runtime.{key} to false, or the bandwidth of DDR or of the host link lower"
            )


def check_pages(options: RuntimeOptions, sizes: Sequence[ModelSize]) -> None:
    """``InputError`` for steps of tokens, or pages of them, beside a model that has none."""
    for key in ("prefill_chunk", "kv_block"):
        if getattr(options, key) and not all(size.kv_token for size in sizes):
            raise InputError(f"runtime.{key} = {getattr(options, key)}: experts or router have no tokens; set it to 0")


def _check_switching(sharding: Sharding, machine: Machine) -> None:
    lacking = {
        "kernel.configuration (bytes for each unit in use)": machine.kernel.configuration is None,
        "pipeline that places kernels on units": machine.pipeline is None,
        "way of its own from DDR to each socket": machine.host_link is not None
        and machine.host_link.sharing == "shared",
    }
    for what, lacks in lacking.items():
        if lacks:
            raise InputError(
                f"runtime.switching = 'program': {machine.name} has no {what}; set runtime.switching to 'expert', "
                "or take another machine"
            )
    if sharding.rebalance:
        raise InputError(
            "sharding.rebalance: programs have the DDR that home copies would move to; leave it out, or set "
            "runtime.switching to 'expert'"
        )


def _check_rebalance(options: RuntimeOptions, machine: Machine) -> None:
    if machine.host_link is not None:
        raise InputError(
            f"sharding.rebalance: {machine.name} has experts in its host's memory, where every group finds them; "
            "leave it out"
        )
    if options.prefetch or options.partial:
        raise InputError(
            "sharding.rebalance: groups stand still for it, and copies ahead of use do not; set runtime.prefetch "
            "and runtime.partial to false"
        )

"""Which values of the config are allowed, each by itself and beside the others."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cluster.config import AT_LEAST_ONE, CHOICES, MOST, Config, RuntimeConfig, ServiceClass
from cluster.workload import validate
from node.errors import InputError

MOST_PRIORITY = 9


def check(config: Config) -> None:
    """``InputError`` for the first value that is not allowed."""
    for key, choices in CHOICES.items():
        table, name = key.split(".")
        value = getattr(getattr(config, table), name)
        if value not in choices:
            raise InputError(f"{key} = {value!r}: must be one of {', '.join(choices)}")
    for key in AT_LEAST_ONE:
        table, name = key.split(".")
        value = getattr(getattr(config, table), name)
        if value is not None and not 1 <= value <= MOST:
            raise InputError(f"{key} = {value!r}: must be a whole number from 1 to {MOST:,}")
    for group in config.experts.group:
        if group.count > MOST:
            raise InputError(f"experts.group.count = {group.count}: must be at most {MOST:,}")
    count = config.experts.catalogue().count
    _check_tokens(config.runtime)
    _check_switching(config.runtime)
    _check_classes(config.slo.classes)
    services = config.slo.services()
    if config.runtime.shed_late and all(one.ttft is None for one in services):
        raise InputError(
            "runtime.shed_late = True: slo.ttft must say when a request is late; set it for all or a class"
        )
    _check_pinned(config.runtime.pinned, count)
    if not 0 <= config.sharding.replicas <= count:
        raise InputError(f"sharding.replicas = {config.sharding.replicas}: must be a whole number from 0 to {count}")
    if not 0 <= config.runtime.drain <= MOST:
        raise InputError(f"runtime.drain = {config.runtime.drain}: must be a whole number from 0 to {MOST:,}")
    if config.seed < 0:
        raise InputError(f"seed = {config.seed}: must be a whole number of at least 0")
    validate(config.workload)


def _check_tokens(runtime: RuntimeConfig) -> None:
    for key in ("prefill_chunk", "kv_block"):
        value = getattr(runtime, key)
        if not 0 <= value <= MOST:
            raise InputError(f"runtime.{key} = {value}: must be a whole number from 0 to {MOST:,}")
    if runtime.preemption == "swap" and not runtime.kv_block:
        raise InputError(
            "runtime.preemption = 'swap': runtime.kv_block must say what a page is; set it, for example to 16"
        )
    if 0 < runtime.prefill_chunk < runtime.batch:
        raise InputError(
            f"runtime.prefill_chunk = {runtime.prefill_chunk}: must be 0 or at least runtime.batch = {runtime.batch}, "
            "a token for each of them"
        )


def _check_switching(runtime: RuntimeConfig) -> None:
    if runtime.switching != "program":
        return
    for key in ("prefetch", "partial", "prefill_chunk", "kv_block"):
        value = getattr(runtime, key)
        if value:
            raise InputError(
                f"runtime.switching = 'program': programs are loaded between whole runs, but runtime.{key} = {value}; "
                "remove one of the two"
            )


def _check_classes(classes: Sequence[ServiceClass]) -> None:
    names = [one.name for one in classes]
    for one in classes:
        if not one.name or names.count(one.name) > 1:
            raise InputError(f"slo.classes.name = {one.name!r}: each class must have a name of its own")
        if not 0 < one.share < math.inf:
            raise InputError(f"slo.classes.share = {one.share}: must be a number above zero")
        if not 0 <= one.priority <= MOST_PRIORITY:
            raise InputError(f"slo.classes.priority = {one.priority}: must be a whole number from 0 to {MOST_PRIORITY}")


def _check_pinned(pinned: Sequence[object], count: int) -> None:
    numbers = [expert for expert in pinned if type(expert) is int and 0 <= expert < count]
    if len(set(numbers)) < len(pinned):
        raise InputError(f"runtime.pinned = {list(pinned)}: must be numbers of experts, 0 to {count - 1}, each once")

"""From the config to what runs: the deployment on a machine, and its workload."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

from cluster.config import Config
from cluster.front_end import BLIND, BOUNDED, POLICIES, FrontEnd, View
from cluster.workload import IMAGE, Workload, load, shares_of
from node.deployment import Deployment
from node.errors import InputError
from node.expert import Catalogue
from node.models.served import load_model
from node.models.shape import Shape
from node.options import RuntimeOptions
from node.runtime.homes import Sharding
from node.spec import Machine
from node.spec_file import load_machine
from node.units import MOST_PS, Picoseconds, picoseconds, whole

EXPECTED = 10**12
MOST_NODES = 1000


def machine_of(config: Config) -> Machine:
    """The machine that the config names, with its own numbers set."""
    return load_machine(config.machine.name, config.machine.numbers)


def machines_of(names: Sequence[str], numbers: Mapping[str, object]) -> list[Machine]:
    """Several machines; ``numbers`` are set on those that know them, a ``cost_per_hour`` on all.

    Raises ``InputError`` for a number that none of them knows, and for two machines of one name.
    """
    plain = [load_machine(name) for name in names]
    known = [{"cost_per_hour"} | {figure.path for figure in machine.figures} for machine in plain]
    for path in numbers:
        if not any(path in paths for paths in known):
            raise InputError(f"machine.{path}: none of {', '.join(machine.name for machine in plain)} has this number")
    found = [
        load_machine(name, {path: value for path, value in numbers.items() if path in paths})
        for name, paths in zip(names, known, strict=True)
    ]
    labels = [machine.name for machine in found]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(f"--machines {','.join(names)}: two are named {label!r}; set name in one of the files")
    return found


def options_of(config: Config) -> RuntimeOptions:
    """The runtime's options, quantities read; what a group reserves of HBM is split over its sockets."""
    runtime = config.runtime
    kv_reserve = whole(runtime.kv_reserve, "bytes", "runtime.kv_reserve")
    program_reserve = whole(runtime.program_reserve, "bytes", "runtime.program_reserve")
    return RuntimeOptions(
        scheduler=runtime.scheduler,
        batch=runtime.batch,
        eviction=runtime.eviction,
        kv_reserve=-(-kv_reserve // config.sharding.tensor_parallel),
        call_overhead=runtime.call_overhead,
        fairness=picoseconds(runtime.fairness, "runtime.fairness"),
        fusion=runtime.fusion,
        orchestration=runtime.orchestration,
        router_tokens=config.experts.router_tokens,
        prefetch=runtime.prefetch,
        partial=runtime.partial,
        pinned=runtime.pinned,
        min_residency=picoseconds(runtime.min_residency, "runtime.min_residency"),
        drain=runtime.drain,
        services=config.slo.services(),
        queue_limit=runtime.queue_limit,
        shed_late=runtime.shed_late,
        prefill_chunk=runtime.prefill_chunk,
        kv_block=runtime.kv_block,
        preemption=runtime.preemption,
        switching=runtime.switching,
        program_reserve=-(-program_reserve // config.sharding.tensor_parallel),
    )


def deployment_of(config: Config, machine: Machine | None = None) -> Deployment:
    """The deployment that the config asks for; ``layouts`` of it says whether the catalogue fits the machine."""
    catalogue = config.experts.catalogue()
    models = {model: load_model(model) for model, _ in catalogue.kinds()}
    degree = config.sharding.tensor_parallel
    sharding = sharding_of(config, catalogue)
    return Deployment(machine or machine_of(config), catalogue, models, degree, options_of(config), sharding)


def sharding_of(config: Config, catalogue: Catalogue) -> Sharding:
    """Where experts are to be; what is expected of their popularity is counted in whole requests of 10^12."""
    asked, expected = config.sharding, shares_of(config.workload, catalogue.weights())
    shares = tuple(round(share * EXPECTED) for share in expected.tolist())
    every = picoseconds(asked.rebalance, "sharding.rebalance")
    return Sharding(asked.placement, asked.home, asked.replicas, asked.router, shares, every)


def workload_of(config: Config, deployment: Deployment) -> Workload:
    """The requests for the deployment's experts."""
    catalogue = deployment.catalogue
    models = [deployment.models[group.model] for group in catalogue.groups for _ in range(group.count)]
    contexts = [model.context if isinstance(model, Shape) else IMAGE for model in models]
    for key in ("input_tokens", "output_tokens"):
        if f"workload.{key}" in config.explicit and set(contexts) == {IMAGE}:
            raise InputError(f"workload.{key}: has no effect, because no expert works on tokens")
    workload = load(config.workload, catalogue.weights(), contexts, config.seed, config.slo.shares())
    for key in ("workload.popularity", "workload.zipf_s"):
        if workload.experts_given and key in config.explicit:
            raise InputError(f"{key}: has no effect, because {workload.source} names the expert of each request")
    for key, usual in (("placement", "modulo"), ("replicas", 0)):
        if workload.experts_given and getattr(config.sharding, key) != usual:
            raise InputError(
                f"sharding.{key} = {getattr(config.sharding, key)!r}: {workload.source} names the expert of each "
                f"request, so that nothing is known beforehand of their popularity; allowed: {usual}"
            )
    if not workload.requests:
        raise InputError(
            f"workload.over_context = 'refuse': all {len(workload.refused)} requests exceed their expert's context"
        )
    return workload


def front_end_of(config: Config) -> FrontEnd:
    """The front-end before the nodes, which has sent nothing yet."""
    routing = config.routing
    return FrontEnd(POLICIES[routing.policy], View([0] * routing.nodes, Fraction(str(routing.load_bound))))


def check_routing(config: Config) -> None:
    """``InputError`` for a front-end that there cannot be, and for a key of it that has no effect."""
    routing, eviction = config.routing, config.runtime.eviction
    staleness_of(config)
    if routing.nodes > MOST_NODES:
        raise InputError(f"routing.nodes = {routing.nodes}: must be a whole number from 1 to {MOST_NODES:,}")
    if not 1 <= routing.load_bound < math.inf:
        raise InputError(f"routing.load_bound = {routing.load_bound!r}: must be a finite number of at least 1")
    for key, pointless, reason in (
        ("cluster.node_workers", routing.nodes == 1, "routing.nodes is 1"),
        # one node that is asked for is one of several choices, of a sweep or of a search
        ("routing.policy", routing.nodes == 1 and "routing.nodes" not in config.explicit, "routing.nodes is 1"),
        ("routing.staleness", routing.policy in BLIND, f"routing.policy is {routing.policy}"),
        ("routing.load_bound", routing.policy not in BOUNDED, f"routing.policy is {routing.policy}"),
    ):
        if key in config.explicit and pointless:
            raise InputError(f"{key}: has no effect, because {reason}; remove one of the two")
    if routing.nodes > 1 and eviction == "belady" and routing.policy not in BLIND:
        raise InputError(
            f"runtime.eviction = 'belady': knows which requests a node will have, which routing.policy = "
            f"{routing.policy!r} decides as it goes; allowed: another policy of either, for example {BLIND[0]}"
        )


def staleness_of(config: Config) -> Picoseconds | None:
    """Every how many ps the front-end looks at the nodes; None where its policy does not."""
    staleness = picoseconds(config.routing.staleness, "routing.staleness")
    if staleness < 1:
        raise InputError(f"routing.staleness = {config.routing.staleness!r}: must be above zero, for example '1 s'")
    return None if config.routing.policy in BLIND else staleness


def window_of(config: Config) -> int:
    """The coordinator's window in ps of virtual time."""
    if config.cluster.window == "auto":
        return MOST_PS
    window = picoseconds(config.cluster.window, "cluster.window")
    if window < 1:
        raise InputError(f"cluster.window = {config.cluster.window!r}: must be above zero, for example '60 s', or auto")
    return window

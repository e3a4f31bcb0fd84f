"""An activation by arithmetic: copying an expert from DDR to HBM, and its share of a request's time.

Nothing is copied out: weights are read-only and every expert has its home copy in DDR, so that an eviction frees HBM
and writes nothing back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cluster.config import Config, ExpertsConfig
from cluster.deploy import deployment_of
from node.deployment import Deployment
from node.errors import OutOfMemoryError
from node.estimate import Call, estimate_model
from node.spec import Machine
from node.units import seconds

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the bandwidth of the tier below HBM
HIT_RATES = (0.0, 0.5, 0.8, 0.9, 0.95, 0.99, 1.0)
Named = tuple[str, Machine]


@dataclass(frozen=True)
class Activation:
    """An expert of ``model`` on a machine: bytes over all sockets of its group, bytes of the largest shard, seconds.

    ``cannot``: why the machine has no room for one such expert; otherwise None.
    """

    machine: str
    model: str
    expert_bytes: int
    socket_bytes: int
    copy_in_s: float
    cannot: str | None = None
    copy_out_bytes: int = 0
    copy_out_s: float = 0.0


def activation(config: Config, named: Named, model: str) -> Activation:
    """One expert of ``model`` in the config's ``experts.dtype``, on the sockets of one group."""
    label, machine = named
    experts = ExpertsConfig(count=1, model=model, dtype=config.experts.dtype, router=config.experts.router)
    deployment = deployment_of(replace(config, experts=experts), machine)
    cannot = None
    try:
        deployment.check_fits()
    except OutOfMemoryError as error:
        cannot = str(error)
    size, time = deployment.settings.sizes[0].weights, seconds(deployment.activation_ps(0))
    return Activation(label, model, deployment.expert_bytes(0), size, time, cannot)


def over_bandwidth(config: Config, named: Named) -> list[tuple[float, float]]:
    """(factor, seconds): the config's first expert where the tier below HBM has so many times its bandwidth."""
    label, machine = named
    tier = "ddr" if machine.host_link is None else "host_link"
    model = config.experts.catalogue().groups[0].model
    return [
        (factor, activation(config, (label, _scaled(machine, tier, factor)), model).copy_in_s) for factor in FACTORS
    ]


def _scaled(machine: Machine, tier: str, factor: float) -> Machine:
    part = getattr(machine, tier)
    changed: dict[str, Any] = {tier: replace(part, bandwidth=part.bandwidth * factor)}
    return replace(machine, **changed)


@dataclass(frozen=True)
class Share:
    """A request alone on a machine, in seconds: R, the router's call; E, the expert's call; A, an activation."""

    machine: str
    router_s: float
    expert_s: float
    activation_s: float

    def at(self, hit_rate: float) -> float:
        """The share of request time that activations take at hit rate h: (1 - h) A / (R + E + (1 - h) A)."""
        waiting = (1 - hit_rate) * self.activation_s
        return waiting / (self.router_s + self.expert_s + waiting)


def share(config: Config, named: Named, call: Call) -> Share:
    """Of the config's first expert, for a ``call`` of its; its fixed cost is in R and in E, as ``coe run`` has it."""
    label, machine = named
    deployment = deployment_of(config, machine)
    model = deployment.catalogue.groups[0].model
    router = deployment.catalogue.router
    routing = replace(call, output_tokens=config.experts.router_tokens)
    return Share(
        machine=label,
        router_s=0.0 if router is None else _call(config, deployment, router, routing),
        expert_s=_call(config, deployment, model, call),
        activation_s=seconds(deployment.activation_ps(0)),
    )


def _call(config: Config, deployment: Deployment, model: str, call: Call) -> float:
    group = replace(deployment.machine, sockets=deployment.degree)
    runtime = config.runtime
    asked = replace(call, fusion=runtime.fusion, orchestration=runtime.orchestration)
    found = estimate_model(group, deployment.models[model], asked)
    return found.total_s - (found.call_overhead_s if runtime.call_overhead == "none" else 0.0)


def models_of(config: Config, others: Sequence[str]) -> list[str]:
    """The models of the config's experts, then the others, each once."""
    return list(dict.fromkeys((*(group.model for group in config.experts.catalogue().groups), *others)))

"""What can be configured: one frozen tree. ``config_file`` reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from cluster.front_end import POLICIES
from cluster.workload import WorkloadConfig
from node.dataflow.fusion import LEVELS
from node.errors import InputError
from node.expert import DTYPE_BYTES, Catalogue, ExpertGroup
from node.runtime.homes import HOMES, PLACEMENTS, ROUTERS
from node.runtime.policies import EVICTION
from node.runtime.scheduler import SCHEDULERS
from node.runtime.service import Service
from node.runtime.settings import CALL_OVERHEADS, PREEMPTIONS, SWITCHING
from node.units import Picoseconds, picoseconds


@dataclass(frozen=True)
class ExpertsConfig:
    """``count`` experts of one ``model`` in ``dtype``, or ``group``s of them; ``router``: a model, or ``none``.

    The router generates ``router_tokens`` tokens a call.
    """

    count: int = 150
    model: str = "llama-2-7b"
    dtype: str = "bf16"
    router: str = "llama-2-7b"
    router_tokens: int = 20
    group: tuple[ExpertGroup, ...] = ()

    def catalogue(self) -> Catalogue:
        """The catalogue that the table describes."""
        groups = self.group or (ExpertGroup(self.model, self.count, dtype=self.dtype),)
        return Catalogue(groups, None if self.router == "none" else self.router)


@dataclass(frozen=True)
class ShardingConfig:
    """``tensor_parallel``: sockets that one expert is sharded over; ``placement``: which group an expert is in.

    ``home``: whether experts have a home copy in one group or in all; ``replicas``: how many, the most popular ones,
    have one in all groups, where the others are in one. ``router``: whether every group runs the router, or group 0,
    and nothing else. ``rebalance``: every so often all groups stop, and experts move to where there is less work.
    """

    tensor_parallel: int = 8
    placement: str = "modulo"
    home: str = "one_group"
    replicas: int = 0
    router: str = "replicated"
    rebalance: str = "0 s"


@dataclass(frozen=True)
class RuntimeConfig:
    """The CoE runtime's choices. ``kv_reserve`` is over all sockets of a group; ``fairness``: see ``affinity``.

    ``prefetch``: the next expert is copied beside runs; ``partial``: a prefill begins beside the copy of its expert.
    ``pinned``: numbers of experts that are in HBM from the start and never leave it. The others stay ``min_residency``,
    and while they are waited for until they have served ``drain`` requests (0: no such bound). ``queue_limit``: most
    requests that wait in a group; ``shed_late``: one that still waits when its first token is due is turned away.
    ``prefill_chunk``: most tokens of a step that mixes prompts with answers (0: prompts by themselves). ``kv_block``:
    tokens of a page of KV cache (0: each request has a range for its whole length); ``preemption``: what becomes of the
    pages of who makes room. ``switching``: whether experts alone are switched, or compiled programs too, which have
    ``program_reserve`` of HBM over all sockets of a group.
    """

    scheduler: str = "affinity"
    batch: int = 8
    eviction: str = "lru"
    kv_reserve: str = "16 GiB"
    call_overhead: str = "per_request"
    fairness: str = "30 s"
    fusion: str = "fused"
    orchestration: str = "ho"
    prefetch: bool = False
    partial: bool = False
    pinned: tuple[int, ...] = ()
    min_residency: str = "0 s"
    drain: int = 0
    queue_limit: int | None = None
    shed_late: bool = False
    prefill_chunk: int = 0
    kv_block: int = 0
    preemption: str = "recompute"
    switching: str = "expert"
    program_reserve: str = "256 MiB"


@dataclass(frozen=True, slots=True)
class ServiceClass:
    """A class of requests, drawn in proportion to ``share``; without ``ttft`` or ``e2e`` those of ``[slo]`` hold.

    A step of ``priority`` counts as having waited ``runtime.fairness`` longer.
    """

    name: str = ""
    share: float = 1.0
    priority: int = 0
    ttft: str | None = None
    e2e: str | None = None


@dataclass(frozen=True)
class SloConfig:
    """What requests are promised: a time to first token, a time to the last; for all, and by class."""

    ttft: str | None = None
    e2e: str | None = None
    classes: tuple[ServiceClass, ...] = ()

    def services(self) -> tuple[Service, ...]:
        """The classes; one of all requests, where none is given."""
        return tuple(
            Service(one.name, one.priority, self._promise("ttft", one), self._promise("e2e", one))
            for one in self.classes or (ServiceClass("all"),)
        )

    def shares(self) -> tuple[float, ...]:
        """Of the classes, in proportion to which requests are drawn."""
        return tuple(one.share for one in self.classes) or (1.0,)

    def _promise(self, what: str, of_class: ServiceClass) -> Picoseconds | None:
        own: str | None = getattr(of_class, what)
        text, key = (getattr(self, what), f"slo.{what}") if own is None else (own, f"slo.classes.{what}")
        if text is None:
            return None
        found = picoseconds(text, key)
        if found < 1:
            raise InputError(f"{key} = {text!r}: must be above zero, for example '2 s'")
        return found


@dataclass(frozen=True)
class RoutingConfig:
    """So many equal ``nodes`` behind a front-end, which chooses one for each request by ``policy``.

    It knows of a node what was up to ``staleness`` ago, and what it has sent since. ``load_bound``: how many times the
    mean number of outstanding requests a node may have, at most, where requests follow their experts.
    """

    nodes: int = 1
    policy: str = "round_robin"
    staleness: str = "1 s"
    load_bound: float = 1.25


@dataclass(frozen=True)
class ClusterConfig:
    """How the emulator itself runs; nothing here changes a result.

    ``window`` is virtual time, or ``auto``: as much as fills a message. Where ``sockets_per_actor`` is not set it is
    one on Ray, and all of them in this process. ``node_workers``: processes that share several nodes, on Ray one for
    each CPU where it is not set.
    """

    backend: str = "ray"
    address: str | None = None
    sockets_per_actor: int | None = None
    window: str = "auto"
    node_workers: int | None = None


@dataclass(frozen=True)
class FootprintConfig:
    """``activation_limit``: an expert counts as held where activating it takes no longer."""

    activation_limit: str = "50 ms"


@dataclass(frozen=True)
class MachineConfig:
    """The machine's name or file, and by path the numbers of it that are set otherwise, as a spec has them."""

    name: str = "sn40l-node"
    numbers: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """The whole tree; ``explicit`` are the keys that the user set, and where: file or option."""

    seed: int = 0
    workload: WorkloadConfig = field(default_factory=WorkloadConfig)
    experts: ExpertsConfig = field(default_factory=ExpertsConfig)
    sharding: ShardingConfig = field(default_factory=ShardingConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    routing: RoutingConfig = field(default_factory=RoutingConfig)
    slo: SloConfig = field(default_factory=SloConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    footprint: FootprintConfig = field(default_factory=FootprintConfig)
    explicit: Mapping[str, str] = field(default_factory=dict)

    @contextmanager
    def naming_origins(self) -> Iterator[None]:
        """An ``InputError`` from within that begins with a key is told with where the key was set."""
        try:
            yield
        except InputError as error:
            key = re.split("[ :]", str(error), maxsplit=1)[0]
            table = next((one for one in TABLES if key.startswith(f"{one}.")), key)
            where = self.explicit.get(table)
            if where is None:
                raise
            raise InputError(f"{where}: {error}") from None


CHOICES: dict[str, tuple[str, ...]] = {
    "experts.dtype": tuple(DTYPE_BYTES),
    "sharding.placement": PLACEMENTS,
    "sharding.home": HOMES,
    "sharding.router": ROUTERS,
    "runtime.scheduler": tuple(SCHEDULERS),
    "runtime.eviction": tuple(EVICTION),
    "runtime.call_overhead": CALL_OVERHEADS,
    "runtime.preemption": PREEMPTIONS,
    "runtime.switching": SWITCHING,
    "runtime.fusion": LEVELS,
    "runtime.orchestration": ("ho", "so"),
    "routing.policy": tuple(POLICIES),
    "cluster.backend": ("ray", "local"),
}
COMPARED = ("sn40l-node", "dgx-a100", "dgx-h100")  # machines side by side, where no others are asked for
AT_LEAST_ONE = ("experts.count", "experts.router_tokens", "sharding.tensor_parallel", "runtime.batch",
                "runtime.queue_limit", "routing.nodes", "cluster.sockets_per_actor",
                "cluster.node_workers")  # fmt: skip
TABLES: dict[str, type] = {"experts.group": ExpertGroup, "slo.classes": ServiceClass}  # keys that are lists of tables
MOST = 10**6

"""What can be configured: one frozen tree. ``config_file`` reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from cluster.workload import WorkloadConfig
from node.dataflow.fusion import LEVELS
from node.errors import InputError
from node.expert import DTYPE_BYTES, Catalogue, ExpertGroup
from node.runtime.homes import HOMES, PLACEMENTS, ROUTERS
from node.runtime.policies import EVICTION
from node.runtime.scheduler import SCHEDULERS
from node.runtime.settings import CALL_OVERHEADS


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
    and nothing else.
    """

    tensor_parallel: int = 8
    placement: str = "modulo"
    home: str = "one_group"
    replicas: int = 0
    router: str = "replicated"


@dataclass(frozen=True)
class RuntimeConfig:
    """The CoE runtime's choices. ``kv_reserve`` is over all sockets of a group; ``fairness``: see ``affinity``.

    ``pinned``: numbers of experts that are in HBM from the start and never leave it. The others stay ``min_residency``,
    and while they are waited for until they have served ``drain`` requests (0: no such bound).
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
    pinned: tuple[int, ...] = ()
    min_residency: str = "0 s"
    drain: int = 0


@dataclass(frozen=True)
class ClusterConfig:
    """How the emulator itself runs; nothing here changes a result.

    ``window`` is virtual time, or ``auto``: as much as fills a message. Where ``sockets_per_actor`` is not set it is
    one on Ray, and all of them in this process.
    """

    backend: str = "ray"
    address: str | None = None
    sockets_per_actor: int | None = None
    window: str = "auto"


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
            where = self.explicit.get("experts.group" if key.startswith("experts.group.") else key)
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
    "runtime.fusion": LEVELS,
    "runtime.orchestration": ("ho", "so"),
    "cluster.backend": ("ray", "local"),
}
AT_LEAST_ONE = ("experts.count", "experts.router_tokens", "sharding.tensor_parallel", "runtime.batch",
                "cluster.sockets_per_actor")  # fmt: skip
MOST = 10**6

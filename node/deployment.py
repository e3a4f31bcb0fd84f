"""A catalogue on a machine: the programs of every socket, the layout of its memory, the simulation that plans it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from node.dataflow.image import Images
from node.dataflow.program import Program, compile_graph
from node.errors import InputError
from node.expert import DTYPE_BYTES, Catalogue
from node.functional.socket import ContentSocket, Range, Shards
from node.functional.store import Store
from node.hardware.host import Host
from node.hardware.rdu import Rdu
from node.models.served import Model, graph_of, part_of
from node.models.shape import Shape
from node.options import RuntimeOptions, check_options, check_pages
from node.request import Request, Requests
from node.runtime.homes import Homes, Sharding, homes_of, serving_of
from node.runtime.policies import EVICTION
from node.runtime.references import keys_by_expert
from node.runtime.scheduler import NEXT, SCHEDULERS
from node.runtime.service import order_of
from node.runtime.settings import Settings, check_lengths
from node.runtime.sharding import Layout, ModelSize, Region, groups_of, lay_out
from node.runtime.stay import Stay
from node.simulation import Simulation
from node.spec import Machine
from node.stream import Perform
from node.units import Bytes, Picoseconds


@dataclass(frozen=True)
class Deployment:
    """``catalogue`` on ``machine`` at tensor-parallel ``degree``; ``models`` by name."""

    machine: Machine
    catalogue: Catalogue
    models: Mapping[str, Model]
    degree: int
    options: RuntimeOptions = field(default_factory=RuntimeOptions)
    sharding: Sharding = field(default_factory=Sharding)

    @cached_property
    def groups(self) -> int:
        """Groups of sockets; ``InputError`` where the degree does not divide the sockets."""
        return groups_of(self.machine.sockets, self.degree)

    @cached_property
    def serving(self) -> range:
        """The groups that serve experts; ``InputError`` where the router leaves none."""
        return serving_of(self.sharding, self.groups, routed=self.catalogue.router is not None)

    @property
    def expert_programs(self) -> tuple[int, ...]:
        """Of each expert, and of the router, its program."""
        return tuple(self.settings.programs)

    @cached_property
    def rank_kinds(self) -> tuple[int, ...]:
        """Of each rank in a group, the first rank with the same shard of every model."""
        parts = [
            tuple(part_of(self.models[model], self.degree, rank) for model, _ in self.catalogue.kinds())
            for rank in range(self.degree)
        ]
        return tuple(parts.index(part) for part in parts)

    def programs(self, rank: int) -> tuple[Program, ...]:
        """The compiled programs of a rank, one per kind of the catalogue; ranks with equal shards have the same."""
        return self._by_kind[self.rank_kinds[rank]]

    def _compiled(self, rank: int) -> tuple[Program, ...]:
        options = self.options
        return tuple(
            compile_graph(
                graph_of(self.models[model], self.degree, rank, DTYPE_BYTES[dtype]),
                self.machine,
                self.degree,
                options.fusion,
                options.orchestration,
            )
            for model, dtype in self.catalogue.kinds()
        )

    def content(self, rank: int, tiers: tuple[Store, Store], shards: Shards) -> ContentSocket:
        """The content of a rank's socket: its ``tiers`` (DDR, HBM), and where experts' weights come from at first."""
        start = self.layouts[0].kv.start - self.options.workspace
        kinds = {kind: self.settings.sizes[expert].kv_token for expert, kind in enumerate(self.settings.programs)}
        return ContentSocket(
            self._compiled(rank),
            tiers,
            shards,
            Range(start, self.options.workspace),
            [kinds[kind] for kind in range(len(kinds))],
            rounds=self.options.precision == "bf16",
        )

    def socket(self, index: int) -> Rdu:
        """The socket ``index`` of the machine, new."""
        return self._rdu(f"socket {index}", self.programs(index % self.degree))

    def _rdu(self, name: str, programs: Sequence[Program]) -> Rdu:
        return Rdu(name, self.machine, programs, sharers=self.degree, partial=self.options.partial)

    @cached_property
    def _by_kind(self) -> dict[int, tuple[Program, ...]]:
        return {rank: self._compiled(rank) for rank in sorted(set(self.rank_kinds))}

    @cached_property
    def settings(self) -> Settings:
        """What the groups of the runtime need to know."""
        of_kind = []
        for programs in zip(*self._by_kind.values(), strict=True):
            weights, kv = (max(getattr(p, what) for p in programs) for what in ("weight_bytes", "kv_bytes_per_token"))
            of_kind.append(ModelSize(weights, kv, programs[0].window))
        kinds = list(self.catalogue.programs())
        router = None
        if self.catalogue.router is not None:
            router = len(kinds)
            kinds.append(self.catalogue.kinds().index((self.catalogue.router, "bf16")))
        options = self.options
        return Settings(
            scheduler=SCHEDULERS[options.scheduler],
            eviction=EVICTION[options.eviction],
            batch=options.batch,
            fairness=options.fairness,
            call_overhead=options.call_overhead,
            sizes=tuple(of_kind[kind] for kind in kinds),
            programs=tuple(kinds),
            router=router,
            router_tokens=self._router_tokens,
            next_expert=NEXT[options.scheduler] if options.prefetch else None,
            partial=options.partial,
            stay=Stay(options.min_residency, options.drain, options.fairness),
            services=options.services,
            queue_limit=options.queue_limit,
            shed_late=options.shed_late,
            prefill_chunk=options.prefill_chunk,
            kv_block=options.kv_block,
            rebalance=self.sharding.rebalance,
            swap=options.preemption == "swap",
            images=self._images,
        )

    @property
    def _router_tokens(self) -> int:
        """A router that is one pass decodes nothing: what comes of it comes with its pass, as a first token does."""
        router = self.catalogue.router
        return self.options.router_tokens if router is None or isinstance(self.models[router], Shape) else 1

    @property
    def _images(self) -> Images | None:
        unit = self.machine.kernel.configuration
        return Images(list(self._by_kind.values()), unit) if self.options.switching == "program" and unit else None

    @cached_property
    def homes(self) -> Homes:
        """Of each expert, the groups that have it."""
        weights = [size.weights for size in self.settings.sizes[: self.catalogue.count]]
        return homes_of(self.sharding, self.serving, weights, self.machine.ddr.capacity)

    @cached_property
    def layouts(self) -> tuple[Layout, ...]:
        """The memory of each group; ``OutOfMemoryError`` where the catalogue does not fit."""
        settings, groups = self.settings, range(self.groups)
        experts = settings.sizes[: self.catalogue.count]
        alone = len(self.serving) < self.groups
        router = None if settings.router is None else settings.sizes[settings.router]
        routers = [None if alone and group in self.serving else router for group in groups]
        for_programs = self.options.program_reserve if settings.images is not None else 0
        end = max(0, self.machine.hbm.capacity - for_programs)
        capacity, programs = (self.machine.ddr.capacity, end), Region(end, for_programs)
        reserve, taken = self.options.kv_reserve, self.options.workspace
        homes, pinned = self.homes, self.options.pinned
        found = [lay_out(g, homes, experts, routers[g], reserve, capacity, pinned) for g in groups]
        return tuple(replace(one, kv=Region(one.kv.start + taken, reserve - taken), programs=programs) for one in found)

    def expert_bytes(self, expert: int) -> Bytes:
        """Bytes of an expert's weights over all sockets of its group: what an activation copies."""
        kind = self.settings.programs[expert]
        return sum(self._by_kind[rank][kind].weight_bytes for rank in self.rank_kinds)

    def activation_ps(self, expert: int) -> Picoseconds:
        """Time to copy an expert from DDR to HBM: that of the group's largest shard."""
        kind = self.settings.programs[expert]
        return max(self.machine.copy_ps(p[kind].weight_bytes, self.degree) for p in self._by_kind.values())

    def check_fits(self) -> None:
        """``OutOfMemoryError`` where the catalogue does not fit; ``InputError`` where an option does not."""
        check_options(self.options, self.sharding, self.machine, self.degree)
        check_pages(self.options, self.settings.sizes)
        _ = self.layouts

    def check_lengths(self, requests: Sequence[Request]) -> None:
        """``InputError`` for a request whose KV cache, its expert's or the router's, would never fit."""
        check_lengths(Requests.of(requests), self.settings, self.options.kv_reserve - self.options.workspace)

    def simulation(self, requests: Sequence[Request], perform: Perform | None = None) -> Simulation:
        """The planner of a run of at least one request, all of which pass ``check_lengths``."""
        if not requests:
            raise InputError("the workload has no request to serve")
        self.check_lengths(requests)
        return self.planner(Requests.of(requests), perform)

    def representatives(self) -> list[list[Rdu]]:
        """By group, a new socket of each of its kinds."""
        return [
            [self._rdu(f"group {group}, rank {rank}", programs) for rank, programs in self._by_kind.items()]
            for group in range(self.groups)
        ]

    def planner(self, requests: Requests, perform: Perform | None = None) -> Simulation:
        """The planner of a run of ``requests``, maybe none, and of those that it is fed later, all checked already."""
        settings = self.settings
        if perform is not None and settings.images is not None:
            raise InputError("runtime.switching = 'program': runs with content have no images; set it to 'expert'")
        if self.options.eviction == "belady":
            order = order_of(requests, settings.services, settings.fairness)
            settings = replace(settings, future=keys_by_expert(requests, order, self.catalogue.count))
        return Simulation(self.layouts, settings, self.representatives(), Host(self.machine), requests, perform)

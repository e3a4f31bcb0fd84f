"""How full the tiers of sockets are, where experts lie, and what they need of other machines."""

from __future__ import annotations

from dashboards.frame import Dashboard, Row
from dashboards.panel import About, Query, bars, lines, number
from dashboards.promql import gauge, per_virtual_second, rate, total
from dashboards.titles import MEMORY, SWITCHING

OF_SOCKET = "node {{node}} socket {{socket}}"


def filled(what: str, tier: str) -> str:
    """Share of a tier's capacity that is in use, or was at most, by socket."""
    of_tier = f'tier="{tier}"'
    part, whole = gauge(f"coe_tier_{what}_bytes", of_tier), gauge("coe_tier_capacity_bytes", of_tier)
    return f"max by (node, socket) ({part} / {whole})"


TIERS = [
    lines(
        About(
            "HBM in use",
            "percentunit",
            """Share of each chosen socket's HBM. It is full by design: an expert stays until another one needs its
            room. Whether it is too small is told by the hit rate and by evictions, not here.""",
            next=SWITCHING,
        ),
        Query(filled("used", "hbm"), OF_SOCKET),
        most=1,
    ),
    lines(
        About(
            "DDR in use",
            "percentunit",
            """Share of each chosen socket's DDR: home copies of experts, and KV cache that was swapped out. Where it is
            full, no more experts can be held by this machine.""",
        ),
        Query(filled("used", "ddr"), OF_SOCKET),
        most=1,
    ),
    number(
        About(
            "Capacity of the chosen sockets",
            "bytes",
            "Bytes of SRAM, HBM and DDR, all chosen sockets together, as the machine's spec has them.",
        ),
        Query(total(gauge("coe_tier_capacity_bytes"), "tier"), "{{tier}}"),
    ),
    bars(
        About(
            "Most in use so far, HBM",
            "percentunit",
            "The peak of each chosen socket's HBM since the run began, as a share of its capacity.",
        ),
        Query(filled("peak", "hbm"), OF_SOCKET),
        most=1,
        levels=[(0.99, "orange")],
    ),
    bars(
        About(
            "Most in use so far, DDR",
            "percentunit",
            """The peak of each chosen socket's DDR since the run began, as a share of its capacity: the room that is
            left for more experts.""",
        ),
        Query(filled("peak", "ddr"), OF_SOCKET),
        most=1,
        levels=[(0.9, "orange"), (0.99, "red")],
    ),
    lines(
        About(
            "What had to make room, in a virtual second",
            "Bps",
            """KV cache that was swapped to DDR because pages of it ran out in HBM (runtime.preemption = swap). Where it
            is not 0, runtime.kv_reserve is too small for what runs at once.""",
        ),
        Query(per_virtual_second(total(rate("coe_socket_bytes", 'direction="hbm_to_ddr"'), "what")), "{{what}}"),
    ),
]

EXPERTS = [
    lines(
        About(
            "Copies of experts",
            "short",
            """Copies that lie in HBM, over all groups of sockets, and home copies in DDR: with sharding.replicas or
            home copies in all groups more than there are experts.""",
        ),
        Query(total(gauge("coe_experts"), "tier"), "{{tier}}"),
    ),
    number(
        About(
            "Experts",
            "short",
            "Experts of the catalogue, each counted once.",
        ),
        Query(f"max({gauge('coe_footprint_experts')})", "experts"),
    ),
]

MACHINES = [
    bars(
        About(
            "Machines that hold all experts",
            "short",
            """As coe footprint has it: how many of each machine hold the catalogue, with experts below HBM where
            activating one takes no longer than footprint.activation_limit.""",
        ),
        Query(f"max by (machine) ({gauge('coe_footprint_nodes')})", "{{machine}}"),
    ),
    bars(
        About(
            "Experts that one machine holds",
            "short",
            "By machine: in HBM, and below it (ddr: DDR of the SN40L, the host's memory of a DGX).",
        ),
        Query(f"max by (machine, tier) ({gauge('coe_footprint_held_experts')})", "{{machine}} {{tier}}"),
    ),
    bars(
        About(
            "Experts with no room in one machine's HBM",
            "short",
            """Those that have to be activated from below it when they are asked for; 0 is a machine on which nothing is
            ever switched.""",
        ),
        Query(f"max by (machine) ({gauge('coe_footprint_spilled_experts')})", "{{machine}}"),
    ),
]

DASHBOARD = Dashboard(
    *MEMORY,
    "What lies in HBM and DDR of the sockets, and how many machines of other kinds the same experts need.",
    [Row("Tiers of sockets", TIERS), Row("Experts", EXPERTS), Row("The same experts on other machines", MACHINES)],
)

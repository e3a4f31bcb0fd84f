"""What it costs that not all experts are in HBM, how often they change, and which."""

from __future__ import annotations

from dashboards.frame import Dashboard, Row
from dashboards.panel import About, Query, bars, lines, marked, states, wide
from dashboards.promql import gauge, hit_rate, increase, per_virtual_second, quantile, rate, total
from dashboards.titles import MEMORY, SOCKETS, SWITCHING

HIGH = 0.2  # as in the alert CoeSwitchShareHigh
SWITCHED = 'charge="switch"'
NAMED = 'expert!="other"'  # those that have series of their own: --metrics-experts
TOP = 10

COST = [
    lines(
        About(
            "Hit rate",
            "percentunit",
            """Share of requests whose expert was in HBM when their turn came. Where it is low, HBM holds too few of the
            experts that are asked for: see Copies of experts, and Memory footprint for what would hold more.""",
            next=MEMORY,
        ),
        Query(hit_rate(rate), "hits"),
        most=1,
    ),
    marked(
        lines(
            About(
                "Switching, share of requests' time",
                "percentunit",
                """Of the time of requests that were completed, what was waiting for an expert's copy. From 20 % on (the
                dashed line) the alert CoeSwitchShareHigh fires: look at what is copied, and at which experts come and
                go.""",
            ),
            Query(
                f"{total(rate('coe_request_time_seconds', SWITCHED))} / {total(rate('coe_request_time_seconds'))}",
                "switch",
            ),
        ),
        (HIGH, "red"),
    ),
    lines(
        About(
            "Wait for an expert's copy",
            "s",
            """How long requests that were completed waited for it, in virtual seconds. A hit waits for nothing, so p50
            is about 0 unless hits are rare.""",
        ),
        Query(quantile(0.5, "switch"), "p50 {{class}}"),
        Query(quantile(0.99, "switch"), "p99 {{class}}"),
    ),
]

COPIES = [
    lines(
        About(
            "Activations and evictions in a virtual second",
            "ops",
            """Copies of experts from DDR to HBM, and experts that left HBM. While HBM fills there are only activations;
            from then on each needs an eviction. Misses are the requests that an activation was made for: with
            runtime.prefetch there are more activations than these.""",
        ),
        Query(per_virtual_second(total(rate("coe_expert_activations"))), "activations"),
        Query(per_virtual_second(total(rate("coe_expert_evictions"))), "evictions"),
        Query(per_virtual_second(total(rate("coe_expert_misses"))), "misses"),
    ),
    lines(
        About(
            "Bytes between DDR and HBM in a virtual second",
            "Bps",
            """What DMA moves, all chosen nodes together: experts; compiled programs (runtime.switching = program); KV
            cache that is swapped (runtime.preemption = swap). By socket it is in Sockets and links.""",
            next=SOCKETS,
        ),
        Query(
            per_virtual_second(
                total(rate("coe_socket_bytes", 'direction=~"ddr_to_hbm|hbm_to_ddr"'), "direction, what")
            ),
            "{{direction}} {{what}}",
        ),
    ),
    lines(
        About(
            "Time of one activation, mean",
            "s",
            """What the copy of an expert takes by itself, in virtual seconds, waited for or not. Where requests wait
            longer than this, copies wait for each other.""",
        ),
        Query(f"{total(rate('coe_activation_seconds'))} / ({total(rate('coe_expert_activations'))} > 0)", "activation"),
    ),
]

EXPERTS = [
    bars(
        About(
            "Most activated, in the time shown",
            "short",
            """The experts that were copied to HBM most often. One that comes and goes all the time is kept by
            runtime.pinned, or by another runtime.eviction; other are all without series of their own.""",
        ),
        Query(f"topk({TOP}, {total(increase('coe_expert_activations'), 'expert')})", "expert {{expert}}"),
    ),
    bars(
        About(
            "Lowest hit rates, in the time shown",
            "percentunit",
            """Of the experts with series of their own (the most asked for, --metrics-experts), those whose requests
            found them in HBM least often.""",
        ),
        Query(f"bottomk({TOP}, {hit_rate(lambda name: increase(name, NAMED), 'expert')})", "expert {{expert}}"),
        most=1,
    ),
    bars(
        About(
            "Most evicted, in the time shown",
            "short",
            "The experts that left HBM most often, to make room for others.",
        ),
        Query(f"topk({TOP}, {total(increase('coe_expert_evictions'), 'expert')})", "expert {{expert}}"),
    ),
    wide(
        states(
            About(
                "Residency",
                "short",
                """Which of the experts with series of their own are in HBM, and when; the number is how many groups of
                sockets have a copy. Stripes are an expert that comes and goes.""",
            ),
            Query(total(gauge("coe_expert_resident", NAMED), "expert"), "expert {{expert}}"),
            {"0": ("DDR", "super-light-blue")},
            others="blue",
        ),
        width=16,
        height=10,
    ),
    wide(
        lines(
            About(
                "Copies of experts",
                "short",
                """Copies that lie in HBM, over all groups of sockets, and home copies in DDR. HBM is full where its
                line is level: it holds that many and no more.""",
                next=MEMORY,
            ),
            Query(total(gauge("coe_experts"), "tier"), "{{tier}}"),
        ),
        width=8,
        height=10,
    ),
]

DASHBOARD = Dashboard(
    *SWITCHING,
    "Experts that come to HBM and leave it: what requests wait for that, what is copied, and which experts.",
    [Row("What it costs", COST), Row("How much is copied", COPIES), Row("Which experts", EXPERTS)],
)

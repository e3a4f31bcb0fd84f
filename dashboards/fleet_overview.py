"""What requests see, and below it why."""

from __future__ import annotations

from dashboards.frame import Dashboard, Row
from dashboards.panel import About, Query, lines, marked, number
from dashboards.promql import gauge, hit_rate, increase, per_virtual_second, quantile, rate, share_of_all, total
from dashboards.titles import EMULATOR, OVERVIEW, SOCKETS, SWITCHING

PROMISED = 0.99  # the share that `coe plan` asks for, and the alerts on promises
KEPT = 'kept="yes"'

SEEN = [
    lines(
        About(
            "Requests in a virtual second",
            "reqps",
            """Requests that arrive, and how they end, in a second of the machine's own time: the same at any --pace,
            and a gap where that time stands still. They are completed, or turned away because too many waited
            (queue_full) or their first token was overdue (late). Where more arrive than end, they pile up: see Waiting
            and running.""",
        ),
        Query(per_virtual_second(total(rate("coe_requests_arrived"))), "arrived"),
        Query(per_virtual_second(total(rate("coe_requests_finished"), "outcome")), "{{outcome}}"),
    ),
    lines(
        About(
            "Tokens in a virtual second",
            "short",
            """Tokens of requests that were completed, read (input) and written (output), in a second of the machine's
            own time. A request counts when it ends, with all of its tokens.""",
        ),
        Query(per_virtual_second(total(rate("coe_tokens"), "kind")), "{{kind}}"),
    ),
    lines(
        About(
            "Time to first token",
            "s",
            """From a request's arrival to its first token, in virtual seconds, of requests that were completed. Where
            it grows and the time per token does not, requests wait: see Where requests' time goes.""",
        ),
        Query(quantile(0.5, "ttft"), "p50 {{class}}"),
        Query(quantile(0.99, "ttft"), "p99 {{class}}"),
    ),
    lines(
        About(
            "Time per further token",
            "s",
            """Between a request's first token and its last, by token, in virtual seconds. It grows with the batch, and
            where others are served in between: see the shares of decode and stall below.""",
        ),
        Query(quantile(0.5, "tpot"), "p50 {{class}}"),
        Query(quantile(0.99, "tpot"), "p99 {{class}}"),
    ),
    lines(
        About(
            "End-to-end time",
            "s",
            "From a request's arrival to its last token, in virtual seconds. What it is made of is below.",
        ),
        Query(quantile(0.5, "e2e"), "p50 {{class}}"),
        Query(quantile(0.99, "e2e"), "p99 {{class}}"),
    ),
    marked(
        lines(
            About(
                "Promises kept",
                "percentunit",
                """Share of the requests that ended, of those that were promised something ([slo] of the config), for
                which all of it was kept; one that was turned away had nothing kept. The dashed line is the 99 % that
                the alert CoeSloBurn is about.""",
                nothing="nothing was promised: [slo] of the config",
            ),
            Query(
                f"{total(rate('coe_slo_requests', KEPT), 'class')} / {total(rate('coe_slo_requests'), 'class')}",
                "{{class}}",
            ),
            most=1,
        ),
        (PROMISED, "red"),
    ),
]

CAUSES = [
    lines(
        About(
            "Where requests' time goes",
            "percentunit",
            """Of the time of requests that were completed, from arrival to end: queue (waits to be routed or served),
            switch (waits for its expert's copy to HBM), router, call_overhead (the host), prefill, decode, stall (after
            the first token, while others are served). What grows with the symptom is the cause: for switch go on to
            Expert switching, for the others to Engines busy.""",
            next=SWITCHING,
        ),
        Query(share_of_all(rate("coe_request_time_seconds"), "charge"), "{{charge}}"),
        most=1,
        stacked=True,
    ),
    lines(
        About(
            "Waiting and running",
            "short",
            """Requests in the chosen nodes: waiting to be routed or served, and running. A queue that grows while the
            engines are busy means too few nodes; where they are not, requests wait for copies or for the host: see the
            shares of switch and call_overhead.""",
        ),
        Query(total(gauge("coe_requests"), "state"), "{{state}}"),
    ),
    lines(
        About(
            "Hit rate",
            "percentunit",
            "Share of requests whose expert was in HBM when their turn came. The others had it copied from DDR.",
            next=SWITCHING,
        ),
        Query(hit_rate(rate), "hits"),
        most=1,
    ),
    lines(
        About(
            "Wait for an expert",
            "s",
            """How long requests waited for their expert's copy from DDR to HBM, in virtual seconds; a hit waits for
            nothing. Beside it is the wait in queues: the longer of the two is what makes the slowest requests slow.""",
            next=SWITCHING,
        ),
        Query(quantile(0.99, "switch"), "copy p99 {{class}}"),
        Query(quantile(0.99, "queue"), "queue p99 {{class}}"),
    ),
    lines(
        About(
            "Engines busy",
            "percentunit",
            """Share of virtual time in which a socket's tile (kernels), DMA (copies) and link (collectives) are at
            work, mean of the chosen nodes' sockets. A command counts when it is done, so a long one may take a point
            beyond 100 %. A tile that is always busy is the bottleneck.""",
            next=SOCKETS,
        ),
        Query(per_virtual_second(f"avg by (engine) ({rate('coe_socket_busy_seconds')})"), "{{engine}}"),
    ),
    number(
        About(
            "Is the machine there?",
            "short",
            """Sockets whose actor does not answer now, and actors that were lost and made anew in the time shown. While
            one is down the run waits, and virtual time stands still: no request is slower for it.""",
            next=EMULATOR,
        ),
        Query(total(f"{gauge('coe_socket_up')} == bool 0"), "sockets down"),
        Query(total(increase("coe_emulator_restarts")), "made anew"),
        levels=[(1, "red")],
    ),
]

DASHBOARD = Dashboard(
    *OVERVIEW,
    "Requests of a run, and below them the causes of what is seen.",
    [Row("What requests see", SEEN), Row("Why", CAUSES)],
)

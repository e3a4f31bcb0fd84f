"""The emulator itself, in wall time: whether it keeps up with what was asked for, and what it takes."""

from __future__ import annotations

from dashboards.frame import Dashboard, Row
from dashboards.panel import About, Query, lines, marked, number
from dashboards.promql import gauge, increase, rate, total
from dashboards.titles import EMULATOR, SOCKETS

LATE_S = 5  # as in the alert CoeEmulatorLag
OF_THE_PROCESS = f"on (job, instance) {gauge('coe_run')}"

NOW = [
    number(
        About(
            "Running", "bool_yes_no", "Whether the run goes on. What is shown after its end is what --linger keeps up."
        ),
        Query(f"max({gauge('coe_emulator_running')})", "running"),
    ),
    number(
        About(
            "Workload done, in the time shown",
            "percentunit",
            """Requests that ended, as a share of the whole workload. It is how far the run is where the time shown has
            its beginning.""",
        ),
        Query(f"{total(increase('coe_requests_finished'))} / scalar(max({gauge('coe_run_requests')}))", "done"),
    ),
    number(
        About(
            "Actors lost, in the time shown",
            "short",
            """Actors that were lost and made anew, and sockets that are down now. The run goes on to the same bytes as
            if nothing had happened; why an actor was lost is in Ray's logs.""",
            next=SOCKETS,
        ),
        Query(total(increase("coe_emulator_restarts")), "made anew"),
        Query(total(f"{gauge('coe_socket_up')} == bool 0"), "sockets down"),
        levels=[(1, "red")],
    ),
]

PACE = [
    lines(
        About(
            "Virtual seconds in a second",
            "short",
            """How fast virtual time passes, by node, and what --pace asked for (0: as fast as can be). Where it is
            less, the run falls behind: see Lag.""",
        ),
        Query(f"max by (node) ({rate('coe_virtual_time_seconds')})", "node {{node}}"),
        Query(f"max({gauge('coe_emulator_pace')})", "asked for"),
    ),
    marked(
        lines(
            About(
                "Lag",
                "s",
                """By how much the run is behind its --pace, in wall time; 0 without one. From 5 s on (the dashed line)
                the alert CoeEmulatorLag fires: ask for a lower pace, or give the emulator more processors.""",
            ),
            Query(f"max({gauge('coe_emulator_lag_seconds')})", "lag"),
        ),
        (LATE_S, "red"),
    ),
    lines(
        About(
            "Commands in a second",
            "ops",
            """Commands that the emulated sockets do in a second of wall time, of all nodes: the emulator's own speed.
            At a pace it is the workload's.""",
        ),
        Query(total(rate("coe_emulator_commands")), "commands"),
    ),
]

PROCESS = [
    lines(
        About(
            "Windows in a second",
            "ops",
            """Windows of virtual time that were checked, in a second of wall time, of all nodes. Where there are none
            and virtual time stands still, an actor does not answer: the alert CoeRunStalled.""",
        ),
        Query(total(rate("coe_emulator_windows")), "windows"),
    ),
    lines(
        About(
            "Processors taken by the coordinator",
            "short",
            """Processor time of the process that serves these metrics in a second. At 1 and with a lag, planning is the
            bottleneck; sockets in actors of their own are not in it.""",
        ),
        Query(f"rate(process_cpu_seconds_total[$__rate_interval]) * {OF_THE_PROCESS}", "coordinator"),
    ),
    lines(
        About(
            "Memory of the coordinator",
            "bytes",
            """Resident memory of the process that serves these metrics. It grows with requests (about half a KiB each),
            not with time.""",
        ),
        Query(f"process_resident_memory_bytes * {OF_THE_PROCESS}", "resident"),
    ),
    lines(
        About(
            "Time of a scrape",
            "s",
            """How long Prometheus takes to read the metrics. A scrape asks no socket: where it grows, the coordinator
            is short of processor time.""",
        ),
        Query(f"scrape_duration_seconds * {OF_THE_PROCESS}", "scrape"),
    ),
]

DASHBOARD = Dashboard(
    *EMULATOR,
    "The program that emulates, not the machine: all of it in wall time.",
    [Row("Now", NOW), Row("Pace", PACE), Row("What it takes", PROCESS)],
)

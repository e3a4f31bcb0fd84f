"""Is the timeline a Chrome trace of what the engines did, and no longer than asked for?"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.backends import LocalBackend
from cluster.config import Config
from cluster.config_file import read_config
from cluster.runner import Run, prepare, run
from cluster.timeline import Timeline
from node.events import Command, Kind, to_columns
from node.planned import Planned

NO_LIMIT = 10**6
DEGREE = 2  # 4 groups of 2 sockets
Serve = Callable[..., Run]


def config(window: str = "1 s", **more: object) -> Config:
    settings = {
        "cluster.backend": "local",
        "cluster.window": window,
        "workload.requests": 60,
        "workload.rate": 4.0,
        "experts.count": 30,
        "sharding.tensor_parallel": DEGREE,
        **more,
    }
    return read_config(None, settings.items())


@pytest.fixture(scope="module")
def serve() -> Serve:
    """``serve(limit, window)``: a run; kernels are made once for all."""
    prepared = prepare(config())

    def made(limit: int, window: str = "1 s") -> Run:
        return run(config(window), LocalBackend(), prepared, timeline_limit=limit)

    return made


@pytest.fixture(scope="module")
def runs(serve: Serve) -> dict[int, Run]:
    """Runs of one workload by the limit of their timelines."""
    return {limit: serve(limit) for limit in (0, 1, 2, 3, 100, NO_LIMIT)}


def trace(run: Run, folder: Path) -> dict[str, Any]:
    run.timeline.write(folder / "timeline.json")
    return json.loads((folder / "timeline.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture
def events(runs: dict[int, Run], tmp_path: Path) -> list[dict[str, Any]]:
    """Everything the engines did."""
    return [event for event in trace(runs[NO_LIMIT], tmp_path)["traceEvents"] if event["ph"] == "X"]


def ps(microseconds: float) -> int:
    return round(microseconds * 10**6)


def test_every_event_has_what_a_chrome_trace_needs(events: list[dict[str, Any]]) -> None:
    assert events
    for event in events:
        assert set(event) == {"name", "ph", "ts", "dur", "pid", "tid", "args"}
        assert event["pid"] in range(8) and event["tid"] in (0, 1, 2)
        assert event["ts"] >= 0 and event["dur"] > 0
        assert set(event["args"]) == {"sequence", "batch", "steps"}


def test_every_socket_and_engine_is_named(runs: dict[int, Run], tmp_path: Path) -> None:
    names = [event for event in trace(runs[0], tmp_path)["traceEvents"] if event["ph"] == "M"]
    processes = {e["pid"]: e["args"]["name"] for e in names if e["name"] == "process_name"}
    threads = {(e["pid"], e["tid"]): e["args"]["name"] for e in names if e["name"] == "thread_name"}
    assert processes == {socket: f"socket {socket}" for socket in range(8)}
    assert threads == {(socket, tid): name for socket in range(8) for tid, name in enumerate(("dma", "tile", "link"))}
    assert len(names) == len(processes) + len(threads)


def test_no_engine_does_two_things_at_once(events: list[dict[str, Any]]) -> None:
    tracks = defaultdict(list)
    for event in events:
        start = ps(event["ts"])
        tracks[event["pid"], event["tid"]].append((start, start + ps(event["dur"])))
    assert set(tracks) == {(socket, tid) for socket in range(8) for tid in (0, 1, 2)}
    for spans in tracks.values():
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))  # in order, too


def test_a_prefetch_is_shown_beside_the_runs_that_it_slows_down(tmp_path: Path) -> None:
    """No engine does two things at once, and each is as long as it was busy, but two engines are."""
    more = {"runtime.prefetch": True, "workload.rate": 20.0, "workload.popularity": "uniform"}
    altered = config("10 ms", **more)
    run_of = run(altered, LocalBackend(), prepare(altered), timeline_limit=NO_LIMIT)
    events = [event for event in trace(run_of, tmp_path)["traceEvents"] if event["ph"] == "X"]
    dma, tile = (
        [(start := ps(e["ts"]), start + ps(e["dur"])) for e in events if (e["pid"], e["tid"]) == (0, tid)]
        for tid in (0, 1)
    )
    found: Any = run_of.summary["sockets"]
    for spans, busy in ((dma, found[0]["dma_busy_s"]), (tile, found[0]["tile_busy_s"])):
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
        assert sum(end - start for start, end in spans) == round(busy * 10**12)
    assert any(copy < end and start < copied for copy, copied in dma for start, end in tile)


def test_a_track_is_as_long_as_its_engine_was_busy(runs: dict[int, Run], events: list[dict[str, Any]]) -> None:
    sockets: Any = runs[NO_LIMIT].summary["sockets"]
    for socket, found in enumerate(sockets):
        for tid, engine in enumerate(("dma", "tile", "link")):
            busy = sum(ps(e["dur"]) for e in events if (e["pid"], e["tid"]) == (socket, tid))
            assert busy == round(found[f"{engine}_busy_s"] * 10**12)
    last = max(ps(event["ts"]) + ps(event["dur"]) for event in events)
    assert last == round(float(str(runs[NO_LIMIT].summary["makespan_s"])) * 10**12)


def test_an_event_says_what_ran_for_which_expert(runs: dict[int, Run], events: list[dict[str, Any]]) -> None:
    engines = {"copy": 0, "prefill": 1, "decode": 1, "send": 2}
    experts = runs[NO_LIMIT].columns["expert"].tolist()
    for event in events:
        what, _, whose = event["name"].partition(" ")
        assert event["tid"] == engines[what]
        assert what == "send" or (event["args"]["steps"] > 0) == (what == "decode")
        assert (event["args"]["batch"] > 0) == (what != "copy")
        if whose != "router":
            assert whose.startswith("expert ") and int(whose[7:]) in experts
            assert event["pid"] // DEGREE == int(whose[7:]) % 4  # an expert lives in one group
    assert {name for event in events if (name := event["name"]).endswith("router")} == {
        "prefill router",
        "decode router",
        "send router",
    }
    copies = [event for event in events if event["name"].startswith("copy")]
    assert len(copies) == DEGREE * runs[NO_LIMIT].summary["expert_activations"]  # type: ignore[operator]


def test_all_sockets_of_a_group_have_the_same_events(events: list[dict[str, Any]]) -> None:
    def of(socket: int) -> list[dict[str, Any]]:
        return [event | {"pid": 0} for event in events if event["pid"] == socket]

    for socket in range(0, 8, DEGREE):
        assert of(socket) == of(socket + 1)
    assert of(0) != of(DEGREE)


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 100])
def test_the_first_events_are_kept_and_the_others_counted(limit: int, runs: dict[int, Run], tmp_path: Path) -> None:
    everything, found = (trace(runs[number], tmp_path) for number in (NO_LIMIT, limit))
    kept, all_of_them = ([e for e in one["traceEvents"] if e["ph"] == "X"] for one in (found, everything))
    for group in range(8 // DEGREE):  # each has its part of the room
        mine, all_of_mine = ([e for e in events if e["pid"] // DEGREE == group] for events in (kept, all_of_them))
        room = limit // (8 // DEGREE)
        assert len(mine) == room - room % DEGREE  # a command is there on all sockets of its group, or on none
        assert mine == all_of_mine[: len(mine)]
    assert found["otherData"]["events_left_out"] == len(all_of_them) - len(kept) > 0
    assert everything["otherData"]["events_left_out"] == 0


def test_an_engine_takes_one_command_at_a_time(tmp_path: Path) -> None:
    def planned(*rows: tuple[Kind, int, int]) -> Planned:
        commands = [Command(0, 0, kind, issued, symbol=4, sequences=2, steps=3) for kind, issued, _ in rows]
        return Planned(to_columns(commands), [], np.array([end for *_, end in rows]))

    timeline = Timeline(prepare(read_config(None, [("experts.count", 4)]))[0], NO_LIMIT)
    timeline.observe({0: planned((Kind.DECODE, 5, 30), (Kind.FREE, 6, 6))})
    timeline.observe({0: planned((Kind.DECODE, 7, 50), (Kind.COPY, 9, 11))})
    timeline.collected().write(tmp_path / "timeline.json")
    events = json.loads((tmp_path / "timeline.json").read_text())["traceEvents"]
    found = {
        (e["name"], e["tid"], ps(e["ts"]), ps(e["dur"]))
        for e in events
        if e["ph"] == "X" and e["pid"] == 7 and e["tid"] < 2
    }
    assert found == {("decode router", 1, 5, 25), ("decode router", 1, 30, 20), ("copy router", 0, 9, 2)}


def test_a_timeline_does_not_change_the_run(runs: dict[int, Run]) -> None:
    assert all(run.summary == runs[0].summary for run in runs.values())


@pytest.mark.parametrize("limit", [100, NO_LIMIT])
def test_the_window_does_not_change_the_timeline(
    serve: Serve, limit: int, runs: dict[int, Run], tmp_path: Path
) -> None:
    assert trace(serve(limit, "3600 s"), tmp_path) == trace(runs[limit], tmp_path)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"runtime.kv_block": 16, "runtime.preemption": "swap", "runtime.kv_reserve": "2 GiB"}, {"swap KV cache"}),
        ({"runtime.switching": "program", "runtime.program_reserve": "1 GiB"}, {"image program"}),
        ({"sharding.rebalance": "5 s"}, {"send expert", "receive expert"}),
    ],
)
def test_whatever_dma_moves_is_on_its_track(settings: dict[str, object], names: set[str], tmp_path: Path) -> None:
    also = {"workload.rate": 20.0, "workload.over_context": "clip", "experts.router": "none", "experts.count": 8}
    made = config(**also, **settings)
    found = trace(run(made, LocalBackend(), prepare(made), timeline_limit=NO_LIMIT), tmp_path)["traceEvents"]
    on_dma = {event["name"].rstrip(" 0123456789") for event in found if event["ph"] == "X" and event["tid"] == 0}
    assert on_dma == {"copy expert"} | names

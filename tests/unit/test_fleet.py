"""Do workers, lost or not, change nothing of a run of many nodes, and is it told as a whole?"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from rich.console import Console

from cluster.backends import Deployments, LocalBackend, Shell, SocketLostError
from cluster.config import Config
from cluster.config_file import read_config
from cluster.execution import MAX_RECOVERIES
from cluster.nodes.live import Live
from cluster.nodes.node import State
from cluster.nodes.shell import NodeShell
from cluster.requests_table import write_requests
from cluster.runner import Run, notes, prepare, run
from cluster.show_run import run_table
from cluster.socket_actor import SocketShell
from cluster.sweep.tasks import solve
from cluster.wire import pack, unpack
from node.errors import InputError

SMALL = {
    "cluster.backend": "local",
    "workload.requests": 150,
    "workload.rate": 9.0,
    "experts.count": 60,
    "routing.nodes": 4,
    "routing.policy": "least_loaded",
}
Died = tuple[str, int, int]  # operation, worker, the how manieth of them


def config(**settings: object) -> Config:
    named = {key.replace("__", "."): value for key, value in settings.items()}
    return read_config(None, {**SMALL, **named}.items())


def serve(
    settings: Config, backend: LocalBackend | None = None, watch: Callable[[State], None] = lambda _state: None
) -> Run:
    return run(settings, backend or LocalBackend(), prepare(settings), Live(watch), timeline_limit=400)


def of_workers(settings: Config, workers: int) -> Config:
    """On Ray the key is allowed; here, in one process, it makes so many shells."""
    return dataclasses.replace(settings, cluster=dataclasses.replace(settings.cluster, node_workers=workers))


def outcome(found: Run, folder: Path) -> tuple[object, ...]:
    """Everything that is written of a run."""
    found.timeline.write(folder / "timeline.json")
    columns = {name: column.tobytes() for name, column in found.columns.items()}
    residents = [part.tobytes() for part in vars(found.residents).values() if isinstance(part, np.ndarray)]
    return json.dumps(found.summary), columns, (folder / "timeline.json").read_bytes(), residents


@pytest.fixture(scope="module")
def undisturbed() -> Run:
    return serve(config())


class Losing(LocalBackend):
    """Shells that die when they are asked for something for the n-th time; counts what they are asked for."""

    def __init__(self, *deaths: Died) -> None:
        super().__init__()
        self.deaths, self.done, self.shells = deaths, Counter[tuple[str, int]](), set[type[Shell]]()

    def _step(self, operation: str, actor: int) -> None:
        self.done[operation, actor] += 1
        if (operation, actor, self.done[operation, actor]) in self.deaths:
            self._shells.pop(actor, None)
        elif operation == "start" or actor in self._shells:
            return
        raise SocketLostError(f"{operation} {actor}")

    def start(
        self, actor: int, deployments: Deployments, checkpoint: bytes | None, shell: type[Shell] = SocketShell
    ) -> None:
        self._step("start", actor)
        self.shells.add(shell)
        super().start(actor, deployments, checkpoint, shell)

    def submit(self, actor: int, message: bytes) -> None:
        self._step("submit", actor)
        super().submit(actor, message)

    def collect(self, actor: int) -> bytes:
        self._step("collect", actor)
        return super().collect(actor)


@pytest.mark.parametrize("policy", ["round_robin", "expert_affinity"])
@pytest.mark.parametrize("workers", [2, 3, 4, 9])
def test_so_many_workers_change_nothing(workers: int, policy: str, tmp_path: Path) -> None:
    settings = config(routing__policy=policy)
    backend = Losing()
    found = serve(of_workers(settings, workers), backend)
    assert outcome(found, tmp_path) == outcome(serve(settings), tmp_path)
    assert backend.shells == {NodeShell} and len({actor for _, actor in backend.done}) == min(workers, 4)


@pytest.mark.parametrize("window", ["10 ms", "7 s"])
def test_windows_change_nothing(window: str, undisturbed: Run, tmp_path: Path) -> None:
    assert outcome(serve(config(cluster__window=window)), tmp_path) == outcome(undisturbed, tmp_path)


def test_full_windows_change_nothing(undisturbed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, told_more = Losing(), Losing()
    serve(config(), told)
    monkeypatch.setattr("cluster.coordinator.MOST_COMMANDS", 20)
    assert outcome(serve(config(), told_more), tmp_path) == outcome(undisturbed, tmp_path)
    assert told_more.done["submit", 0] > told.done["submit", 0] + 10


@pytest.mark.parametrize(
    "deaths",
    [
        [("collect", 0, 1)],
        [("submit", 1, 1)],
        [("collect", 1, 5), ("submit", 0, 9)],
        [("collect", 2, 4), ("collect", 2, 5), ("submit", 2, 8), ("start", 2, 3)],
        [("collect", 0, 17)],
    ],
)
def test_workers_that_are_lost_change_nothing(deaths: list[Died], undisturbed: Run, tmp_path: Path) -> None:
    backend = Losing(*deaths)
    assert outcome(serve(of_workers(config(), 3), backend), tmp_path) == outcome(undisturbed, tmp_path)
    assert sum(count for (what, _), count in backend.done.items() if what == "start") >= 3 + len(deaths)


def test_a_worker_that_is_lost_when_all_is_done_changes_nothing(undisturbed: Run, tmp_path: Path) -> None:
    whole = Losing()
    serve(of_workers(config(), 2), whole)
    backend = Losing(("collect", 1, whole.done["collect", 1]))  # of the outcomes
    assert outcome(serve(of_workers(config(), 2), backend), tmp_path) == outcome(undisturbed, tmp_path)


def test_a_worker_that_is_always_lost_ends_the_run() -> None:
    backend = Losing(*(("collect", 0, n) for n in range(1, 40)))
    with pytest.raises(SocketLostError):
        serve(config(), backend)
    assert backend.done["start", 0] == 1 + MAX_RECOVERIES


def test_nothing_is_said_where_nothing_is_to_be_done() -> None:
    """Requests an hour apart: each is over long before the next, and nobody else has anything to do."""
    backend = Losing()
    serve(of_workers(config(workload__rate=1 / 3600, workload__requests=12), 4), backend)
    assert sum(count for (what, _), count in backend.done.items() if what == "submit") <= 12 + 2 * 4


def test_a_message_takes_a_node_no_further_than_it_says(undisturbed: Run) -> None:
    deployment, workload = prepare(config())
    rows = np.array(workload.requests.columns()[1:])
    plan = {"window": 10**15, "sockets_per_actor": 8, "experts": np.arange(2), "events": 0}
    shell = NodeShell({3: deployment}, pack({"plan": plan, "given": {3: rows[:, :5]}}))
    until = int(rows[0, 4])
    state = unpack(shell.execute(pack({"feed": {}, "until": until})))["nodes"][3]
    assert state["now"] < until and state["outstanding"] == 5 - state["completed"] > 0
    while not state["there"]:
        state = unpack(shell.execute(pack({"feed": {}, "until": until})))["nodes"][3]
    fed = unpack(shell.execute(pack({"feed": {3: rows[:, 5:9]}, "until": 2**63})))["nodes"][3]
    assert fed["completed"] + fed["outstanding"] == 9


def test_progress_is_that_of_all_nodes() -> None:
    seen: list[State] = []
    found = serve(of_workers(config(), 2), watch=seen.append)
    assert [state.completed for state in seen] == sorted(state.completed for state in seen)
    assert seen[-1].completed == 150 == seen[-1].hits + seen[-1].misses
    assert seen[-1].now == round(float(str(found.summary["makespan_s"])) * 10**12)
    assert all(state.completed < 150 for state in seen[:3])


def test_virtual_time_that_passes_its_end_is_the_users_mistake() -> None:
    settings = config(workload__requests=40, **{"machine__host.call_overhead": "3000000 s"})
    with pytest.raises(InputError, match="virtual time passes"):
        serve(settings)


# The whole


def test_energy_and_cost_are_those_of_all_nodes_for_the_whole_run() -> None:
    found = serve(config(**{"machine__cost_per_hour": 7.5, "workload__requests": 5}))
    makespan = float(str(found.summary["makespan_s"]))
    assert found.summary["energy_j"] == pytest.approx(4 * 8 * 630 * makespan)
    assert found.summary["cost"] == pytest.approx(4 * 7.5 * makespan / 3600)


def test_utilisation_is_the_share_of_the_makespan_that_a_node_has_a_task() -> None:
    """One request on each of two nodes, without a router: busy from its start to its end."""
    settings = config(routing__nodes=2, workload__requests=2, experts__router="none", workload__arrivals="fixed")
    found = serve(settings)
    nodes, makespan = found.summary["nodes"], float(str(found.summary["makespan_s"])) * 1e12
    assert isinstance(nodes, list) and found.columns["node"].tolist() == [0, 1]
    busy = (found.columns["e2e"] - found.columns["queue"]).tolist()
    assert [one["utilisation"] for one in nodes] == pytest.approx([time / makespan for time in busy])


def test_utilisation_is_the_mean_of_the_groups_of_a_node() -> None:
    """All requests are for one expert, so that of each node's two groups one is at work."""
    settings = {"experts__router": "none", "workload__requests": 4, "experts__count": 1}
    whole = serve(config(**settings, sharding__tensor_parallel=4))
    nodes, makespan = whole.summary["nodes"], float(str(whole.summary["makespan_s"])) * 1e12
    assert isinstance(nodes, list) and set(whole.columns["group"].tolist()) == {0}
    assert [one["utilisation"] for one in nodes] == pytest.approx((whole.columns["e2e"] / makespan / 2).tolist())


def test_what_was_in_hbm_is_that_of_all_groups_of_all_nodes() -> None:
    found = serve(config(sharding__tensor_parallel=4))
    peaks, sockets = found.residents.hbm_peak.max(axis=1), found.summary["sockets"]
    assert isinstance(sockets, list) and len(peaks) == 4 * 2
    assert peaks.tolist() == [sockets[4 * group]["hbm_peak_bytes"] for group in range(8)]
    assert int(found.residents.activations.sum()) == found.summary["expert_activations"]
    assert 1 < found.residents.resident.max() <= 60


def test_latencies_of_nodes_leave_out_the_warmup() -> None:
    found = serve(config(workload__warmup=100))
    nodes, node = found.summary["nodes"], found.columns["node"][100:]
    assert isinstance(nodes, list)
    for number, one in enumerate(nodes):
        times = np.sort(found.columns["ttft"][100:][node == number])
        assert one["ttft_s"]["p99"] == times[-(-99 * len(times) // 100) - 1] / 10**12


def test_a_run_of_one_node_is_as_before() -> None:
    found = serve(config(routing__nodes=1))
    assert "nodes" not in found.summary and "node" not in found.columns and found.others.node is None


def test_the_table_names_nodes_and_numbers_sockets_through(undisturbed: Run) -> None:
    console = Console(record=True, width=120)
    run_table(console, undisturbed)
    text = console.export_text()
    assert "4 x SambaNova SN40L node" in text and "24-31" in text and "TTFT p99" in text
    assert [line.split()[:1] for line in text.splitlines() if line[:1].isdigit() and "%" in line][:4] == [
        ["0"], ["1"], ["2"], ["3"],
    ]  # fmt: skip


def test_the_timeline_has_all_sockets_and_no_more_events_than_asked_for(undisturbed: Run, tmp_path: Path) -> None:
    undisturbed.timeline.write(tmp_path / "timeline.json")
    trace = json.loads((tmp_path / "timeline.json").read_text())
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert {event["pid"] for event in events} == set(range(32)) and 300 < len(events) <= 400
    assert trace["otherData"]["events_left_out"] > 0


def test_one_who_is_turned_away_has_a_node_and_one_who_is_refused_has_none(tmp_path: Path) -> None:
    settings = {"workload__over_context": "refuse", "workload__rate": 90.0, "runtime__queue_limit": 3}
    found = serve(config(**settings))
    write_requests(found.columns, found.others, tmp_path / "requests.parquet")
    rows = pyarrow.parquet.read_table(tmp_path / "requests.parquet").to_pylist()
    outcomes = {row["outcome"] for row in rows}
    nodes = {what: {row["node"] for row in rows if row["outcome"] == what} for what in outcomes}
    assert nodes == {"completed": {0, 1, 2, 3}, "queue_full": {0, 1, 2, 3}, "refused": {None}}


def test_a_note_of_overload_counts_nodes() -> None:
    found = serve(config(workload__rate=2000.0))
    assert any(note.startswith("4 sn40l-node do not keep up") for note in notes(found, "run"))


def test_a_point_of_a_sweep_costs_what_all_nodes_cost() -> None:
    found = solve(config(**{"machine__cost_per_hour": 7.5, "workload__requests": 8}))
    assert (found["sockets"], found["cost_per_hour"]) == (32, 30.0)


# What cannot be


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"routing__nodes": 1001}, "--set: routing.nodes = 1001: must be a whole number from 1 to 1,000"),
        ({"routing__staleness": "0 s"}, "--set: routing.staleness = '0 s': must be above zero, for example '1 s'"),
        ({"routing__staleness": "soon"}, "--set: routing.staleness = 'soon'"),
        (
            {"routing__policy": "round_robin", "routing__staleness": "2 s"},
            "--set: routing.staleness: has no effect, because routing.policy is round_robin; remove one of the two",
        ),
        (
            {"routing__load_bound": 2.0},
            "--set: routing.load_bound: has no effect, because routing.policy is least_loaded; remove one of the two",
        ),
        (
            {"routing__policy": "expert_affinity", "routing__load_bound": 0.99},
            "--set: routing.load_bound = 0.99: must be a finite number of at least 1",
        ),
        (
            {"routing__policy": "expert_affinity", "routing__load_bound": float("inf")},
            "--set: routing.load_bound = inf: must be a finite number of at least 1",
        ),
        ({"runtime__eviction": "belady"}, "--set: runtime.eviction = 'belady': knows which requests a node will have"),
    ],
)
def test_a_front_end_that_cannot_be_is_one_line(settings: dict[str, object], said: str) -> None:
    with pytest.raises(InputError) as caught:
        prepare(config(**settings))
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


def test_what_one_node_makes_pointless_is_an_error_unless_it_is_asked_for() -> None:
    few = {"cluster.backend": "local", "workload.requests": 3}
    with pytest.raises(InputError, match=r"^--set: routing.policy: has no effect, because routing.nodes is 1"):
        prepare(read_config(None, {**few, "routing.policy": "least_loaded"}.items()))
    assert prepare(read_config(None, {**few, "routing.policy": "least_loaded", "routing.nodes": 1}.items()))
    with pytest.raises(InputError, match=r"^--set: cluster.node_workers: has no effect, because routing.nodes is 1"):
        prepare(read_config(None, {"workload.requests": 3, "cluster.node_workers": 2}.items()))

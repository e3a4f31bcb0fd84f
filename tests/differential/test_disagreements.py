"""Is a socket that does anything else than was planned found out, wherever the fault is? Law 5 of the design."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest

from cluster.backends import Backend, Deployments, LocalBackend
from cluster.config_file import read_config
from cluster.disagreement import DisagreementError
from cluster.runner import Run, prepare, run
from cluster.wire import pack, unpack
from node.deployment import Deployment
from node.events import COLUMNS, Ints, Kind
from node.spec import Machine

SHARD = 1_685_069_824  # bytes of llama-2-7b on one of 8 sockets
SETTINGS = {
    "cluster.backend": "local",
    "cluster.window": "2 s",
    "experts.count": 12,
    "machine.ddr.capacity": f"{12 * SHARD} B",  # the experts and not a byte more
    "machine.hbm.capacity": f"{SHARD + 2 * 2**30 + 3 * SHARD} B",  # router, KV cache and 3 experts
    "workload.requests": 16,
    "workload.rate": 2.0,
}
ROW = {name: index for index, name in enumerate(COLUMNS)}
Change = Callable[[Ints, int], Ints]  # of a column in a window of columns
Other = Callable[[Deployment], Deployment]


@dataclass
class Tampered(LocalBackend):
    """Alters the deployment of ``socket``, the commands that it is sent, or the results that it sends.

    ``stream`` and ``result`` are given the window's number, from 1, and its columns.
    """

    socket: int = 3
    deployment: Other = lambda deployment: deployment
    stream: Callable[[int, Ints], Ints | None] = lambda _window, columns: columns
    result: Callable[[int, Ints], Ints] = lambda _window, columns: columns

    def __post_init__(self) -> None:
        super().__init__()
        self.sent = self.collected = 0

    def start(self, actor: int, deployments: Deployments, checkpoint: bytes | None) -> None:
        own = {index: self.deployment(one) if index == self.socket else one for index, one in deployments.items()}
        super().start(actor, own, checkpoint)

    def submit(self, actor: int, message: bytes) -> None:
        window = unpack(message)
        if actor == self.socket and len(window["streams"]) == 1:
            self.sent += 1
            columns = self.stream(self.sent, window["streams"].pop(0))
            window["streams"] = {} if columns is None else {0: np.ascontiguousarray(columns)}
        super().submit(actor, pack(window))

    def collect(self, actor: int) -> bytes:
        reply = unpack(super().collect(actor))
        if actor == self.socket:
            self.collected += 1
            for socket, columns in reply["results"].items():
                reply["results"][socket] = self.result(self.collected, columns)
        return pack(reply)


def serve(backend: Backend, **settings: object) -> Run:
    named = {key.replace("__", "."): value for key, value in settings.items()}
    config = read_config(None, {**SETTINGS, **named}.items())
    return run(config, backend, prepare(config))


def found_out(backend: Tampered, **settings: object) -> str:
    """The error's text, which names the socket and shows what was planned."""
    with pytest.raises(DisagreementError) as caught:
        serve(backend, **settings)
    text = str(caught.value)
    assert text.startswith((f"socket {backend.socket} disagrees with the plan: ", f"socket {backend.socket} refused "))
    assert "\n  planned:\n     " in text
    return text


@pytest.fixture(scope="module")
def windows() -> list[Ints]:
    """The windows of commands of an honest run."""
    seen: list[Ints] = []

    def see(_window: int, columns: Ints) -> Ints:
        seen.append(columns)
        return columns

    assert serve(Tampered(stream=see)).summary == serve(LocalBackend()).summary
    assert len(seen) >= 4
    return seen


def other(table: str, **changes: Callable[[Any], Any]) -> Other:
    """A deployment in which numbers of the machine's ``table`` are changed."""

    def change(deployment: Deployment) -> Deployment:
        old = getattr(deployment.machine, table)
        new = replace(old, **{name: how(getattr(old, name)) for name, how in changes.items()})
        return replace(deployment, machine=replace(deployment.machine, **{table: new}))

    return change


def at(window: int, column: int, change: Change) -> Callable[[int, Ints], Ints]:
    """``change`` of one column (from the end if negative) of one window."""
    return lambda number, columns: change(columns, column % columns.shape[1]) if number == window else columns


def dropped(columns: Ints, column: int) -> Ints:
    return np.delete(columns, column, axis=1)


def doubled(columns: Ints, column: int) -> Ints:
    return np.insert(columns, column, columns[:, column], axis=1)


def swapped(columns: Ints, column: int) -> Ints:
    order = np.arange(columns.shape[1])
    order[[column - 1, column]] = order[[column, column - 1]]
    return columns[:, order]


def renumbered(change: Change) -> Change:
    """``change``, hidden behind sequence numbers without a gap."""

    def changed(columns: Ints, column: int) -> Ints:
        altered = change(columns, column).copy()
        altered[ROW["sequence"]] = np.arange(altered.shape[1]) + columns[ROW["sequence"], 0]
        return altered

    return changed


# The four of law 5


def moved(_window: int, columns: Ints) -> Ints:
    """64 bytes on with the fourth range of KV cache in a window."""
    ranges = np.flatnonzero((columns[ROW["kind"]] == Kind.ALLOCATE) & (columns[ROW["symbol"]] > 12))
    columns[ROW["address"], ranges[3:4]] += 64
    return columns


SLOWER_DMA = {"deployment": other("ddr", bandwidth=lambda rate: rate * 0.99)}
LAW_5: dict[str, dict[str, Any]] = {
    "a slower DMA": SLOWER_DMA,
    "an altered address": {"stream": moved},
    "a dropped command": {"stream": at(1, 5, dropped)},
    "HBM one expert too small": {"deployment": other("hbm", capacity=lambda size: size - SHARD)},
    "DDR one expert too small": {"deployment": other("ddr", capacity=lambda size: size - SHARD)},
}


@pytest.mark.parametrize("name", LAW_5)
@pytest.mark.parametrize("socket", [0, 7])
def test_each_fault_of_law_5_is_found_out_and_names_its_socket(name: str, socket: int) -> None:
    found_out(Tampered(socket=socket, **LAW_5[name]))


@pytest.mark.parametrize("name", LAW_5)
def test_each_fault_of_law_5_is_shown_with_both_histories(name: str) -> None:
    _, shown, found = found_out(Tampered(**LAW_5[name])).partition("\n  found:\n")
    assert shown and found.startswith("     ")


@pytest.mark.parametrize("command", [0, 5, 14])
def test_a_refusal_shows_the_plan_up_to_the_command_refused(command: int) -> None:
    text = found_out(Tampered(stream=at(1, command, dropped)))
    assert text.startswith(f"socket 3 refused what was planned: command {command}: socket 3 never got it\n")
    shown = [line.split()[0] for line in text.partition("  found:")[0].splitlines()[2:]]
    assert shown == [str(number) for number in range(max(0, command - 6), command + 1)]


def test_a_slower_dma_is_found_out_at_its_first_copy(windows: list[Ints]) -> None:
    copy = next(column for columns in windows for column in columns.T if column[ROW["kind"]] == Kind.COPY)
    planned = int(copy[ROW["issued"]]) + 13_589_272_775
    text = found_out(Tampered(**SLOWER_DMA))
    assert f"command {copy[ROW['sequence']]}: time planned {planned:,}, found {planned + 137_265_381:,}" in text


@pytest.mark.parametrize("socket", range(8))
def test_any_socket_of_any_group_and_actor_is_found_out(socket: int) -> None:
    room = {"machine__hbm__capacity": "20 GiB", "machine__ddr__capacity": "1 TiB"}
    found_out(Tampered(socket=socket, **SLOWER_DMA), **room, sharding__tensor_parallel=4, cluster__sockets_per_actor=3)


# Sockets that are a little slower or smaller


@pytest.mark.parametrize(
    "deployment",
    [
        other("hbm", bandwidth=lambda rate: rate * 0.99),
        other("kernel", sync=lambda time: time + 1e-12),
        other("kernel", launch_ho=lambda time: time + 1e-12),
        other("ddr", bandwidth=lambda rate: rate * (1 - 7e-11)),  # a copy takes 1 ps more
    ],
)
def test_a_socket_of_any_other_speed_is_found_out(deployment: Other) -> None:
    assert "disagrees with the plan: command " in found_out(Tampered(deployment=deployment))


class Unfair(Machine):
    """Its kernels get a little more of HBM beside a copy than they should."""

    def hbm_share(self, sharers: int) -> float:
        return min(1.0, super().hbm_share(sharers) + self.more)


@pytest.mark.parametrize("more", [1.0, 0.001])
def test_a_socket_that_does_not_share_hbm_as_it_should_is_found_out(more: float) -> None:
    def unfair(deployment: Deployment) -> Deployment:
        machine = Unfair(**{entry.name: getattr(deployment.machine, entry.name) for entry in fields(Machine)})
        object.__setattr__(machine, "more", more)
        return replace(deployment, machine=machine)

    busy = {"workload__rate": 20.0, "workload__popularity": "uniform"}
    assert serve(Tampered(deployment=unfair), **busy).summary == serve(LocalBackend(), **busy).summary
    assert serve(LocalBackend(), **busy, runtime__prefetch=True).summary["prefetches"] > 3
    text = found_out(Tampered(deployment=unfair), **busy, runtime__prefetch=True)
    assert re.search(r"disagrees with the plan: command \d+: time planned ", text)


@pytest.mark.parametrize("tier", ["hbm", "ddr"])
def test_a_byte_too_few_is_found_out(tier: str) -> None:
    text = found_out(Tampered(deployment=other(tier, capacity=lambda size: size - 1)))
    assert f"{tier.upper()} of socket 3: " in text and "is out of range: capacity " in text


@pytest.mark.parametrize("field", ["time", "address", "bytes", "occupancy"])
@pytest.mark.parametrize(("window", "command", "by"), [(1, 0, 1), (1, 15, -1), (2, 3, 1), (4, -1, 1)])
def test_any_result_off_by_one_is_found_out(
    field: str, window: int, command: int, by: int, windows: list[Ints]
) -> None:
    def change(results: Ints, column: int) -> Ints:
        results[("time", "address", "bytes", "occupancy").index(field), column] += by
        return results

    sequence = windows[window - 1][ROW["sequence"], command]
    assert f"command {sequence}: {field} planned " in found_out(Tampered(result=at(window, command, change)))


# Altered streams


@pytest.mark.parametrize("change", [dropped, doubled, swapped])
@pytest.mark.parametrize(("window", "command"), [(1, 0), (1, 13), (2, 1), (0, -1)])  # 0: the last one
@pytest.mark.parametrize("hidden", [False, True])
def test_a_stream_of_other_commands_is_found_out(
    change: Change, window: int, command: int, hidden: bool, windows: list[Ints]
) -> None:
    window = window or len(windows)
    backend = Tampered(stream=at(window, command, renumbered(change) if hidden else change))
    found_out(backend)
    assert backend.collected == window  # at once, not when it comes to a head


def test_a_stream_that_is_missing_as_a_whole_is_found_out() -> None:
    found_out(Tampered(stream=lambda window, columns: None if window == 2 else columns))


def test_a_command_more_than_planned_is_found_out(windows: list[Ints]) -> None:
    def one_more(columns: Ints, column: int) -> Ints:
        extra = columns[:, column].copy()
        extra[ROW["sequence"]] += 1
        extra[ROW["kind"]], extra[ROW["symbol"]], extra[ROW["tier"]] = Kind.ALLOCATE, 999, 1
        extra[ROW["address"]], extra[ROW["size"]] = SHARD + 2 * 2**30 - 64, 64  # at the end of the KV cache
        return np.append(columns, extra[:, None], axis=1)

    text = found_out(Tampered(stream=at(len(windows), -1, one_more)))
    assert f"{windows[-1].shape[1]} commands were planned, {windows[-1].shape[1] + 1} were done" in text


def test_a_command_for_a_group_that_has_none_is_found_out() -> None:
    room = {"machine__hbm__capacity": "20 GiB", "machine__ddr__capacity": "1 TiB", "sharding__tensor_parallel": 4}
    sent: list[dict[int, Ints]] = []  # what socket 0 of 2 groups is sent by window, and what it is sent in the last

    class Meddling(LocalBackend):
        def submit(self, actor: int, message: bytes) -> None:
            window = unpack(message)
            if actor == 0:
                sent.append(window["streams"])
                if len(sent) == count:
                    before = [streams[0] for streams in sent if 0 in streams]
                    done = sum(columns.shape[1] for columns in before)
                    window["streams"][0] = before[0][:, :1].copy()  # a LOAD, once more, elsewhere
                    window["streams"][0][[ROW["sequence"], ROW["symbol"]], 0] = done, 999
                    window["streams"][0][ROW["address"], 0] = 2**39
            super().submit(actor, pack(window))

    count = 0
    serve(Meddling(), **room)
    count = max(number for number, streams in enumerate(sent, 1) if 0 not in streams)
    assert all(0 not in streams for streams in sent[count - 1 :])
    sent.clear()
    with pytest.raises(DisagreementError, match=r"^socket 0 "):
        serve(Meddling(), **room)


MEMORY = "sequence kind issued tier symbol address size"
FIELDS = {
    Kind.LOAD: MEMORY,
    Kind.ALLOCATE: MEMORY,
    Kind.FREE: MEMORY,
    Kind.COPY: "sequence kind issued symbol address size source program",
    Kind.PREFILL: "sequence kind issued symbol address program tokens pairs sequences",
    Kind.DECODE: "sequence kind issued symbol address program context sequences growth steps",
}
ALTERED: dict[str, Callable[[int], int]] = {
    **dict.fromkeys(COLUMNS, lambda value: value + 1),
    **dict.fromkeys(("tokens", "pairs", "context", "sequences"), lambda value: 3 * value),
    "kind": lambda value: (value + 1) % 5,
    "tier": lambda value: 1 - value,
    "program": lambda _: 5,
}


@pytest.mark.parametrize(
    ("kind", "field"),
    [(kind, field) for kind, fields in FIELDS.items() for field in fields.split()],
)
def test_a_field_that_is_altered_is_found_out(kind: Kind, field: str, windows: list[Ints]) -> None:
    """In the command of its kind with the most to read, so that a change of its work shows."""
    everything = np.concatenate(windows, axis=1)
    of_kind = everything[:, everything[ROW["kind"]] == kind]
    sequence = of_kind[ROW["sequence"], np.argmax(of_kind[ROW["context"]])]

    def change(_window: int, columns: Ints) -> Ints:
        it = columns[ROW["sequence"]] == sequence
        columns[ROW[field], it] = ALTERED[field](columns[ROW[field], it])
        return columns

    found_out(Tampered(stream=change))


def test_the_first_command_that_went_otherwise_is_told() -> None:
    def change(window: int, columns: Ints) -> Ints:
        if window == 1:
            columns[ROW["size"], 2] -= 1  # of the third expert in DDR
            columns = dropped(columns, 9)
        return columns

    assert "command 2: bytes planned " in found_out(Tampered(stream=change))

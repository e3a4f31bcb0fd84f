"""Is a socket that does anything else than was planned found out, wherever the fault is? Law 5 of the design."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from cluster.backends import LocalBackend
from node.deployment import Deployment
from node.events import Ints, Kind
from node.spec import Machine
from tests.differential.tampering import (
    ROW,
    SHARD,
    Other,
    Tampered,
    at,
    dropped,
    found_out,
    other,
    serve,
)


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

"""Is a socket that was sent other commands than planned found out, whatever is other about them?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cluster.backends import LocalBackend
from cluster.disagreement import DisagreementError
from cluster.wire import pack, unpack
from node.events import COLUMNS, Ints, Kind
from tests.differential.tampering import (
    ROW,
    SHARD,
    Change,
    Tampered,
    at,
    doubled,
    dropped,
    found_out,
    renumbered,
    serve,
    swapped,
)


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

"""Is a window that is done at once what it is command by command, legal or not, whatever the ranges are?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.dataflow.program import compile_graph
from node.errors import RefusedError
from node.events import Command, Ints, Kind, Tier, to_columns
from node.hardware import rdu as rdus
from node.hardware.rdu import Rdu
from node.models.decoder import decoder
from node.models.shape import Shape
from node.spec_file import load_machine

SHAPE = Shape("a", 1, 64, 8, 8, 8, 200, 90, 512)
PROGRAM = compile_graph(decoder(SHAPE, 1), load_machine("sn40l-node"), 1, "fused", "ho")
SIZE = PROGRAM.weight_bytes
ROOM = 4 * SIZE  # of each tier
MACHINE = load_machine("sn40l-node", {"ddr.capacity": f"{ROOM} B", "hbm.capacity": f"{ROOM} B"})
EXPERTS = (0, 1)
KV = tuple(range(10, 16))

ADDRESSES = st.sampled_from([0, SIZE, 2 * SIZE, 3 * SIZE, 2 * SIZE + 64, ROOM - 10, -1])
SIZES = st.sampled_from([SIZE, 64, 65, SIZE // 2, 0])


@st.composite
def commands(draw: st.DrawFn) -> list[Command]:
    """Mostly legal by themselves, in any order: most sequences go wrong somewhere, many of them late."""
    made: list[Command] = []

    def add(kind: Kind, **fields: int) -> None:
        made.append(Command(len(made), 0, kind, **fields))

    for expert in EXPERTS:
        add(Kind.LOAD, issued=0, tier=Tier.DDR, symbol=expert, address=expert * SIZE, size=SIZE)
    now, where = 0, {}
    for _ in range(draw(st.integers(0, 30))):
        now += draw(st.sampled_from([0, 10**6, 10**12]))
        what = draw(st.sampled_from(["begin", "begin", "end", "end", "copy", "run", "run"]))
        symbol = draw(st.sampled_from(EXPERTS if what in ("copy", "run") else (*EXPERTS, *KV)))
        address, size = where.get(symbol, (None, None))
        if address is None or draw(st.integers(0, 30)) == 0:
            address, size = draw(ADDRESSES), SIZE if symbol in EXPERTS else draw(SIZES)
        if what == "begin" and (symbol not in where or draw(st.integers(0, 20)) == 0):
            where[symbol] = (address, size)
            add(Kind.ALLOCATE, issued=now, tier=Tier.HBM, symbol=symbol, address=address, size=size)
        elif what == "end" and (symbol in where or draw(st.integers(0, 20)) == 0):
            where.pop(symbol, None)
            add(Kind.FREE, issued=now, tier=Tier.HBM, symbol=symbol, address=address, size=size)
        elif what == "copy":
            source = draw(st.sampled_from([symbol * SIZE] * 9 + [5]))
            add(Kind.COPY, issued=now, tier=Tier.HBM, symbol=symbol, address=address, size=size, source=source)
        elif what == "run":
            run = {"context": 5, "sequences": 1, "growth": 1, "steps": 3, "tokens": 1, "pairs": 5}
            add(Kind.DECODE, issued=now, tier=Tier.HBM, symbol=symbol, address=address, **run)
    return made


def outcome(windows: list[Ints], at_once: int) -> tuple[object, ...]:
    """What came of windows done at once from so many commands on: results, the refusal, the state."""
    socket, results, refusal = Rdu("socket", MACHINE, [PROGRAM], sharers=1), [], None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rdus, "AT_ONCE", at_once)
        for window in windows:
            try:
                results += socket.replay(window).T.tolist()
            except RefusedError as error:
                results += error.done.T.tolist()
                refusal = str(error)
                break
    return (results, refusal) if refusal else (results, socket.snapshot(), socket.counters())


@settings(max_examples=400, deadline=None)
@given(stream=commands(), cut=st.integers(0, 32))
def test_at_once_and_one_by_one_come_to_the_same(stream: list[Command], cut: int) -> None:
    for windows in ([stream], [stream[:cut], stream[cut:]]):
        columns = [to_columns(window) for window in windows if window]
        assert outcome(columns, 1) == outcome(columns, 10**9)


def legal(count: int, live: int, seed: int) -> list[Command]:
    """KV ranges of many sizes that begin and end, so many of them live at a time, some for long."""
    rng, made, held = np.random.default_rng(seed), [], []
    holes = {place: place * (ROOM // (live + 1)) for place in range(live + 1)}
    while len(made) < count:
        if len(held) == live or (held and rng.random() < 0.4):
            symbol, place, size = held.pop(int(rng.integers(len(held))) if rng.random() < 0.9 else -1)
            made.append(Command(len(made), 0, Kind.FREE, len(made), Tier.HBM, symbol, place[1], size))
            holes[place[0]] = place[1]
        else:
            place, size = holes.popitem(), int(rng.integers(1, ROOM // (live + 1)))
            held.append((len(made), place, size))
            made.append(Command(len(made), 0, Kind.ALLOCATE, len(made), Tier.HBM, len(made), place[1], size))
    return made


@pytest.mark.parametrize("live", [1, 5, 40])
def test_ranges_of_many_sizes_are_proved_legal_without_going_one_by_one(
    live: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = to_columns(legal(500, live, live))
    expected = outcome([stream], 10**9)
    monkeypatch.setattr(Rdu, "_one_by_one", None)
    assert outcome([stream], 1) == expected


@pytest.mark.parametrize("at", [100, 250, 499])
def test_one_byte_of_overlap_is_found_wherever_it_is(at: int) -> None:
    """With a range that ends right afterwards; nothing else is wrong."""
    stream, others = legal(500, 6, 3), dict[int, Command]()
    for command in stream:
        if command.sequence >= at and others:
            at = command.sequence
            break
        if command.kind == Kind.ALLOCATE:
            others[command.symbol] = command
        else:
            del others[command.symbol]
    del stream[at:]
    other = max(others.values(), key=lambda command: command.address)  # nobody lies above it
    begun = Command(at, 0, Kind.ALLOCATE, at, Tier.HBM, 10_000, other.address + other.size, 64)
    ended = other._replace(sequence=at + 1, kind=Kind.FREE, issued=at + 1)
    assert len(outcome([to_columns([*stream, begun, ended])], 1)) == 3
    begun = begun._replace(address=begun.address - 1)
    results, refusal = outcome([to_columns([*stream, begun, ended])], 1)
    assert f"overlaps [{other.address:,}, {other.address + other.size:,}) of symbol {other.symbol}" in str(refusal)
    assert len(results) == at


def test_a_range_that_ends_twice_is_refused_the_second_time() -> None:
    begins = Command(0, 0, Kind.ALLOCATE, 10**6, Tier.HBM, KV[0], 0, 64)
    ends = begins._replace(sequence=1, kind=Kind.FREE)
    window = to_columns([begins, ends, ends._replace(sequence=2)])
    assert outcome([window], 1) == outcome([window], 100)
    assert "is not alive" in str(outcome([window], 1)[1])

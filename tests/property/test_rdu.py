"""Does a socket refuse what its hardware cannot do, and end a run that is cut when it should?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.dataflow.form import Step
from node.dataflow.program import compile_graph
from node.errors import HardwareError, RefusedError
from node.events import COLUMNS, Command, Kind, Tier, to_columns
from node.hardware import rdu as rdus
from node.hardware.rdu import Rdu
from node.models.decoder import decoder
from node.models.shape import Shape
from node.spec_file import load_machine
from tests.commanded import Commanded

MACHINE = load_machine("sn40l-node", {"ddr.bandwidth": "2 GB/s", "hbm.bandwidth": "4 GB/s"})
SHAPES = [Shape("a", 1, 64, 8, 8, 8, 200, 90, 512), Shape("b", 2, 64, 8, 4, 8, 96, 100, 512)]
PROGRAMS = [compile_graph(decoder(shape, 2), MACHINE, 2, "fused", "ho") for shape in SHAPES]
SIZES = [program.weight_bytes for program in PROGRAMS]


@pytest.fixture(scope="module", autouse=True, params=[1, 10**9], ids=["at_once", "one_by_one"])
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Windows of any size are done the one way, then the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rdus, "AT_ONCE", request.param)
        yield


def rdu() -> Commanded:
    return Commanded("socket 3", MACHINE, PROGRAMS, sharers=2)


# What a socket refuses: each change to one of these commands, alone

SIZE, COPIED, LATE = SIZES[0], MACHINE.copy_ps(SIZES[0], 2), 10**12
DECODE = {"symbol": 0, "address": 64, "context": 5, "sequences": 1, "growth": 1, "steps": 20}
GOOD = (
    Command(0, 0, Kind.LOAD, 0, Tier.DDR, symbol=0, address=128, size=SIZE),
    Command(1, 0, Kind.ALLOCATE, 0, Tier.HBM, symbol=0, address=64, size=SIZE),
    Command(2, 0, Kind.COPY, 0, symbol=0, address=64, source=128, size=SIZE),
    Command(3, 0, Kind.DECODE, COPIED, **DECODE),
    Command(4, 0, Kind.PREFILL, COPIED, symbol=0, address=64, tokens=5, pairs=15, context=5, sequences=1),
    Command(5, 0, Kind.FREE, LATE, Tier.HBM, symbol=0, address=64, size=SIZE),
)
DONE = COPIED + PROGRAMS[0].decode(1).run_ps(5, 1, 20) + PROGRAMS[0].prefill(Step(5, 15, 5, 1))[0]


@pytest.mark.parametrize(
    ("at", "changed", "refusal"),
    [
        (0, {"address": MACHINE.ddr.capacity - SIZE + 1}, "DDR of socket 3: .* out of range"),
        (1, {"address": MACHINE.hbm.capacity - SIZE + 1}, "HBM of socket 3: .* out of range"),
        (1, {"tier": Tier.DDR, "address": 127 + SIZE, "symbol": 1}, "DDR of socket 3: .* overlaps .* of symbol 0"),
        (1, {"tier": Tier.DDR, "address": 128 + SIZE}, "DDR of socket 3: symbol 0 already lives at 128"),
        (2, {"source": 129}, "DDR of socket 3: symbol 0 is at 128, not 129"),
        (2, {"symbol": 1}, "DDR of socket 3: symbol 1 is not alive"),
        (3, {"issued": COPIED - 1}, f"read at {COPIED - 1:,} ps, but it is there from {COPIED:,} ps on"),
        (3, {"address": 65}, "HBM of socket 3: symbol 0 is at 64, not 65"),
        (3, {"symbol": 1}, "HBM of socket 3: symbol 1 is not alive"),
        (4, {"address": 63}, "HBM of socket 3: symbol 0 is at 64, not 63"),
        (5, {"symbol": 2}, "HBM of socket 3: symbol 2 is not alive"),
        (5, {"tier": Tier.DDR, "symbol": 9}, "DDR of socket 3: symbol 9 is not alive"),
        (2, {"address": 65}, "HBM of socket 3: symbol 0 is at 64, not 65"),
        (2, {"program": 1}, f"HBM of socket 3: symbol 0 has {SIZE:,} bytes, not {SIZES[1]:,}"),
        (3, {"kind": 99}, "socket 3 knows no such kind"),
        (2, {"kind": Kind.SEND, "address": 128, "size": SIZE + 1}, f"DDR of .* 0 has {SIZE:,} bytes, not {SIZE + 1:,}"),
        (2, {"kind": Kind.SEND, "address": 129}, "DDR of socket 3: symbol 0 is at 128, not 129"),
        (2, {"kind": Kind.RECEIVE, "symbol": 7}, "DDR of socket 3: symbol 7 is not alive"),
        (2, {"kind": Kind.SWAP, "address": 128, "size": SIZE + 1}, f"DDR of .* 0 has {SIZE:,} bytes, not {SIZE + 1:,}"),
        (2, {"kind": Kind.SWAP, "address": 129, "size": SIZE}, "DDR of socket 3: symbol 0 is at 128, not 129"),
        (2, {"kind": Kind.SWAP, "symbol": 7, "tier": Tier.DDR}, "DDR of socket 3: symbol 7 is not alive"),
        (4, {"kind": -1}, "socket 3 knows no such kind"),
        (2, {"size": SIZE + 1}, f"HBM of socket 3: symbol 0 has {SIZE:,} bytes, not {SIZE + 1:,}"),
        (5, {"address": 65}, "HBM of socket 3: symbol 0 is at 64, not 65"),
        (5, {"issued": DONE - 1}, f"symbol 0 freed at {DONE - 1:,} ps, in use until {DONE:,}"),
    ],
)
def test_what_the_hardware_cannot_do_is_refused(at: int, changed: dict[str, int], refusal: str) -> None:
    assert rdu().replay(to_columns(GOOD)).shape == (4, 6)
    commands = [*GOOD]
    commands[at] = commands[at]._replace(**changed)
    with pytest.raises(RefusedError, match=rf"^command {at}: .*{refusal}") as refused:
        rdu().replay(to_columns(commands))
    assert refused.value.done.tolist() == rdu().replay(to_columns(GOOD))[:, :at].tolist()  # what came of those before
    one = rdu()
    with pytest.raises(HardwareError, match=refusal):
        for command in commands:
            one.execute(command)


@pytest.mark.parametrize(
    ("at", "changed", "refusal"),
    [
        (2, {"sequence": 3}, "never got it"),
        (5, {"sequence": 4}, "never got it"),
        (0, {"sequence": 1}, "never got it"),
        (2, {"program": 2}, "has no such program"),
        (3, {"program": -1}, "has no such program"),
    ],
)
def test_a_window_with_a_gap_or_an_unknown_program_is_refused(at: int, changed: dict[str, int], refusal: str) -> None:
    commands = [*GOOD]
    commands[at] = commands[at]._replace(**changed)
    with pytest.raises(RefusedError, match=rf"^command {at}: socket 3 {refusal}$") as refused:
        rdu().replay(to_columns(commands))
    assert refused.value.done.shape == (4, at)
    socket = rdu()
    socket.replay(to_columns(GOOD[:2]))
    with pytest.raises(HardwareError, match=r"^command 2: socket 3 never got it$"):
        socket.replay(to_columns(GOOD[3:]))


def test_what_went_to_ddr_is_not_read_before_it_is_there() -> None:
    room, out = GOOD[0]._replace(kind=Kind.ALLOCATE), GOOD[0]._replace(sequence=1, kind=Kind.SWAP)
    there = MACHINE.copy_ps(SIZE, 2)
    back = GOOD[0]._replace(sequence=2, kind=Kind.SWAP, tier=Tier.HBM, issued=there)
    assert rdu().replay(to_columns([room, out, back]))[0].tolist() == [0, there, 2 * there]
    with pytest.raises(RefusedError, match="DDR of socket 3: symbol 0 read at 0 ps, but it is never written"):
        rdu().replay(to_columns([room, back._replace(sequence=1, issued=0)]))


def test_what_comes_from_another_group_is_not_sent_on_before_it_is_there() -> None:
    room, came = (GOOD[0]._replace(sequence=at, kind=kind) for at, kind in enumerate((Kind.ALLOCATE, Kind.RECEIVE)))
    there = MACHINE.move_ps(SIZE, 2)
    on = GOOD[0]._replace(sequence=2, kind=Kind.SEND, issued=there)
    assert rdu().replay(to_columns([room, came, on]))[0].tolist() == [0, there, 2 * there]
    with pytest.raises(RefusedError, match="DDR of socket 3: symbol 0 read at 0 ps, but it is never written"):
        rdu().replay(to_columns([room, on._replace(sequence=1, issued=0)]))


IMAGED = (
    Command(0, 0, Kind.LOAD, 0, Tier.DDR, symbol=9, address=0, size=77),
    Command(1, 0, Kind.ALLOCATE, 0, Tier.HBM, symbol=9, address=2**30, size=77),
    Command(2, 0, Kind.IMAGE, 0, symbol=9, address=2**30, source=0, size=77),
    *(one._replace(sequence=3 + one.sequence, issued=one.issued + 10**9) for one in GOOD),
    Command(9, 0, Kind.FREE, LATE + 10**9, Tier.HBM, symbol=9, address=2**30, size=77),
)
IMAGED = tuple(one._replace(source=9) if one.kind in (Kind.PREFILL, Kind.DECODE) else one for one in IMAGED)
LOADED = MACHINE.copy_ps(77, 2)


@pytest.mark.parametrize("way", [1, 10**9])
@pytest.mark.parametrize(
    ("at", "changed", "refusal"),
    [
        (2, {"symbol": 8}, "DDR of socket 3: symbol 8 is not alive"),
        (2, {"source": 1}, "DDR of socket 3: symbol 9 is at 0, not 1"),
        (2, {"address": 1}, "HBM of socket 3: symbol 9 is at 1,073,741,824, not 1"),
        (2, {"size": 78}, "HBM of socket 3: symbol 9 has 77 bytes, not 78"),
        (6, {"source": 8}, "HBM of socket 3: symbol 8 is not alive"),
        (7, {"source": 8}, "HBM of socket 3: symbol 8 is not alive"),
        (9, {"issued": DONE + 10**9 - 1}, "symbol 9 freed at .*, in use until"),
    ],
)
def test_a_run_needs_the_image_of_its_program(
    at: int, changed: dict[str, int], refusal: str, way: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rdus, "AT_ONCE", way)
    socket = rdu()
    table = socket.replay(to_columns(IMAGED))
    assert table[0, 2] == LOADED and socket.counters()["loaded"] == 77 and socket.counters()["copied"] == SIZE
    assert socket.counters()["dma_busy"] == LOADED + COPIED
    commands = [*IMAGED]
    commands[at] = commands[at]._replace(**changed)
    with pytest.raises(RefusedError, match=rf"^command {at}: .*{refusal}"):
        rdu().replay(to_columns(commands))


@pytest.mark.parametrize("way", [1, 10**9])
def test_an_image_is_not_used_before_it_is_there(way: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rdus, "AT_ONCE", way)
    before, load = IMAGED[:2] + IMAGED[3:6], IMAGED[2]
    run = IMAGED[6]._replace(issued=IMAGED[6].issued + LOADED)
    start = run.issued - LOADED
    for issued, there in ((start, True), (start + 1, False)):
        commands = [*before, load._replace(issued=issued), run]
        commands = [one._replace(sequence=number) for number, one in enumerate(commands)]
        if there:
            rdu().replay(to_columns(commands))
            continue
        with pytest.raises(RefusedError, match=r"symbol 9 read at .* but it is there from"):
            rdu().replay(to_columns(commands))
    commands = [one._replace(sequence=number) for number, one in enumerate([*before, run])]
    with pytest.raises(RefusedError, match=r"symbol 9 read at .* but it is never written"):
        rdu().replay(to_columns(commands))


def test_every_engine_starts_when_it_is_free() -> None:
    socket = rdu()
    table = socket.replay(to_columns(GOOD))
    assert table[0].tolist() == [0, 0, COPIED, COPIED + PROGRAMS[0].decode(1).run_ps(5, 1, 20), DONE, LATE]
    assert table[1:].tolist() == [[128, 64, 64, 64, 64, 64], [SIZE] * 6, [SIZE] * 5 + [0]]
    before = socket.snapshot()
    assert socket.replay(to_columns([])).shape == (4, 0) and to_columns([]).shape == (len(COLUMNS), 0)
    assert table.dtype == np.int64 and socket.snapshot() == before


def test_a_copy_over_a_shared_link_takes_as_long_as_its_sharers_are_many() -> None:
    dgx = load_machine("dgx-a100", {"host_link.bandwidth": "1 GB/s"})
    ends = [Rdu("gpu 0", dgx, PROGRAMS, sharers).replay(to_columns(GOOD[:3]))[0, 2] for sharers in (1, 8)]
    assert ends == [SIZE * 1000, 8 * SIZE * 1000]  # 1 ns a byte


def test_a_run_may_be_issued_before_its_weights_are_there_if_the_tile_is_busy_until_then() -> None:
    again = Command(4, 0, Kind.DECODE, COPIED - 5, **DECODE)
    assert rdu().replay(to_columns([*GOOD[:4], again]))[0, 4] == COPIED + 2 * PROGRAMS[0].decode(1).run_ps(5, 1, 20)


@pytest.mark.parametrize(("upto", "end"), [(3, COPIED), (5, DONE)])
def test_weights_are_freed_when_no_engine_needs_them_also_after_a_checkpoint(upto: int, end: int) -> None:
    for early in (1, 0):
        first, socket = rdu(), rdu()
        first.replay(to_columns(GOOD[:upto]))
        socket.restore(first.snapshot())
        free = to_columns([GOOD[5]._replace(sequence=upto, issued=end - early)])
        if early:
            with pytest.raises(HardwareError, match=f"in use until {end:,}"):
                socket.replay(free)
        else:
            assert socket.replay(free)[:, 0].tolist() == [end, 64, SIZE, 0]


# A decode run that is cut short

RUN = {"context": st.integers(1, 99), "sequences": st.integers(1, 9), "growth": st.integers(0, 9)}


@settings(max_examples=60, deadline=None)
@given(shape=st.fixed_dictionaries(RUN), steps=st.integers(1, 40), waits=st.integers(0, 1), share=st.floats(0, 1))
def test_a_run_cut_short_is_one_of_that_many_steps(shape: dict, steps: int, waits: int, share: float) -> None:
    long, short = rdu(), rdu()
    for command in GOOD[: 3 + waits]:
        long.execute(command)
        short.execute(command)
    run = Command(3 + waits, 0, Kind.DECODE, COPIED + 3, **{**DECODE, **shape, "steps": steps})
    begun = max(COPIED + 3, long.tile.free)
    elapsed = round(share * (long.execute(run).time - begun))
    cost = PROGRAMS[0].decode(shape["sequences"])
    cut = cost.steps_until(elapsed, shape["context"], shape["growth"], steps)
    ends = [cost.run_ps(shape["context"], shape["growth"], count) for count in range(1, steps + 1)]
    assert cut == next(count for count, end in enumerate(ends, 1) if end >= elapsed)
    end = long.shorten(cut)
    assert end == begun + ends[cut - 1] == short.execute(run._replace(steps=cut)).time
    assert long.snapshot() == short.snapshot() and long.counters() == short.counters()
    assert long.shorten(cut) == end
    assert long.execute(GOOD[5]._replace(sequence=4 + waits, issued=end)).time == end


SECOND = (
    Command(3, 0, Kind.LOAD, 0, Tier.DDR, symbol=1, address=2**20, size=SIZES[1]),
    Command(4, 0, Kind.ALLOCATE, 0, Tier.HBM, symbol=1, address=2**20, size=SIZES[1]),
)


def copied(sequence: int, issued: int) -> Command:
    """Of the second expert."""
    return Command(sequence, 0, Kind.COPY, issued, symbol=1, address=2**20, source=2**20, size=SIZES[1], program=1)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.fixed_dictionaries(RUN),
    steps=st.integers(1, 40),
    at=st.floats(-0.2, 1),
    cut_at=st.floats(0, 1),
    again=st.floats(0, 1),
)
def test_a_run_cut_beside_copies_is_one_of_that_many_steps(
    shape: dict, steps: int, at: float, cut_at: float, again: float
) -> None:
    """One copy before the cut or before the run, another one after the cut."""
    begun = COPIED + 10**8

    def ran(count: int, length: int) -> Commanded:
        socket = rdu()
        run = Command(5, 0, Kind.DECODE, begun, **{**DECODE, **shape, "steps": count})
        copy = copied(6, begun + round(at * length))
        for command in (*GOOD[:3], *SECOND, *sorted([run, copy], key=lambda command: command.issued)):
            socket.execute(command)
        return socket

    length = ran(steps, 0).tile.free - begun
    ends = [ran(count, length).tile.free for count in range(1, steps + 1)]
    first = min(begun + max(0, round(at * length)), ends[-1])
    now = first + round(cut_at * (ends[-1] - first))
    count = next(count for count, end in enumerate(ends, 1) if end >= now)
    long, short = ran(steps, length), ran(count, length)
    assert long.shorten(count) == ends[count - 1] == short.tile.free
    assert long.snapshot() == short.snapshot() and long.counters() == short.counters()
    third = copied(7, now + round(again * (ends[count - 1] - now)))
    assert long.execute(third) == short.execute(third)
    assert long.tile.free >= ends[count - 1]
    assert long.snapshot() == short.snapshot() and long.counters() == short.counters()


def test_a_run_is_slowed_down_by_each_of_two_copies_though_another_waits_behind_it() -> None:
    long = DECODE | {"steps": 2000}
    first, issued = Command(5, 0, Kind.DECODE, COPIED, **long), COPIED + 10**6
    copy_ps = MACHINE.copy_ps(SIZES[1], 2)
    commands = [*GOOD[:3], *SECOND, first, copied(6, issued), Command(7, 0, Kind.DECODE, issued, **long)]
    commands += [copied(8, issued + copy_ps + 10**6)]
    one = rdu()
    ends = [one.execute(command).time for command in commands]
    assert ends[5] > issued + 3 * copy_ps  # both copies are beside the first run
    window = rdu()
    found = window.replay(to_columns(commands))[0].tolist()
    assert ends[5] < found[5] and ends[7] < found[7] == one.tile.free
    assert window.snapshot() == one.snapshot()


def test_a_copy_beside_a_run_whose_end_was_reported_is_refused() -> None:
    first = [*GOOD[:3], *SECOND, GOOD[3]._replace(sequence=5)]
    run_end = int(rdu().replay(to_columns(first))[0, -1])
    for early in (1, 0):
        socket = rdu()
        socket.replay(to_columns(first))
        window = to_columns([copied(6, run_end - early)])
        if early:
            with pytest.raises(RefusedError, match=r"^command 6: socket 3 has reported the end of a run"):
                socket.replay(window)
        else:
            socket.replay(window)
    together = rdu().replay(to_columns([*first, copied(6, run_end - 1)]))
    assert together[0, 5] >= run_end  # in one window it is slowed down


def test_only_a_decode_run_can_be_cut() -> None:
    socket = rdu()
    for command in (*GOOD[:3], GOOD[4]._replace(sequence=3)):
        with pytest.raises(HardwareError, match="socket 3: no decode run to shorten"):
            socket.shorten(1)
        socket.execute(command)
    with pytest.raises(HardwareError, match="socket 3: no decode run to shorten"):
        socket.shorten(1)

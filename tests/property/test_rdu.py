"""Is a window of commands the same as its commands one by one, and both what the engines and tiers allow?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.dataflow.graph import Step
from node.dataflow.program import compile_graph
from node.errors import HardwareError, RefusedError
from node.events import COLUMNS, Command, Kind, Tier, to_columns
from node.hardware.rdu import Rdu
from node.hardware.tiers import Completion
from node.models.decoder import decoder
from node.models.shape import Shape
from node.spec_file import load_machine

MACHINE = load_machine("sn40l-node", {"ddr.bandwidth": "2 GB/s"})
SHAPES = [Shape("a", 1, 64, 8, 8, 8, 200, 90, 512), Shape("b", 2, 64, 8, 4, 8, 96, 100, 512)]
PROGRAMS = [compile_graph(decoder(shape, 2), MACHINE, 2, "fused", "ho") for shape in SHAPES]
SIZES = [PROGRAMS[expert % 2].weight_bytes for expert in range(4)]  # experts 0 to 3; 10 to 13 are KV ranges
SLOT = 2**20


def rdu() -> Rdu:
    return Rdu("socket 3", MACHINE, PROGRAMS, sharers=2)


class Account:
    """What legal commands come to, kept as plainly as can be: two engines, a table of what is live, step by step."""

    def __init__(self) -> None:
        self.free = {"dma": 0, "tile": 0}
        self.live: dict[tuple[int, int], int] = {}  # (tier, symbol) -> bytes
        self.valid: dict[int, int] = {}
        self.counts: Counter[str] = Counter()

    def used(self, tier: int) -> int:
        return sum(size for (where, _), size in self.live.items() if where == tier)

    def do(self, command: Command) -> Completion:
        self.counts["commands"] += 1
        if command.kind in (Kind.COPY, Kind.PREFILL, Kind.DECODE):
            return self.work(command)
        if command.kind == Kind.FREE:
            del self.live[command.tier, command.symbol]
            self.valid.pop(command.symbol, None)
        else:
            self.live[command.tier, command.symbol] = command.size
        name = f"{Tier(command.tier).name.lower()}_peak"
        self.counts[name] = max(self.counts[name], self.used(command.tier))
        return Completion(command.issued, command.address, command.size, self.used(command.tier))

    def work(self, command: Command) -> Completion:
        engine, size, program = "tile", SIZES[command.symbol], PROGRAMS[command.program]
        if command.kind == Kind.COPY:
            engine, time, link = "dma", MACHINE.copy_ps(size, 2), 0
            self.counts["copied"] += size
        elif command.kind == Kind.PREFILL:
            time, link = program.prefill(Step(command.tokens, command.pairs, command.context, command.sequences))
        else:
            cost, contexts = program.decode(command.sequences), range(command.steps)
            time = sum(cost.run_ps(command.context + k * command.growth, 0, 1) for k in contexts)
            link = command.steps * cost.link_ps
        self.free[engine] = max(command.issued, self.free[engine]) + time
        self.counts[f"{engine}_busy"] += time
        self.counts["link_busy"] += link
        if engine == "dma":
            self.valid[command.symbol] = self.free[engine]
        return Completion(self.free[engine], command.address, size, self.used(Tier.HBM))

    def counters(self) -> dict[str, int]:
        used = {"ddr_used": self.used(Tier.DDR), "hbm_used": self.used(Tier.HBM)}
        return {**dict.fromkeys(rdu().counters(), 0), **self.counts, **used}


LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=3)


@st.composite
def streams(draw: Callable) -> tuple[list[Command], list[Completion], Account]:
    """Legal commands, issued in order, often while an engine is busy, and what they come to."""
    account, commands, completions, now = Account(), [], [], 0

    def add(kind: Kind, symbol: int, **fields: int) -> None:
        where = {"tier": Tier.HBM, "symbol": symbol, "address": symbol * SLOT, "program": symbol % 2}
        commands.append(Command(len(commands), 0, kind, now, **{**where, **fields}))
        completions.append(account.do(commands[-1]))

    for expert, size in enumerate(SIZES):
        add(Kind.LOAD, expert, tier=Tier.DDR, address=(9 - expert) * SLOT, size=size)
    for _ in range(draw(st.integers(0, 40))):
        now = max(now, draw(st.sampled_from([0, 0, account.free["dma"] - 1, account.free["tile"] - 1, now + 10**7])))
        what, symbol = draw(st.integers(0, 9)), draw(st.sampled_from([0, 1, 2, 3, 0, 1, 2, 3, 10, 11]))
        size = account.live.get((Tier.HBM, symbol))
        if size is not None and what < 2:  # nobody uses what is freed or written again
            now = max(now, *account.free.values())
        if size is None:
            add(Kind.ALLOCATE, symbol, size=(SIZES[symbol] if symbol < 4 else 1) + draw(st.integers(0, 99)))
        elif symbol > 3 or what == 0:
            add(Kind.FREE, symbol, size=size)
        elif symbol not in account.valid or what == 1:
            add(Kind.COPY, symbol, source=(9 - symbol) * SLOT, size=size)
        else:
            if max(now, account.free["tile"]) < account.valid[symbol]:
                now = account.valid[symbol]
            if what < 5:
                lengths = draw(LENGTHS)
                passed = {"tokens": sum(lengths), "pairs": sum(n * (n + 1) // 2 for n in lengths)}
                add(Kind.PREFILL, symbol, context=sum(lengths), sequences=len(lengths), **passed)
            else:
                batch, context, steps = draw(st.integers(1, 4)), draw(st.integers(1, 900)), draw(st.integers(1, 30))
                growth = draw(st.integers(0, batch))
                add(Kind.DECODE, symbol, context=context, sequences=batch, growth=growth, steps=steps)
    return commands, completions, account


@settings(max_examples=80, deadline=None)
@given(stream=streams(), cuts=st.lists(st.integers(0, 44), max_size=3), data=st.data())
def test_a_window_is_its_commands_one_by_one(stream: tuple, cuts: list[int], data: st.DataObject) -> None:
    commands, completions, account = stream
    one = rdu()
    assert [one.execute(command) for command in commands] == completions
    assert one.counters() == account.counters()
    for points in ([], sorted(cuts)):
        socket, results = rdu(), []
        for begin, end in pairwise([0, *points, len(commands)]):
            results += socket.replay(to_columns(commands[begin:end])).T.tolist()
            if data.draw(st.booleans()):  # a checkpoint, and another socket that goes on from it
                state, socket = socket.snapshot(), rdu()
                socket.restore(state)
        assert results == [list(completion) for completion in completions]
        assert socket.counters() == one.counters()
        assert socket.snapshot() == one.snapshot()


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
        (3, {"kind": 6}, "socket 3 knows no such kind"),
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


def test_only_a_decode_run_can_be_cut() -> None:
    socket = rdu()
    for command in (*GOOD[:3], GOOD[4]._replace(sequence=3)):
        with pytest.raises(HardwareError, match="socket 3: no decode run to shorten"):
            socket.shorten(1)
        socket.execute(command)
    with pytest.raises(HardwareError, match="socket 3: no decode run to shorten"):
        socket.shorten(1)

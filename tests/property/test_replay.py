"""Is a window of commands the same as its commands one by one, copies beside runs among them?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.dataflow.form import Step
from node.dataflow.program import compile_graph
from node.events import TRANSFERS, Command, Kind, Tier, to_columns
from node.hardware import rdu as rdus
from node.hardware.tiers import Completion
from node.models.decoder import decoder
from node.models.shape import Shape
from node.spec_file import load_machine
from tests.commanded import Commanded

MACHINE = load_machine("sn40l-node", {"ddr.bandwidth": "2 GB/s", "hbm.bandwidth": "4 GB/s"})
SHAPES = [Shape("a", 1, 64, 8, 8, 8, 200, 90, 512), Shape("b", 2, 64, 8, 4, 8, 96, 100, 512)]
PROGRAMS = [compile_graph(decoder(shape, 2), MACHINE, 2, "fused", "ho") for shape in SHAPES]
SIZES = [PROGRAMS[expert % 2].weight_bytes for expert in range(4)]  # experts 0 to 3; 10 to 13 are KV ranges
SLOT = 2**20
IMAGES = (30, 31)  # symbols
MOVED = {Kind.COPY: "copied", Kind.SWAP: "swapped_out", Kind.IMAGE: "loaded"}
SHARE = MACHINE.hbm_share(2)


@pytest.fixture(scope="module", autouse=True, params=[1, 10**9], ids=["at_once", "one_by_one"])
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Windows of any size are done the one way, then the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rdus, "AT_ONCE", request.param)
        yield


def rdu() -> Commanded:
    return Commanded("socket 3", MACHINE, PROGRAMS, sharers=2)


class Account:
    """What legal commands come to, kept as plainly as can be: two engines, a table of what is live, step by step.

    Runs are walked anew whenever there is another copy.
    """

    def __init__(self) -> None:
        self.free = {"dma": 0, "tile": 0}
        self.copies: list[tuple[int, int]] = []
        self.runs: list[Command] = []
        self.ends: dict[int, int] = {}  # of runs, by sequence
        self.live: dict[tuple[int, int], int] = {}  # (tier, symbol) -> bytes
        self.valid: dict[int, int] = {}
        self.counts: Counter[str] = Counter()

    def used(self, tier: int) -> int:
        return sum(size for (where, _), size in self.live.items() if where == tier)

    def do(self, command: Command) -> Completion:
        self.counts["commands"] += 1
        if command.kind in (*TRANSFERS, Kind.PREFILL, Kind.DECODE):
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
        moves = command.kind in TRANSFERS
        size = command.size if command.kind in (Kind.SWAP, Kind.IMAGE) else SIZES[command.symbol]
        program = PROGRAMS[command.program]
        if moves:
            start = max(command.issued, self.free["dma"])
            end = self.free["dma"] = start + MACHINE.copy_ps(size, 2)
            if command.kind != Kind.SWAP or command.tier == Tier.DDR:
                self.valid[command.symbol] = end
            back = command.kind == Kind.SWAP and command.tier == Tier.HBM
            self.counts["swapped_in" if back else MOVED[command.kind]] += size
            self.counts["dma_busy"] += end - start
            self.copies.append((start, end))
        elif command.kind == Kind.PREFILL:
            self.counts["link_busy"] += program.prefill(shape_of(command))[1]
        else:
            self.counts["link_busy"] += command.steps * program.decode(command.sequences).link_ps
        if not moves:
            self.runs.append(command)
        self.free["tile"] = self.counts["tile_busy"] = 0
        for run in self.runs:
            start = max(run.issued, self.free["tile"])
            self.ends[run.sequence] = self.free["tile"] = self.walk(run, start)
            self.counts["tile_busy"] += self.free["tile"] - start
        end = self.free["dma" if moves else "tile"]
        return Completion(end, command.address, size, self.used(command.tier if moves else Tier.HBM))

    def walk(self, command: Command, now: int) -> int:
        """When a run that starts ``now`` ends, from step to step and copy to copy."""
        program = PROGRAMS[command.program]
        for step in range(max(1, command.steps)):
            if command.kind == Kind.PREFILL:
                costs = [program.prefill(shape_of(command), share)[0] for share in (1.0, SHARE)]
            else:
                context = command.context + step * command.growth
                costs = [program.decode(command.sequences, share).run_ps(context, 0, 1) for share in (1.0, SHARE)]
            copying = any(start <= now < end for start, end in self.copies)
            left = costs[copying]
            while changes := [time for copy in self.copies for time in copy if now < time < now + left]:
                passed, now = min(changes) - now, min(changes)
                left -= passed
                if copying != any(start <= now < end for start, end in self.copies):
                    left = -(-left * costs[not copying] // costs[copying])
                    copying = not copying
            now += left
        return now

    def cuts(self, commands: list[Command]) -> list[int]:
        """Where windows may end: no copy slows down a run of a window before its own."""
        copies = [command.sequence for command in commands if command.kind in TRANSFERS]
        started = dict(zip(copies, (start for start, _ in self.copies), strict=True))

        def apart(cut: int) -> bool:
            before = max((end for run, end in self.ends.items() if run < cut), default=0)
            return all(start >= before for copy, start in started.items() if copy >= cut)

        return [cut for cut in range(len(commands) + 1) if apart(cut)]

    def counters(self) -> dict[str, int]:
        used = {"ddr_used": self.used(Tier.DDR), "hbm_used": self.used(Tier.HBM), "clock": max(self.free.values())}
        return {**dict.fromkeys(rdu().counters(), 0), **self.counts, **used}


def shape_of(prefill: Command) -> Step:
    return Step(prefill.tokens, prefill.pairs, prefill.context, prefill.sequences)


def swapping(room: int | None, there: bool, what: int) -> tuple[Kind, Tier]:
    """What comes next for KV cache that makes room: it gets some in DDR, goes there, comes back, is at an end."""
    if room is None:
        return Kind.ALLOCATE, Tier.DDR
    if there and what >= 5:
        return Kind.FREE, Tier.DDR
    return Kind.SWAP, Tier.HBM if there else Tier.DDR


LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=3)


@st.composite
def streams(draw: Callable) -> tuple[list[Command], list[Completion], Account]:
    """Legal commands, issued in order, often while an engine is busy, and what they come to."""
    account, commands, completions, now = Account(), [], [], 0

    def add(kind: Kind, symbol: int, **fields: int) -> None:
        where = {"issued": now, "tier": Tier.HBM, "symbol": symbol, "address": symbol * SLOT, "program": symbol % 2}
        commands.append(Command(len(commands), 0, kind, **{**where, **fields}))
        completions.append(account.do(commands[-1]))

    for expert, size in enumerate(SIZES):
        add(Kind.LOAD, expert, tier=Tier.DDR, address=(9 - expert) * SLOT, size=size)
    for image in IMAGES:
        add(Kind.LOAD, image, tier=Tier.DDR, size=9)
    for _ in range(draw(st.integers(0, 40))):
        now = max(now, draw(st.sampled_from([0, 0, account.free["dma"] - 1, account.free["tile"] - 1, now + 10**7])))
        what, symbol = draw(st.integers(0, 9)), draw(st.sampled_from([0, 1, 2, 3, 0, 1, 2, 3, 10, 11, 20, 21, *IMAGES]))
        if 20 <= symbol < 30:
            room = account.live.get((Tier.DDR, symbol))
            now = max(now, account.valid.get(symbol, 0))
            kind, to = swapping(room, symbol in account.valid, what)
            add(kind, symbol, size=draw(st.integers(1, SLOT)) if room is None else room, tier=to)
            continue
        size = account.live.get((Tier.HBM, symbol))
        if size is not None and (what < 2 or symbol in IMAGES):  # nobody uses what is freed or written again
            now = max(now, *account.free.values())
        if size is None:
            add(Kind.ALLOCATE, symbol, size=(SIZES[symbol] if symbol < 4 else 1) + draw(st.integers(0, 99)))
        elif 3 < symbol < 30 or what == 0:
            add(Kind.FREE, symbol, size=size)
        elif symbol in IMAGES or symbol not in account.valid or what == 1:
            granted = now + draw(st.sampled_from([0, 0, 10**6, 10**8]))  # a link may be another's until then
            kind, home = (Kind.IMAGE, symbol) if symbol in IMAGES else (Kind.COPY, 9 - symbol)
            add(kind, symbol, source=home * SLOT, size=size, issued=granted)
        else:
            image = draw(st.sampled_from([0, *(image for image in IMAGES if image in account.valid)]))
            there = max(account.valid[symbol], account.valid.get(image, 0))
            if max(now, account.free["tile"]) < there:
                now = there
            if what < 5:
                lengths = draw(LENGTHS)
                passed = {"tokens": sum(lengths), "pairs": sum(n * (n + 1) // 2 for n in lengths)}
                add(Kind.PREFILL, symbol, source=image, context=sum(lengths), sequences=len(lengths), **passed)
            else:
                batch, context, steps = draw(st.integers(1, 4)), draw(st.integers(1, 900)), draw(st.integers(1, 30))
                growth = draw(st.integers(0, batch))
                add(Kind.DECODE, symbol, source=image, context=context, sequences=batch, growth=growth, steps=steps)
    return commands, completions, account


@settings(max_examples=80, deadline=None)
@given(stream=streams(), cuts=st.lists(st.integers(0, 44), max_size=3), data=st.data())
def test_a_window_is_its_commands_one_by_one(stream: tuple, cuts: list[int], data: st.DataObject) -> None:
    """Where each run ends as far as the copies go that were there when it was issued, or in its window."""
    commands, completions, account = stream
    one = rdu()
    assert [one.execute(command) for command in commands] == completions
    assert one.counters() == account.counters()
    completions = [done._replace(time=account.ends.get(at, done.time)) for at, done in enumerate(completions)]
    allowed = account.cuts(commands)
    for points in ([], sorted(allowed[cut % len(allowed)] for cut in cuts)):
        socket, results = rdu(), []
        for begin, end in pairwise([0, *points, len(commands)]):
            results += socket.replay(to_columns(commands[begin:end])).T.tolist()
            if data.draw(st.booleans()):  # a checkpoint, and another socket that goes on from it
                state, socket = socket.snapshot(), rdu()
                socket.restore(state)
        assert results == [list(completion) for completion in completions]
        assert socket.counters() == one.counters()
        assert socket.snapshot() == one.snapshot()

"""Does functional mode notice a planner's mistake? Each is injected, and shows as a refusal or as a wrong token."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import pytest

from cluster.generate import Prompt, generate
from node.dataflow.meaning import exchange as exchanges
from node.errors import HardwareError, InvariantError
from node.events import Command, Kind
from node.functional.members import LocalMembers
from node.functional.planned import Planned
from node.functional.serve import Work
from node.functional.socket import Range
from node.functional.texts import Serving, Texts
from tests.tiny import alone, asked, prompts

EXPERTS = 4
GIVEN = prompts(6, EXPERTS)
Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def expected() -> list[list[int]]:
    return [generate(alone(prompt)).answers[0] for prompt in GIVEN]


def answers(sockets: int = 2, given: Sequence[Prompt] = GIVEN, **options: object) -> list[list[int]]:
    return generate(asked(sockets, EXPERTS, 2, given, **options)).answers


def test_nothing_is_wrong_without_a_mistake(expected: list[list[int]]) -> None:
    assert answers() == expected


@pytest.mark.parametrize("which", [0, 1, 4])
def test_an_all_reduce_that_is_dropped(which: int, expected: list[list[int]], monkeypatch: Patch) -> None:
    """Each socket goes on with its own part: their logits, and so their tokens, come apart."""
    calls = [0]
    reduce = exchanges.EXCHANGES["all_reduce"]

    def sometimes(brought: exchanges.Brought) -> list[exchanges.Array]:
        calls[0] += 1
        return [array for _, array in brought] if calls[0] - 1 == which else reduce(brought)

    monkeypatch.setitem(exchanges.EXCHANGES, "all_reduce", sometimes)
    try:
        found = answers()
    except InvariantError as error:
        assert "generated" in str(error)
    else:
        assert found != expected


def test_two_live_symbols_at_one_address(expected: list[list[int]], monkeypatch: Patch) -> None:
    """In an unfused pass the FFN's gate and up projections are alive at once."""
    honest = Planned.of.__func__

    def clashing(cls: type[Planned], program: object, step: object, decoding: bool) -> Planned:
        planned = honest(cls, program, step, decoding)
        planned.addresses["layer[0].up"] = planned.addresses["layer[0].gate"]
        return planned

    right = answers(fusion="unfused")
    monkeypatch.setattr(Planned, "of", classmethod(clashing))
    assert right == expected != answers(fusion="unfused")


def _performed(monkeypatch: Patch, before: dict[Kind, object]) -> None:
    """Before a command of a kind something else is done: ``before[kind](texts, command, serving)``."""
    honest = Texts.perform

    def perform(self: Texts, command: Command, serving: Sequence[Serving]) -> Command:
        act = before.get(Kind(command.kind))
        if act is not None:
            act(self, command, serving)  # type: ignore[operator]
        return honest(self, command, serving)

    monkeypatch.setattr(Texts, "perform", perform)


def test_an_expert_evicted_while_it_is_in_use(monkeypatch: Patch) -> None:
    def evict(texts: Texts, command: Command, _serving: Sequence[Serving]) -> None:
        texts._members.apply(command._replace(kind=Kind.FREE, size=1024))

    _performed(monkeypatch, {Kind.DECODE: evict})
    with pytest.raises(HardwareError, match=r"HBM of socket 0: .* is read, but some of it was never written, or freed"):
        answers()


def test_an_expert_overwritten_by_another_while_it_is_in_use(expected: list[list[int]], monkeypatch: Patch) -> None:
    """The planner gives a second expert the address of the one that runs."""
    sources: dict[int, int] = {}

    def know(_texts: Texts, command: Command, _serving: Sequence[Serving]) -> None:
        sources[command.symbol] = command.address

    def overwrite(texts: Texts, command: Command, _serving: Sequence[Serving]) -> None:
        other = (command.symbol + 1) % EXPERTS
        copy = command._replace(kind=Kind.COPY, symbol=other, source=sources[other])
        texts._members.apply(copy)

    _performed(monkeypatch, {Kind.LOAD: know, Kind.DECODE: overwrite})
    assert answers() != expected


@pytest.mark.parametrize("which", ["of another request", "where nothing was written"])
def test_a_stale_kv_range(which: str, expected: list[list[int]], monkeypatch: Patch) -> None:
    """Decode reads keys that are not the request's."""
    honest, ranges = LocalMembers.serve, list[Range]()

    def serve(self: LocalMembers, work: Work) -> list[list[int]]:
        own = work.parts[0].kv
        ranges.append(own)
        if work.steps:
            other = ranges[0] if which == "of another request" else Range(own.address + own.size // 2, own.size)
            work = work._replace(parts=(work.parts[0]._replace(kv=other), *work.parts[1:]))
        return honest(self, work)

    monkeypatch.setattr(LocalMembers, "serve", serve)
    try:
        found = answers(batch=1)
    except HardwareError as error:
        assert "is read, but some of it was never written" in str(error)
    else:
        assert which == "of another request" and found != expected


def test_weights_are_the_same_after_every_switch(monkeypatch: Patch) -> None:
    """Checksums of what each COPY put in HBM, by expert and socket."""
    sums: dict[tuple[int, int], set[int]] = {}
    copies = [0]
    honest = LocalMembers.apply

    def apply(self: LocalMembers, command: Command) -> None:
        honest(self, command)
        if command.kind == Kind.COPY:
            copies[0] += 1
            for rank, socket in enumerate(self.sockets):
                size = socket.programs[0].weight_bytes
                held = socket.hbm.read(command.address, size)
                sums.setdefault((command.symbol, rank), set()).add(zlib.crc32(held.tobytes()))
                assert (held == socket.ddr.read(command.source, size)).all()

    monkeypatch.setattr(LocalMembers, "apply", apply)
    given = prompts(30, EXPERTS)
    answers(3, given, scheduler="paper", batch=1)
    assert copies[0] > 2 * EXPERTS and len(sums) == 3 * EXPERTS
    assert all(len(found) == 1 for found in sums.values())

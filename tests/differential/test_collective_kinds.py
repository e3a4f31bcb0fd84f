"""Do both modes take the same kind of all-reduce, by the shape that is run, and send the bytes that are charged?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from cluster.content import LocalMembers, local_members
from cluster.generate import Asked, generate
from node.dataflow.batch import Batch
from node.dataflow.compiler import Compiler
from node.dataflow.program import Program
from node.errors import InvariantError
from node.functional.serve import Work
from node.spec import Machine
from tests.tiny import SHAPE, asked, prompts

MESSAGE = 2 * SHAPE.hidden  # bytes of a token
BYTES_PER_S = 10**6  # so that a picosecond is a millionth of a byte


@dataclass
class Watched:
    """Of each pass of a group of sockets: its tokens, the bytes that functional mode sent, those that timing charges.

    Sums over the group: there shares of whole elements are exact.
    """

    passes: list[tuple[int, float, float]] = field(default_factory=list)

    @contextmanager
    def start(self, *arguments: Any) -> Iterator[LocalMembers]:
        with local_members(*arguments) as members:
            assert isinstance(members, LocalMembers)
            honest = members.serve

            def serve(work: Work) -> list[list[int]]:
                before = members.links.sent.total()
                found = honest(work)
                sent = (members.links.sent.total() - before) / 4 * 2  # float32 for BF16
                programs = [socket.programs[work.program] for socket in members.sockets]
                self.passes.append((self._tokens(work), sent, _charged(programs, work, len(found[0]))))
                return found

            members.serve = serve  # type: ignore[method-assign]
            yield members

    def _tokens(self, work: Work) -> int:
        return sum(len(part.tokens) for part in work.parts)


def _charged(programs: Sequence[Program], work: Work, steps: int) -> float:
    """Bytes over the links of all: by the closed form of decode steps, and the cost of a prefill."""
    batch = Batch(tuple(len(part.tokens) for part in work.parts), tuple(part.before for part in work.parts))
    if work.steps:
        busy_ps = sum(steps * program.decode(len(work.parts)).link_ps for program in programs)
    else:
        busy_ps = sum(program.prefill(batch.step)[1] for program in programs)
    return busy_ps / 1e12 * BYTES_PER_S


def _asked(sockets: int, most_direct: int) -> Asked:
    """Twelve prompts of up to 19 tokens in batches of 4; of more tokens than ``most_direct`` nothing goes directly."""
    found = asked(sockets, 3, 2, prompts(12, 3))
    more = (sockets - 1) * (1 - 2 / sockets) * MESSAGE
    return replace(found, machine=_with(found.machine, round(more * (most_direct + 0.5))))


def _with(machine: Machine, hop_worth: int | None) -> Machine:
    return replace(machine, peer=replace(machine.peer, bandwidth=BYTES_PER_S, hop_worth=hop_worth))


@pytest.mark.parametrize("sockets", [3, 4, 8])
@pytest.mark.parametrize("most_direct", [1, 3, 12])
def test_what_functional_mode_sends_is_what_timing_mode_charges(sockets: int, most_direct: int) -> None:
    """In every pass: prompts of 1 to 19 tokens, decode batches of 1 to 4, directly and in two hops."""
    watched = Watched()
    generate(_asked(sockets, most_direct), start=watched.start)
    for _, sent, charged in watched.passes:
        assert sent == pytest.approx(charged, rel=1e-6)
    kinds = Counter(tokens <= most_direct for tokens, _, _ in watched.passes)
    assert min(kinds[True], kinds[False]) > 0


def test_what_is_sent_changes_with_the_kind() -> None:
    """So that the test above would see a wrong choice: of 8 sockets a direct sum sends four times as much."""
    sent = {}
    for most_direct in (0, 1000):
        watched = Watched()
        generate(_asked(8, most_direct), start=watched.start)
        sent[most_direct] = [bytes_sent for _, bytes_sent, _ in watched.passes]
    assert all(few < many for few, many in zip(sent[0], sent[1000], strict=True))


@pytest.mark.parametrize("wrong", ["all", "one"])
def test_another_choice_than_timing_makes_is_caught(wrong: str) -> None:
    """Of all sockets by the bytes; of one by its peers, who are at another collective."""
    watched = Watched()

    @contextmanager
    def start(*arguments: Any) -> Iterator[LocalMembers]:
        with watched.start(*arguments) as members:
            for socket in members.sockets if wrong == "all" else members.sockets[1:2]:
                socket.programs = [_never_direct(program) for program in socket.programs]
            yield members

    if wrong == "one":
        with pytest.raises(InvariantError, match=r"socket 0 is at .* direct all_reduce, socket 1 at .* all_reduce"):
            generate(_asked(4, 12), start=start)
        return
    honest = _charged_honestly(_asked(4, 12))
    generate(_asked(4, 12), start=start)
    pairs = [(sent, charged) for (_, sent, _), charged in zip(watched.passes, honest, strict=True)]
    assert any(sent != pytest.approx(charged, rel=1e-6) for sent, charged in pairs)


def _charged_honestly(given: Asked) -> list[float]:
    watched = Watched()
    generate(given, start=watched.start)
    return [charged for _, _, charged in watched.passes]


def _never_direct(program: Program) -> Program:
    of = program.compiler
    return Program(program.graph, Compiler(_with(of.machine, None), of.members, of.level, of.by_hardware))

"""Functional mode in the planner: each command is done with content when it is given, and says what came of a run.

The end of an answer depends on its tokens: a decode run takes the steps until one of its answers ends, and no more than
``CHUNK``. Where the scheduler cuts a run short afterwards, what was generated beyond is dropped and generated again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from node.dataflow.meaning.operands import Array
from node.errors import InvariantError
from node.events import Command, Kind, Performed, Serving
from node.functional.one_pass import Pass
from node.functional.serve import Part, Sampling, Work
from node.functional.socket import Range

CHUNK = 8  # decode steps between two looks at what came


class Members(Protocol):
    """The sockets of a group, wherever they are."""

    def apply(self, command: Command) -> None:
        """Have each do a LOAD, ALLOCATE, COPY or FREE."""

    def serve(self, work: Work) -> list[list[int]]:
        """Have all do a run together: the tokens of each request."""

    def through(self, works: Sequence[Pass | None]) -> list[Array]:
        """Have all do a pass over images, each its own work: what came out, by rank."""


class Texts:
    """The requests' tokens; ``prompts`` by request, ``programs`` of each expert, ``emit`` is told of each new token."""

    def __init__(
        self,
        members: Members,
        prompts: Mapping[int, Sequence[int]],
        programs: Sequence[int],
        sampling: Sampling,
        emit: Callable[[int, int], None],
    ) -> None:
        self.answers: dict[int, list[int]] = {request: [] for request in prompts}
        self._members, self._prompts, self._programs = members, prompts, programs
        self._sampling, self._emit = sampling, emit
        self._ranges: dict[int, Range] = {}  # KV ranges by symbol

    def perform(self, command: Command, serving: Sequence[Serving]) -> Performed:
        """Do a command, a run for those whom it serves."""
        if command.kind not in (Kind.PREFILL, Kind.DECODE):
            if command.kind == Kind.ALLOCATE:
                self._ranges[command.symbol] = Range(command.address, command.size)
            self._members.apply(command)
            return Performed()
        steps = min(command.steps, CHUNK)
        parts = tuple(self._part(one, prefill=command.kind == Kind.PREFILL) for one in serving)
        work = Work(self._programs[command.symbol], command.address, parts, steps)
        found = self._members.serve(work)
        if len({len(tokens) for tokens in found}) != 1:
            raise InvariantError(f"a run gave its requests {sorted({len(tokens) for tokens in found})} tokens")
        for one, tokens in zip(serving, found, strict=True):
            self._add(one, tokens)
        ended = [one.request for one, tokens in zip(serving, found, strict=True) if self._ends(tokens)]
        return Performed(len(found[0]), ended)

    def _part(self, one: Serving, *, prefill: bool) -> Part:
        request, kv = one.request, self._ranges[one.kv]
        if prefill:
            return Part(request, tuple(self._prompts[request]), 0, kv)
        last = self.answers[request][one.generated - 1]
        return Part(request, (last,), len(self._prompts[request]) + one.generated - 1, kv)

    def _add(self, one: Serving, tokens: Sequence[int]) -> None:
        """New tokens of a request, after those that it has; some may be known already."""
        request, answer = one.request, self.answers[one.request]
        for place, token in enumerate(tokens, one.generated):
            if place < len(answer):
                if answer[place] != token:
                    raise InvariantError(f"request {request}: token {place} was {answer[place]}, and is {token} now")
                continue
            answer.append(token)
            self._emit(request, token)

    def _ends(self, tokens: Sequence[int]) -> bool:
        return bool(tokens) and tokens[-1] in self._sampling.ends

"""The sockets of a group in one process: commands one after another, runs in lockstep."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from node.dataflow.execute import lockstep
from node.errors import InvariantError
from node.events import Command, Kind
from node.functional.serve import Sampling, Work, serve
from node.functional.socket import ContentSocket


class LocalMembers:
    """``sockets`` by rank; ``programs`` of each expert."""

    def __init__(self, sockets: Sequence[ContentSocket], programs: Sequence[int], sampling: Sampling) -> None:
        self.sockets, self._programs, self._sampling = sockets, programs, sampling

    def apply(self, command: Command) -> None:
        """See ``node.functional.texts.Members``."""
        program = self._programs[command.symbol] if command.symbol < len(self._programs) else 0
        if command.kind == Kind.LOAD:  # operator by operator, so that each is read once for all sockets
            for _ in zip_longest(*(socket.load(command, program) for socket in self.sockets)):
                pass
            return
        for socket in self.sockets:
            socket.apply(command, program)

    def serve(self, work: Work) -> list[list[int]]:
        """See ``node.functional.texts.Members``."""
        found = lockstep([serve(socket, work, self._sampling) for socket in self.sockets])
        for rank, tokens in enumerate(found):
            if tokens != found[0]:
                raise InvariantError(f"socket {rank} generated {tokens}, socket 0 {found[0]}")
        return found[0]

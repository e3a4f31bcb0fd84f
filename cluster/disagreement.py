"""A socket that does not do what was planned stops the run; both histories are shown."""

from __future__ import annotations

import numpy as np

from node.events import ROW, Command, Ints, Kind
from node.hardware.tiers import Completion

_SHOWN = 6


class DisagreementError(RuntimeError):
    """Plan and socket differ: a fault of the emulator or of a socket, with both histories in its text."""


def compare(socket: int, planned: Ints, expected: Ints, found: Ints | None, refusal: str | None = None) -> None:
    """Raise ``DisagreementError`` at the first command whose completion, address, bytes or occupancy differs.

    ``planned`` are the commands as columns. ``found`` is None where the socket did nothing, ``refusal`` why it did no
    more.
    """
    done = expected[:, :0] if found is None else found
    count = min(expected.shape[1], done.shape[1])
    differs = np.flatnonzero((expected[:, :count] != done[:, :count]).any(axis=0))
    if len(differs):
        first = int(differs[0])
        fields = [
            f"{name} planned {expected[row, first]:,}, found {done[row, first]:,}"
            for row, name in enumerate(Completion._fields)
            if expected[row, first] != done[row, first]
        ]
        what = f"disagrees with the plan: command {planned[ROW['sequence'], first]}: {'; '.join(fields)}"
    elif refusal is not None:
        first, what = count, f"refused what was planned: {refusal}"
    elif expected.shape[1] != done.shape[1]:
        first = count
        what = f"disagrees with the plan: {expected.shape[1]} commands were planned, {done.shape[1]} were done"
    else:
        return
    shown = range(max(0, first - _SHOWN), first + 1)
    lines = [f"socket {socket} {what}", "  planned:"]
    lines += [f"    {_planned(planned[:, i], expected[:, i])}" for i in shown if i < expected.shape[1]]
    lines += ["  found:"]
    lines += [f"    {_shown(planned, i, done[:, i])}" for i in shown if i < done.shape[1]]
    lines += [f"    {refusal}"] if refusal is not None and first == count else []
    raise DisagreementError("\n".join(lines))


def _shown(planned: Ints, index: int, completion: Ints) -> str:
    """What came of a command; one that was not planned is shown without it."""
    if index < planned.shape[1]:
        return _planned(planned[:, index], completion)
    fields = zip(Completion._fields, completion.tolist(), strict=True)
    return f"not planned: {', '.join(f'{name} {value:,}' for name, value in fields)}"


def _planned(column: Ints, completion: Ints) -> str:
    command = Command(*column.tolist())
    time, address, size, occupancy = (int(value) for value in completion)
    return (
        f"{command.sequence:>8} {Kind(command.kind).name:<8} symbol {command.symbol} issued {command.issued:,} ps "
        f"-> done {time:,} ps, address {address:,}, {size:,} bytes, occupancy {occupancy:,}"
    )

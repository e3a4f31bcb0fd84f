"""A socket that does not do what was planned stops the run; both histories are shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from node.events import Ints, Kind
from node.hardware.rdu import Completion
from node.simulation import Planned

_SHOWN = 6


class DisagreementError(RuntimeError):
    """Plan and socket differ: a fault of the emulator or of a socket, with both histories in its text."""


def compare(socket: int, planned: Sequence[Planned], expected: Ints, found: Ints) -> None:
    """Raise ``DisagreementError`` at the first command whose completion, address, bytes or occupancy differs."""
    count = min(expected.shape[1], found.shape[1])
    differs = np.flatnonzero((expected[:, :count] != found[:, :count]).any(axis=0))
    if len(differs):
        first = int(differs[0])
        fields = [
            f"{name} planned {expected[row, first]:,}, found {found[row, first]:,}"
            for row, name in enumerate(Completion._fields)
            if expected[row, first] != found[row, first]
        ]
        what = f"command {planned[first].command.sequence}: {'; '.join(fields)}"
    elif expected.shape[1] != found.shape[1]:
        first = count
        what = f"{expected.shape[1]} commands were planned, {found.shape[1]} were done"
    else:
        return
    shown = range(max(0, first - _SHOWN), first + 1)
    lines = [f"socket {socket} disagrees with the plan: {what}", "  planned:"]
    lines += [f"    {_planned(planned[i], expected[:, i])}" for i in shown if i < expected.shape[1]]
    lines += ["  found:"]
    lines += [f"    {_planned(planned[i], found[:, i])}" for i in shown if i < found.shape[1]]
    raise DisagreementError("\n".join(lines))


def refused(socket: int, planned: Sequence[Planned], reason: str) -> DisagreementError:
    """The error for a socket that refused a command of the plan."""
    number = reason.removeprefix("command ").partition(":")[0]
    at = [i for i, plan in enumerate(planned) if str(plan.command.sequence) == number]
    first = at[0] if at else len(planned) - 1
    lines = [f"socket {socket} refused what was planned: {reason}", "  planned:"]
    for plan in planned[max(0, first - _SHOWN) : first + 1]:
        lines.append(f"    {_planned(plan, np.array(plan.completions[0], dtype=np.int64))}")
    return DisagreementError("\n".join(lines))


def _planned(plan: Planned, completion: Ints) -> str:
    command = plan.command
    time, address, size, occupancy = (int(value) for value in completion)
    return (
        f"{command.sequence:>8} {Kind(command.kind).name:<8} symbol {command.symbol} issued {command.issued:,} ps "
        f"-> done {time:,} ps, address {address:,}, {size:,} bytes, occupancy {occupancy:,}"
    )

"""A window of a group's commands as planned, with what each kind of socket should answer.

The representatives do the window as sockets do, so that the planner's own mistakes are refused before a socket sees
them; when a run or a copy ends, they and the plan must agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from node.errors import InvariantError
from node.events import ROW, Ints, Kind
from node.hardware.rdu import Rdu
from node.plan import Plan


@dataclass(frozen=True)
class Planned:
    """``columns``: commands, a row per field of ``Command``; ``expected``: by kind of socket a row per field of
    ``Completion``; ``ends``: when the group is done with each.
    """

    columns: Ints
    expected: list[Ints]
    ends: Ints

    def __len__(self) -> int:
        return len(self.ends)


def planned_of(plan: Plan, kinds: Sequence[Rdu]) -> Planned:
    """Have the representatives do ``plan``; ``InvariantError`` where they are not done when it says."""
    expected = [rdu.replay(plan.columns) for rdu in kinds]
    slowest = np.maximum.reduce([found[0] for found in expected])
    # members step together: where they take turns at being the slowest, each is done before the group is
    apart = len(kinds) > 1 and plan.columns[ROW["kind"]] == Kind.DECODE
    wrong = np.flatnonzero((slowest > plan.ends) | ((slowest != plan.ends) & ~np.asarray(apart)))
    if len(wrong):
        first = wrong[0]
        raise InvariantError(
            f"command {plan.columns[ROW['sequence'], first]} of group {plan.columns[ROW['group'], first]} is planned "
            f"to end at {plan.ends[first]:,} ps, but its sockets are done at {slowest[first]:,}"
        )
    return Planned(plan.columns, expected, plan.ends)

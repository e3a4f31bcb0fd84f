"""Many equal nodes behind a front-end: which requests go to which.

Between two looks of the front-end nodes have nothing to do with each other.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass

import numpy as np

from cluster.front_end import FrontEnd, View, looks
from cluster.nodes.node import Outcome
from cluster.nodes.workers import Crew, Going, States
from node.events import Ints
from node.request import Requests
from node.units import NEVER, Picoseconds


@dataclass(frozen=True)
class Halt:
    """Where a fleet is: to which nodes requests were ``sent`` so far, and what is known of them.

    ``there``: whether all have come to where the next are sent. ``courses``: of each node, packed; ``states``: how far
    each is.
    """

    sent: Ints
    there: bool
    view: View
    states: States
    courses: list[bytes]


class Fleet(Crew):
    """The nodes of a crew behind a front-end."""

    def run(self, requests: Requests, front_end: FrontEnd, staleness: Picoseconds | None) -> tuple[Ints, list[Outcome]]:
        """The node of each request, and what came of each node. ``staleness``: None where nobody looks at nodes."""
        rows = np.array(requests.columns()[1:])
        spans = [(0, 0, len(requests))] if staleness is None else list(looks(requests.arrival, staleness))
        ends = [start for start, _, _ in spans[1:]] + [NEVER]
        chosen = np.empty(len(requests), dtype=np.int64)
        pauses, sent, there = self.live.pauses, 0, True
        halt: Halt | None = None if pauses.begun is None else pickle.loads(pauses.begun)
        going = Going(self)
        if halt is not None:
            going = Going(self, halt.states, halt.courses)
            sent, there, front_end.view = len(halt.sent), halt.there, halt.view
            chosen[:sent] = halt.sent
        for (_, _, upto), until in zip(spans, ends, strict=True):
            if upto <= sent if there else upto < sent:  # it has been before
                continue
            of_span = chosen[sent:upto]
            of_span[:] = front_end.send(requests.expert[sent:upto].tolist())
            given = {node: rows[:, sent:upto][:, of_span == node] for node in np.unique(of_span).tolist()}
            sent = upto
            for there in going.advance(given, until):
                if there:
                    front_end.view.outstanding[:] = going.outstanding
                if not (there and sent == len(requests)) and pauses.due():
                    halted = Halt(chosen[:sent], there, front_end.view, *going.pause())
                    pauses.keep(pickle.dumps(halted, protocol=pickle.HIGHEST_PROTOCOL))
        return chosen, going.outcomes()

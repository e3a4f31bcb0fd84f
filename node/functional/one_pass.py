"""One pass over images on one socket: arrays in, an array out, and nothing is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from node.dataflow.execute import Exchange
from node.dataflow.meaning.operands import Array
from node.functional.socket import ContentSocket


class Pass(NamedTuple):
    """A pass of ``program`` with the ``weights`` at an address over what is ``given``, by tensor, a row per image."""

    program: int
    weights: int
    given: Mapping[str, Array]


def through(socket: ContentSocket, work: Pass | None) -> Exchange[Array]:
    """What comes out, a row per image; a socket without ``work`` waits for the others and has no row."""
    if work is None:
        return np.zeros((0, 0), dtype=np.float32)
    return (yield from socket.through(*work))

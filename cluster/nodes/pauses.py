"""When a run is to be put aside, and what it goes on from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _never() -> bool:
    return False


def _drop(_state: bytes) -> None:
    pass


@dataclass(frozen=True)
class Pauses:
    """``due`` is asked between windows whether to ``keep`` the run's state; ``begun``: the state to go on from.

    A run goes on after it was kept, unless ``keep`` raises. A state says how to go on with one workload on one
    deployment, on any backend, in windows of any length, with sockets and nodes shared out anew; it is a pickle.
    """

    due: Callable[[], bool] = _never
    keep: Callable[[bytes], None] = _drop
    begun: bytes | None = None


UNINTERRUPTED = Pauses()

"""What tests of disagreements share."""

from __future__ import annotations

import pytest

from cluster.backends import LocalBackend
from node.events import Ints
from tests.differential.tampering import Tampered, serve


@pytest.fixture(scope="session")
def windows() -> list[Ints]:
    """The windows of commands of an honest run."""
    seen: list[Ints] = []

    def see(_window: int, columns: Ints) -> Ints:
        seen.append(columns)
        return columns

    assert serve(Tampered(stream=see)).summary == serve(LocalBackend()).summary
    assert len(seen) >= 4
    return seen

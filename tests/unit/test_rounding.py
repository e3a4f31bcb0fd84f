"""Is BF16 rounded as hardware does, and where the machine keeps it?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.content import LocalMembers, local_members
from cluster.generate import generate
from node.dataflow.meaning.rounding import to_bf16
from tests.tiny import asked, prompts


@pytest.mark.parametrize(
    ("number", "rounded"),
    [
        (1.0, 1.0),
        (1 + 2**-7, 1 + 2**-7),  # the next that BF16 has
        (1 + 2**-8, 1.0),  # halfway: to the even one below
        (1 + 3 * 2**-8, 1 + 2**-6),  # and above
        (1 + 2**-8 + 2**-20, 1 + 2**-7),
        (-(1 + 2**-8), -1.0),
        (3.4e38, float("inf")),
        (0.0, 0.0),
        (2.0**-133, 2.0**-133),  # the smallest subnormal
    ],
)
def test_rounding_is_to_nearest_even(number: float, rounded: float) -> None:
    assert to_bf16(np.array([number], np.float32))[0] == np.float32(rounded)


@given(st.floats(-(2.0**127), 2.0**127, width=32))
def test_no_number_that_bf16_has_is_nearer(number: float) -> None:
    given_one = np.array([number], np.float32)
    found = to_bf16(given_one)
    bits = found.view(np.uint32)
    assert bits[0] & 0xFFFF == 0
    for other in ((bits + np.uint32(1 << 16)), (bits - np.uint32(1 << 16))):
        neighbour = other.view(np.float32)[0]
        if np.isfinite(neighbour):
            assert abs(float(found[0]) - number) <= abs(float(neighbour) - number)


def test_everything_in_hbm_is_bf16_and_fusion_changes_nothing() -> None:
    """After a run: weights, KV ranges, what kernels handed on. In float32 it is not."""
    low_bits: dict[str, bool] = {}

    def run(**options: Any) -> list[list[int]]:
        @contextmanager
        def start(*arguments: Any) -> Iterator[LocalMembers]:
            with local_members(*arguments) as members:
                assert isinstance(members, LocalMembers)
                yield members
                found = [socket.hbm._buffer.view(np.uint32) & 0xFFFF for socket in members.sockets]
                low_bits[str(options)] = any(bits.any() for bits in found)

        return generate(asked(2, 3, 2, prompts(8, 3), **options), start=start).answers

    unfused, fused = (run(precision="bf16", fusion=level) for level in ("unfused", "fused"))
    plain = run()
    assert unfused == fused
    assert list(low_bits.values()) == [False, False, True]
    assert sum(one == other for one, other in zip(plain, fused, strict=True)) < len(plain)

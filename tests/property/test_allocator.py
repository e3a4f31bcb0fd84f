"""Whatever is asked and given back: does no byte ever have two owners or none?"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from node.allocator import Allocator


class AllocatorMachine(RuleBasedStateMachine):
    """The allocator beside a list that says of each byte whether it is taken."""

    taken = Bundle("taken")

    @initialize(start=st.integers(0, 100), size=st.integers(1, 48))
    def begin(self, start: int, size: int) -> None:
        self.start, self.size = start, size
        self.allocator = Allocator(start, size)
        self.bytes = [False] * size
        self.ranges: dict[int, int] = {}

    @rule(target=taken, size=st.integers(1, 20))
    def allocate(self, size: int) -> int | None:
        fits = [at for at in range(self.size - size + 1) if not any(self.bytes[at : at + size])]
        address = self.allocator.allocate(size)
        assert address == (self.start + fits[0] if fits else None)  # first fit; None only where nothing fits
        if address is not None:
            self.bytes[fits[0] : fits[0] + size] = [True] * size
            self.ranges[address] = size
        return address

    @rule(address=consumes(taken))
    def release(self, address: int | None) -> None:
        if address is not None:
            size = self.ranges.pop(address)
            assert self.allocator.release(address) == size
            at = address - self.start
            assert all(self.bytes[at : at + size])
            self.bytes[at : at + size] = [False] * size

    @invariant()
    def free_and_taken_are_all_there_is(self) -> None:
        if hasattr(self, "allocator"):
            assert self.allocator.free + sum(self.ranges.values()) == self.size
            assert self.allocator.free == self.bytes.count(False)
            holes = "".join("x" if taken else "." for taken in self.bytes).split("x")
            assert self.allocator.largest_hole == max(map(len, holes))

    def teardown(self) -> None:
        if hasattr(self, "allocator"):
            for address in self.ranges:
                self.allocator.release(address)
            assert self.allocator.largest_hole == self.allocator.free == self.size
            assert self.allocator.allocate(self.size) == self.start


TestAllocator = AllocatorMachine.TestCase
TestAllocator.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

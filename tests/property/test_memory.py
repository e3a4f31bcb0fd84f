"""Does a tier accept and refuse exactly what a table with one entry for each byte does?"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from node.errors import HardwareError
from node.hardware.memory import Memory

CAPACITY = 40
SYMBOLS = st.integers(0, 6)
TIMES = st.none() | st.integers(0, 20)


class MemoryMachine(RuleBasedStateMachine):
    """The tier beside a dict from byte to symbol and one from symbol to the time of its content."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory("HBM", CAPACITY)
        self.owner: dict[int, int] = {}
        self.valid: dict[int, int | None] = {}
        self.peak = 0

    def start(self, symbol: int) -> int:
        return min(byte for byte, owner in self.owner.items() if owner == symbol)

    @rule(symbol=SYMBOLS, address=st.integers(-2, CAPACITY + 2), size=st.integers(-1, 12), valid=TIMES)
    def allocate(self, symbol: int, address: int, size: int, valid: int | None) -> None:
        wanted = range(address, address + size)
        inside = size > 0 and address >= 0 and address + size <= CAPACITY
        if inside and symbol not in self.valid and not any(byte in self.owner for byte in wanted):
            self.memory.allocate(symbol, address, size, valid)
            self.owner.update(dict.fromkeys(wanted, symbol))
            self.valid[symbol] = valid
            self.peak = max(self.peak, len(self.owner))
        else:
            with pytest.raises(HardwareError):
                self.memory.allocate(symbol, address, size, valid)

    @rule(symbol=SYMBOLS)
    def free(self, symbol: int) -> None:
        if symbol not in self.valid:
            with pytest.raises(HardwareError, match="not alive"):
                self.memory.free(symbol)
            return
        assert self.memory.free(symbol) == self.start(symbol)
        self.owner = {byte: owner for byte, owner in self.owner.items() if owner != symbol}
        del self.valid[symbol]

    @rule(symbol=SYMBOLS, valid=st.integers(0, 20))
    def fill(self, symbol: int, valid: int) -> None:
        if symbol in self.valid:
            self.memory.fill(symbol, valid)
            self.valid[symbol] = valid
        else:
            with pytest.raises(HardwareError, match="not alive"):
                self.memory.fill(symbol, valid)

    @rule(symbol=SYMBOLS, now=st.integers(0, 20))
    def read(self, symbol: int, now: int) -> None:
        valid = self.valid.get(symbol)
        if valid is not None and valid <= now:
            assert self.memory.read(symbol, now) == self.start(symbol)
        else:
            with pytest.raises(HardwareError):
                self.memory.read(symbol, now)

    @rule()
    def restart(self) -> None:
        state = self.memory.snapshot()
        self.memory = Memory("HBM", CAPACITY)
        self.memory.restore(state)
        assert self.memory.snapshot() == state

    @invariant()
    def both_hold_the_same(self) -> None:
        assert (self.memory.used, self.memory.peak) == (len(self.owner), self.peak)
        assert self.memory.used <= CAPACITY
        for symbol in self.valid:
            assert self.memory.address(symbol) == self.start(symbol)


TestMemory = MemoryMachine.TestCase
TestMemory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

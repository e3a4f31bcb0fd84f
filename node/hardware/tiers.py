"""The tiers of one socket, DDR and HBM: what each command does to them, and what it must not do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from node.errors import HardwareError
from node.events import Command, Ints, Kind, Tier
from node.hardware.at_once import Spans, do_at_once
from node.hardware.memory import Memory
from node.spec import Machine
from node.units import Bytes, Picoseconds


class Completion(NamedTuple):
    """What came of a command: when it was complete, the symbol's address, bytes moved, bytes live in its tier."""

    time: Picoseconds
    address: int
    bytes: Bytes
    occupancy: Bytes


class Tiers:
    """DDR and HBM of the socket ``name``; a symbol in HBM is in use while an engine reads or writes it."""

    def __init__(self, name: str, machine: Machine) -> None:
        self.ddr = Memory(f"DDR of {name}", machine.ddr.capacity)
        self.hbm = Memory(f"HBM of {name}", machine.hbm.capacity)
        self._in_use: dict[int, Picoseconds] = {}  # symbol in HBM -> until when

    def change(self, command: Command) -> Completion:
        """ALLOCATE, LOAD or FREE."""
        tier = self.hbm if command.tier == Tier.HBM else self.ddr
        if command.kind == Kind.FREE:
            self._check_unused(command, tier)
            _same_address(tier, command.symbol, tier.address(command.symbol), command.address)
            tier.free(command.symbol)
        else:
            valid = command.issued if command.kind == Kind.LOAD else None
            tier.allocate(command.symbol, command.address, command.size, valid)
        return Completion(command.issued, command.address, command.size, tier.used)

    def copy(self, command: Command, size: Bytes, start: Picoseconds, end: Picoseconds) -> Completion:
        """COPY of a shard, or IMAGE, of ``size`` bytes from DDR to HBM."""
        symbol = command.symbol
        _same_address(self.ddr, symbol, self.ddr.read(symbol, start), command.source)
        _same_address(self.hbm, symbol, self.hbm.address(symbol), command.address)
        room = self.hbm.size(symbol)
        if command.size != room or size > room:
            wrong = size if command.size == room else command.size
            raise HardwareError(f"{self.hbm.name}: symbol {symbol} has {room:,} bytes, not {wrong:,}")
        self.hbm.fill(symbol, end)
        self._in_use[symbol] = end
        return Completion(end, command.address, size, self.hbm.used)

    def transfer(self, command: Command, start: Picoseconds, end: Picoseconds) -> Completion:
        """SWAP of KV cache, SEND or RECEIVE of a home copy: to its room in DDR, or from there."""
        symbol, kind = command.symbol, command.kind
        comes = kind == Kind.RECEIVE or (kind == Kind.SWAP and command.tier == Tier.DDR)
        found = self.ddr.address(symbol) if comes else self.ddr.read(symbol, start)
        _same_address(self.ddr, symbol, found, command.address)
        if command.size != self.ddr.size(symbol):
            raise HardwareError(
                f"{self.ddr.name}: symbol {symbol} has {self.ddr.size(symbol):,} bytes, not {command.size:,}"
            )
        if comes:
            self.ddr.fill(symbol, end)
        tier = self.ddr if command.tier == Tier.DDR else self.hbm
        return Completion(end, command.address, command.size, tier.used)

    def read(
        self, command: Command, size: Bytes, since: tuple[Picoseconds, Picoseconds], end: Picoseconds
    ) -> Completion:
        """PREFILL or DECODE with weights of ``size`` bytes; ``since``: it needs its image, and all of the weights."""
        start, whole = since
        _same_address(self.hbm, command.symbol, self.hbm.read(command.symbol, whole), command.address)
        if command.source:
            self.hbm.read(command.source, start)
            self._in_use[command.source] = end
        self._in_use[command.symbol] = end
        return Completion(end, command.address, size, self.hbm.used)

    def do_at_once(self, columns: Ints, sizes: Ints, spans: Spans) -> Ints | None:
        """A window of commands; see ``node.hardware.at_once``."""
        return do_at_once((self.ddr, self.hbm), self._in_use, columns, sizes, spans)

    def snapshot(self) -> dict[str, object]:
        """All state as plain numbers."""
        in_use = [list(use) for use in sorted(self._in_use.items())]
        return {"ddr": self.ddr.snapshot(), "hbm": self.hbm.snapshot(), "in_use": in_use}

    def restore(self, state: Mapping[str, object]) -> None:
        """Take the state of ``snapshot``; the tiers must be new."""
        ddr, hbm, in_use = (state[key] for key in ("ddr", "hbm", "in_use"))
        assert isinstance(ddr, dict) and isinstance(hbm, dict) and isinstance(in_use, list)
        self.ddr.restore(ddr)
        self.hbm.restore(hbm)
        self._in_use = dict(in_use)

    def _check_unused(self, command: Command, tier: Memory) -> None:
        until = self._in_use.get(command.symbol, 0) if tier is self.hbm else 0
        if command.issued < until:
            raise HardwareError(
                f"{tier.name}: symbol {command.symbol} freed at {command.issued:,} ps, in use until {until:,}"
            )


def _same_address(tier: Memory, symbol: int, found: int, expected: int) -> None:
    if found != expected:
        raise HardwareError(f"{tier.name}: symbol {symbol} is at {found:,}, not {expected:,}")

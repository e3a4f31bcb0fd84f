"""Picoseconds and bytes as integers, and the reading and writing of quantities with their units.

Decimal prefixes are powers of ten (1 GB = 10^9 bytes), binary ones powers of two (1 GiB = 2^30 bytes).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from node.errors import InputError

Picoseconds = int
Bytes = int

PS_PER_S = 10**12
MS = 10**9
BLOCK = 2**15  # numbers: 256 KiB
MOST_PS = 9 * 10**18  # what 64-bit picoseconds hold: 104 days
NEVER: Picoseconds = 2**63

_DECIMAL = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_SMALL = {"p": Decimal("1e-12"), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3")}

_BYTE_UNITS = {f"{prefix}B": Decimal(factor) for prefix, factor in {**_DECIMAL, **_BINARY}.items()}
UNITS: dict[str, dict[str, Decimal]] = {
    "bytes": _BYTE_UNITS,
    "bytes/s": {f"{unit}/s": factor for unit, factor in _BYTE_UNITS.items()},
    "bytes/cycle": {"B/cycle": Decimal(1)},
    "cycles": {"cycles": Decimal(1)},
    "s": {f"{prefix}s": factor for prefix, factor in {**_SMALL, "": Decimal(1)}.items()},
    "Hz": {f"{prefix}Hz": Decimal(factor) for prefix, factor in _DECIMAL.items()},
    "cost/h": {"": Decimal(1)},  # in whatever currency the user counts
    "W": {f"{prefix}W": Decimal(factor) for prefix, factor in _DECIMAL.items()},
    "count": {"": Decimal(1)},
    "fraction": {"": Decimal(1), "%": Decimal("0.01")},
}
_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+(?:_[0-9]+)*)"  # thousands may be grouped by commas
_QUANTITY = re.compile(rf"\s*([+-]?{_WHOLE}(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{{1,3}})?)\s*(\S*)\s*")


def parse(text: str | int | float, dimension: str, where: str) -> float:
    """Read a quantity such as ``"1.8 TB/s"``; the result is in the base unit of ``dimension``.

    ``dimension`` is a key of ``UNITS``; ``where`` names the key and the file for the error. Only counts, fractions
    and costs may be bare numbers. Raises ``InputError`` for another unit, a negative number or a NaN.
    """
    units = UNITS[dimension]
    match = None if isinstance(text, bool) else _QUANTITY.fullmatch(str(text))
    unit = "" if match is None else match.group(2).replace("µ", "u")
    try:
        number = Decimal(match.group(1).replace("_", "").replace(",", "")) if match else Decimal("nan")
    except InvalidOperation:
        number = Decimal("nan")
    value = float(number * units.get(unit, Decimal("nan")))
    if not math.isfinite(value) or number < 0:
        example = {"count": "8", "fraction": "0.85", "cost/h": "98.5"}.get(dimension) or f"1.5 {list(units)[-1]}"
        allowed = ", ".join(name or "(none)" for name in units)
        raise InputError(
            f"{where} = {text!r}: not a non-negative quantity in {dimension}; "
            f"allowed units: {allowed}; for example {example!r}"
        )
    return value


def whole(text: str | int | float, dimension: str, where: str) -> int:
    """Read a quantity that must be a whole number of base units (bytes, counts); raises ``InputError``."""
    value = parse(text, dimension, where)
    if value != int(value):
        raise InputError(f"{where} = {text!r}: must be a whole number of {dimension}")
    return int(value)


def picoseconds(text: str | int | float, where: str) -> Picoseconds:
    """Read a duration such as ``"50 ms"``, rounded once to picoseconds; raises ``InputError``."""
    value = parse(text, "s", where)
    if value > MOST_PS / PS_PER_S:
        raise InputError(f"{where} = {text!r}: must be at most {MOST_PS // PS_PER_S:,} s")
    return round(value * PS_PER_S)


def transfer_ps(size: Bytes, bytes_per_s: float) -> Picoseconds:
    """Time for ``size`` bytes at a rate: the exact quotient, rounded up to a whole picosecond."""
    to_ps(size / bytes_per_s, f"a transfer of {size:,} bytes")
    return math.ceil(Fraction(size * PS_PER_S) / Fraction(bytes_per_s))


def blocks(count: int) -> Iterator[slice]:
    """Parts of so many numbers, small enough that what is made of them on the way is memory that is used again.

    New memory costs more than the arithmetic on it: 8 MB take 2 to 10 ms where a system has to find them first.
    """
    return (slice(first, min(first + BLOCK, count)) for first in range(0, count, BLOCK))


def exact_sum(column: npt.NDArray[np.int64]) -> int:
    """The sum of a column of picoseconds as a Python int: int64 would overflow at 107 request-days."""
    parts = [column[block] for block in blocks(len(column))]
    return sum((int((part >> 32).sum()) << 32) + int((part & 0xFFFFFFFF).sum()) for part in parts)


def to_ps(value_s: float, what: str) -> Picoseconds:
    """Seconds as whole picoseconds; ``InputError`` for more than virtual time can hold."""
    if not value_s <= MOST_PS / PS_PER_S:
        raise InputError(
            f"{what} takes {value_s:.3g} s, but virtual time ends at {MOST_PS // PS_PER_S:,} s: a number of the "
            "machine is too slow for this model or workload"
        )
    return round(value_s * PS_PER_S)


def seconds(ps: Picoseconds) -> float:
    """Picoseconds as seconds, for people and for files."""
    return ps / PS_PER_S


def show_bytes(size: float) -> str:
    """Bytes for people, in binary units: ``64.0 GiB``."""
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} B"


def show_seconds(value: float) -> str:
    """Seconds for people, three digits: ``13.6 ms``; whole seconds from 1,000 on."""
    if value == 0:
        return "0 s"
    scales = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9), ("ps", 1e-12))
    in_units = ((unit, float(f"{value / factor:.3g}")) for unit, factor in scales)
    unit, rounded = next((found for found in in_units if abs(found[1]) >= 1), ("ps", 0.0))
    return f"{value:,.0f} s" if abs(rounded) >= 1000 else f"{rounded:g} {unit}"

"""Is a quantity read as what it says, in one base unit, and is what says nothing refused?"""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from node.errors import InputError
from node.units import UNITS, parse, picoseconds, seconds, show_bytes, show_seconds, transfer_ps, whole


def complaint(text: object, dimension: str) -> str:
    with pytest.raises(InputError) as caught:
        parse(text, dimension, "hbm.capacity of my.toml")  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("7 B", "bytes", 7),
        ("3 kB", "bytes", 3_000),
        ("3 KiB", "bytes", 3_072),
        ("80 MB", "bytes", 80_000_000),
        ("1 MiB", "bytes", 1_048_576),
        ("80 GB", "bytes", 80_000_000_000),
        ("64 GiB", "bytes", 68_719_476_736),
        ("1 TB", "bytes", 1_000_000_000_000),
        ("1.5 TiB", "bytes", 1_649_267_441_664),
        ("2 PB", "bytes", 2_000_000_000_000_000),
        ("1.8 TB/s", "bytes/s", 1.8e12),
        ("1 GiB/s", "bytes/s", 1_073_741_824),
        ("64 B/cycle", "bytes/cycle", 64),
        ("3 ps", "s", 3e-12),
        ("500 ns", "s", 5e-7),
        ("3.871 us", "s", 3.871e-6),
        ("3.871 µs", "s", 3.871e-6),
        ("38.92 ms", "s", 0.03892),
        ("30 s", "s", 30),
        ("5 Hz", "Hz", 5),
        ("1.5976 GHz", "Hz", 1_597_600_000),
        ("2 THz", "Hz", 2e12),
        ("630 W", "W", 630),
        ("10 kW", "W", 10_000),
        ("1040", "count", 1040),
        (8, "count", 8),
        (0.85, "fraction", 0.85),
        ("0.85", "fraction", 0.85),
        ("85 %", "fraction", 0.85),
    ],
)
def test_a_quantity_is_read_in_its_base_unit(text: str | float, dimension: str, value: float) -> None:
    assert parse(text, dimension, "here") == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("  80GB ", 80e9), ("1_000 B", 1000), ("1,000,000 B", 1e6), ("1e3 B", 1000), ("1.5E-1 kB", 150), ("+2 B", 2)],
)
def test_the_same_quantity_may_be_written_in_several_ways(text: str, value: float) -> None:
    assert parse(text, "bytes", "here") == value


@pytest.mark.parametrize("dimension", sorted(set(UNITS) - {"count", "fraction", "cost/h"}))
@pytest.mark.parametrize("bare", [3, 3.5, "3"])
def test_only_counts_fractions_and_costs_may_be_bare_numbers(dimension: str, bare: str | float) -> None:
    assert "allowed units" in complaint(bare, dimension)
    assert {parse(bare, of, "here") for of in ("count", "fraction", "cost/h")} == {float(bare)}


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("3 gb", "bytes"),  # a prefix has one spelling
        ("3 KB", "bytes"),
        ("3 Gb", "bytes"),
        ("3 mB", "bytes"),
        ("3 GB/s", "bytes"),
        ("3 GB", "bytes/s"),
        ("3 GB s", "bytes/s"),
        ("3 min", "s"),
        ("3 KiHz", "Hz"),
        ("3 %", "count"),
        ("-1 B", "bytes"),
        ("nan B", "bytes"),
        ("inf B", "bytes"),
        (float("nan"), "fraction"),
        (float("inf"), "count"),
        (True, "count"),
        ("", "count"),
        ("GB", "bytes"),
        (".5", "fraction"),
        ("1 2 B", "bytes"),
        ("-0.5", "fraction"),
    ],
)
def test_what_is_no_quantity_of_the_dimension_is_refused(text: str | float, dimension: str) -> None:
    assert repr(text) in complaint(text, dimension)


def test_a_refusal_says_where_what_which_units_and_an_example() -> None:
    message = complaint("64 gigs", "bytes")
    assert message.startswith("hbm.capacity of my.toml = '64 gigs'")
    assert all(f" {unit}" in message for unit in UNITS["bytes"])
    assert message.endswith("for example '1.5 TiB'")
    assert complaint("many", "count").endswith("allowed units: (none); for example '8'")
    assert "(none), %; for example '0.85'" in complaint("much", "fraction")


@pytest.mark.parametrize("text", ["1e400 B", "1e999999 TB"])
def test_a_number_beyond_all_machines_is_refused(text: str) -> None:
    complaint(text, "bytes")


@pytest.mark.parametrize("text", ["1,5 GB", "1,2,3 GB", "1_ GB"])
def test_a_comma_that_groups_no_thousands_is_refused(text: str) -> None:
    complaint(text, "bytes")


def test_a_whole_quantity_is_an_int_of_base_units() -> None:
    size = whole("0.5 MiB", "bytes", "here")
    assert (size, type(size)) == (524_288, int)
    assert whole("1e3", "count", "here") == 1000
    with pytest.raises(InputError, match=r"^here = '0\.3 B': must be a whole number of bytes$"):
        whole("0.3 B", "bytes", "here")
    with pytest.raises(InputError, match=r"^here = 2\.5: must be a whole number of count$"):
        whole(2.5, "count", "here")


def test_a_duration_is_rounded_once_to_picoseconds() -> None:
    assert picoseconds("38.92 ms", "here") == 38_920_000_000
    assert picoseconds("0.0004 ns", "here") == 0
    assert picoseconds("0.0006 ns", "here") == 1
    assert type(picoseconds("1 s", "here")) is int
    with pytest.raises(InputError, match=r"^here = 5"):
        picoseconds(5, "here")
    assert seconds(1_500_000_000_000) == 1.5


def test_a_duration_fits_64_bits_of_picoseconds() -> None:
    assert picoseconds("9e6 s", "here") == 9 * 10**18
    with pytest.raises(InputError, match=r"^here = '9000001 s': must be at most 9,000,000 s$"):
        picoseconds("9000001 s", "here")


@pytest.mark.parametrize(
    ("size", "rate", "ps"),
    [
        (0, 1e12, 0),
        (1, 1e12, 1),
        (1, 3e12, 1),
        (3, 3e12, 1),
        (4, 3e12, 2),
        (10, 4e12, 3),
        (13_476_831_232, 32e9, 421150976000),
    ],
)
def test_a_transfer_is_rounded_up_to_a_picosecond(size: int, rate: float, ps: int) -> None:
    assert transfer_ps(size, rate) == ps
    assert type(transfer_ps(size, rate)) is int


@example(size=4, rate=32 * 10**9)
@given(size=st.integers(0, 2**40), rate=st.integers(10**9, 10**13))
def test_a_transfer_is_the_exact_quotient_rounded_up(size: int, rate: int) -> None:
    assert transfer_ps(size, float(rate)) == math.ceil(Fraction(size * 10**12, rate))


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536 * 1024, "1.5 MiB"),
        (64 * 2**30, "64.0 GiB"),
        (12 * 2**40, "12.0 TiB"),
    ],
)
def test_bytes_are_shown_in_binary_units(size: int, shown: str) -> None:
    assert show_bytes(size) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 s"),
        (5e-12, "5 ps"),
        (1e-9, "1 ns"),
        (3.871e-6, "3.87 us"),
        (0.0136, "13.6 ms"),
        (1, "1 s"),
        (1234.4, "1,234 s"),
        (-0.5, "-500 ms"),
    ],
)
def test_seconds_are_shown_with_three_digits(value: float, shown: str) -> None:
    assert show_seconds(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.9996, "1 s"),
        (999.7, "1,000 s"),
        (999.4, "999 s"),
        (-5000, "-5,000 s"),
        (1e-9 - 1e-13, "1 ns"),
        (1e-13, "0 ps"),
    ],
)
def test_a_number_that_rounds_up_to_a_thousand_takes_the_next_unit(value: float, shown: str) -> None:
    assert show_seconds(value) == shown

"""Request traces, read exactly, in whole picoseconds: Azure, BurstGPT (CSV), Mooncake and our own (JSONL)."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node.errors import InputError
from node.units import PS_PER_S, Picoseconds

Int64s = NDArray[np.int64]
MOST_TOKENS = 10**9
LONGEST_SPAN_PS = 6 * 10**18  # 69 days; int64 picoseconds overflow after 106

_AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_BURST = ("Timestamp", "Request tokens", "Response tokens")
_JSON_NEEDED = ("timestamp", "input_length", "output_length")
_JSON_OPTIONAL = ("hash_ids", "expert")
_FORMATS = (
    f"formats read: CSV of {','.join(_AZURE)} (Azure LLM inference), CSV with {','.join(_BURST)} (BurstGPT), "
    f"JSONL with {', '.join(_JSON_NEEDED)} and, as an option, hash_ids (Mooncake) or expert"
)
_HASHES = "hash_ids ignored: prefix reuse is not modelled"
_LONGEST_LINE = 2**20  # bytes
_CLOCK = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|\+00:00)?", re.ASCII)
_DECIMAL = re.compile(r"\d+(?:\.\d*)?(?:[eE][+-]?\d{1,3})?", re.ASCII)
_Row = tuple[int, ...]  # arrival in ps, input tokens, output tokens and, where the trace has it, the expert


@dataclass(frozen=True, eq=False)
class Trace:
    """One entry per request in each array, in order of arrival.

    ``arrival_ps`` starts at 0; the tokens are at least 1; ``experts`` is None where the trace does not say;
    ``lines`` holds each request's line in the file (from 1); ``notes`` are for the user.
    """

    arrival_ps: Int64s
    input_tokens: Int64s
    output_tokens: Int64s
    experts: Int64s | None
    lines: Int64s
    notes: tuple[str, ...]


def read_trace(path: Path, limit: int | None = None) -> Trace:
    """Read the first ``limit`` good rows of ``path`` (all if None), then sort them by arrival.

    Raises ``InputError`` with the file and the line for whatever is no valid trace.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit = {limit!r}: must be at least 1 row of {path}")
    parse: Callable[[str], _Row | None] | None = None
    rows: dict[int, _Row] = {}  # by line
    notes: list[str] = []
    failed, number = 0, 1
    for number, text in _lines(path):
        try:
            if parse is None and not text.startswith(("{", "[")):
                parse = partial(_csv_row, _csv_header(text, notes))
                continue
            parse = parse or partial(_json_row, notes)
            row = parse(text)
            if row and rows and len(row) != len(next(iter(rows.values()))):
                raise InputError("expert: must be in all rows or in none")
        except (InputError, csv.Error) as error:
            raise InputError(f"{path}:{number}: {_show(text)}: {error}") from None
        failed += row is None
        if row:
            rows[number] = row
        if len(rows) == limit:
            break
    if not rows:
        raise InputError(f"{path}:{number}: no requests ({failed} failed ones), must hold 1 or more; {_FORMATS}")
    if failed:
        notes.append(f"rows with no response tokens (failed requests), skipped: {failed}")
    return _trace(path, rows, notes)


def _trace(path: Path, rows: dict[int, _Row], notes: list[str]) -> Trace:
    """Columns from rows: arrivals from 0 and ascending, ties in file order."""
    first, line = min(rows.values())[0], max(rows, key=rows.__getitem__)
    if (span := rows[line][0] - first) > LONGEST_SPAN_PS:
        raise InputError(f"{path}:{line}: arrivals span {span} ps: must be at most {LONGEST_SPAN_PS}; set a limit")
    arrival = np.array([row[0] - first for row in rows.values()], dtype=np.int64)
    late = int((arrival < np.maximum.accumulate(arrival)).sum())
    if late:
        notes.append(f"rows out of time order, sorted by arrival: {late}")
    order = np.argsort(arrival, kind="stable")
    table = np.array([(*row[1:], line) for line, row in rows.items()], dtype=np.int64)
    inputs, outputs, *experts, lines = table[order].T.copy()
    return Trace(arrival[order], inputs, outputs, experts[0] if experts else None, lines, tuple(notes))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines without the white space around them; blank ones are left out."""
    try:
        file = path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"trace {str(path)!r}: {reason}: must be a file that can be read") from None
    with file:
        for number, raw in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), start=1):
            text = raw.decode("utf-8", errors="replace").removeprefix("\ufeff").strip()
            if "\0" in text or "\ufffd" in text or len(raw) == _LONGEST_LINE:
                raise InputError(f"{path}:{number}: {_show(text)}: binary: must be UTF-8; {_FORMATS}")
            if text:
                yield number, text


def _show(value: object) -> str:
    """A value for an error: on one line and not too long."""
    text = str(value) if isinstance(value, Decimal) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _cells(text: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([text], strict=True))]


def _csv_header(text: str, notes: list[str]) -> list[str]:
    header = _cells(text)
    burst = set(_BURST) <= set(header) and len(set(header)) == len(header)
    if not burst and sorted(header) != sorted(_AZURE):
        raise InputError(f"unknown header; {_FORMATS}")
    if ignored := [name for name in header if name not in _AZURE + _BURST]:
        notes.append(f"columns ignored: {', '.join(ignored)}")
    return header


def _csv_row(header: list[str], text: str) -> _Row | None:
    row = _cells(text)
    if len(row) != len(header):
        raise InputError(f"{len(row)} columns, must be {len(header)} as in the header")
    cells = {name: _number(cell) for name, cell in zip(header, row, strict=True)}
    azure = _BURST[0] not in cells
    time, prompt, answer = _AZURE if azure else _BURST
    output_tokens = _count(answer, cells[answer], 1 if azure else 0)
    if output_tokens == 0:
        return None
    arrival = _clock_ps(time, cells[time]) if azure else _offset_ps(time, cells[time], "seconds", 12)
    return arrival, _count(prompt, cells[prompt], 1), output_tokens


def _json_row(notes: list[str], text: str) -> _Row:
    try:
        record: object = json.loads(text, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise InputError("must be one JSON object per line")
    for name in sorted((record.keys() ^ set(_JSON_NEEDED)) - set(_JSON_OPTIONAL)):
        problem = "unknown" if name in record else "missing"
        raise InputError(f"field {_show(name)} is {problem}; {_FORMATS}")
    if "hash_ids" in record and _HASHES not in notes:
        notes.append(_HASHES)
    arrival = _offset_ps("timestamp", record["timestamp"], "milliseconds", 9)
    tokens = [_count(name, record[name], 1) for name in _JSON_NEEDED[1:]]
    return (arrival, *tokens, *([_count("expert", record["expert"], 0)] if "expert" in record else []))


def _number(text: str) -> int | Decimal | str:
    """A cell as JSON would have it: a whole number, a decimal, or else the text itself."""
    if text.isascii() and text.isdigit() and len(text) <= 18:
        return int(text)
    return Decimal(text) if _DECIMAL.fullmatch(text) else text


def _count(name: str, value: object, low: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= MOST_TOKENS:
        return value
    raise InputError(f"{name} = {_show(value)}: must be a whole number from {low} to {MOST_TOKENS:,}")


def _clock_ps(name: str, value: object) -> Picoseconds:
    """A calendar time as picoseconds since the year 1: beyond int64 until the first arrival is taken off."""
    match = _CLOCK.fullmatch(str(value))
    moment, fraction = match.groups("") if match else ("", "")
    try:
        elapsed = datetime.fromisoformat(moment) - datetime.min
    except ValueError:
        raise InputError(f"{name} = {_show(value)}: must be like 2023-11-16 18:15:46.6805900, UTC") from None
    return (elapsed.days * 86400 + elapsed.seconds) * PS_PER_S + int(fraction.ljust(12, "0"))


def _offset_ps(name: str, value: object, unit: str, exponent: int) -> Picoseconds:
    """``value`` x 10^``exponent`` ps: exact to the picosecond, finer digits rounded half to even."""
    if isinstance(value, int | Decimal) and not isinstance(value, bool) and 0 <= value < 10**15:
        return round(Decimal(value).scaleb(exponent))
    raise InputError(f"{name} = {_show(value)}: must be a number of {unit} from 0 to below 10^15")

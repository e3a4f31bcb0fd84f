"""Is every fault in a trace told with its place, in one line?"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.traces import LONGEST_SPAN_PS, read_trace
from node.errors import InputError
from tests.unit.trace_text import AZURE, BURST, NOON, Reader, jsonl


def fault(read: Reader, content: str | bytes) -> str:
    with pytest.raises(InputError) as caught:
        read(content)
    message = str(caught.value)
    assert "\n" not in message
    return message


BAD_FILES = {  # content, line, and what the message must hold
    "empty": ("", 1, "no requests", "formats read"),
    "blank": ("\n\n", 1, "no requests", "formats read"),
    "header only": (AZURE, 1, "no requests", "formats read"),
    "failed requests only": (BURST + "1,m,5,0,5,l\n", 2, "no requests (1 failed ones)", "must hold"),
    "NUL byte": (AZURE.encode() + b"\0\1\2", 2, "binary", "UTF-8"),
    "not UTF-8": ((AZURE + "12 août,1,2\n").encode("latin-1"), 2, "binary", "UTF-8"),
    "UTF-16": (AZURE.encode("utf-16"), 1, "binary", "UTF-8"),
    "endless line": (AZURE + "1" * 2**21, 2, "binary", "UTF-8"),
    "unknown header": ("a,b,c\n1,2,3\n", 1, "'a,b,c': unknown header", "TIMESTAMP,ContextTokens,GeneratedTokens"),
    "no header": (f"{NOON},1,2\n", 1, f"'{NOON},1,2': unknown header", "formats read"),
    "Azure with one more": (AZURE.strip() + f",expert\n{NOON},1,2,3\n", 1, "unknown header", "formats read"),
    "column twice": (BURST.strip() + ",Timestamp\n1,m,1,1,2,l,1\n", 1, "unknown header", "formats read"),
    "too few columns": (AZURE + f"{NOON},1,2\n{NOON},1\n", 3, "2 columns", "must be 3"),
    "too many columns": (AZURE + f"{NOON},1,2,3\n", 2, "4 columns", "must be 3"),
    "open quote": (AZURE + f'"{NOON},1,2\n', 2, NOON, ""),
    "span": (BURST + "0,m,1,1,2,l\n6000000.000000000001,m,1,1,2,l\n", 3, str(LONGEST_SPAN_PS + 1), "at most"),
    "JSON array": ("[1, 2]\n", 1, "[1, 2]", "one JSON object"),
    "JSON later array": (jsonl({}) + "[1, 2]\n", 2, "[1, 2]", "one JSON object"),
    "not JSON": (jsonl({}) + '{"timestamp": 1,\n', 2, "timestamp", "one JSON object"),
    "deep JSON": ("[" * 100_000 + "\n", 1, "[[[", "one JSON object"),
    "field missing": ('{"timestamp": 1, "input_length": 2}\n', 1, "'output_length' is missing", "formats"),
    "field unknown": (jsonl({}, {"model": "x"}), 2, "'model' is unknown", "hash_ids"),
    "expert late": (jsonl({}, {"expert": 1}), 2, "expert", "in all rows or in none"),
    "expert gone": (jsonl({"expert": 1}, {}), 2, "expert", "in all rows or in none"),
    "expert below 0": (jsonl({"expert": -1}), 1, "expert = -1", "from 0"),
    "huge whole number": ('{"timestamp": ' + "9" * 5000 + "}\n", 1, "9999", "one JSON object"),
}


@pytest.mark.parametrize(("content", "line", "what", "allowed"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_told_with_its_line(
    read: Reader, content: str | bytes, line: int, what: str, allowed: str
) -> None:
    message = fault(read, content)
    assert re.search(rf"/trace:{line}: ", message), message
    assert what in message
    assert allowed in message


COUNTS = ["0", "-5", "1.5", "12.0", "1e3", "nan", "inf", "x", "", "1_000", "+5", "٣", "1000000001", "9" * 30]


@pytest.mark.parametrize("value", COUNTS)
@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("ContextTokens", AZURE + f"{NOON},1,2\n{NOON},{{}},2\n"),
        ("GeneratedTokens", AZURE + f"{NOON},1,2\n{NOON},1,{{}}\n"),
        ("Request tokens", BURST + "0,m,1,1,2,l\n0,m,{},1,2,l\n"),
        ("Response tokens", BURST + "0,m,1,1,2,l\n0,m,1,{},2,l\n"),
    ],
)
def test_a_bad_count_in_a_csv_is_told(read: Reader, name: str, row: str, value: str) -> None:
    if (name, value) == ("Response tokens", "0"):
        assert len(read(row.format(value)).lines) == 1  # a failed request is no fault
        return
    message = fault(read, row.format(value))
    assert "/trace:3: " in message
    assert f"{name} = " in message
    assert value in message
    assert "must be a whole number from" in message


JSON_COUNTS = ["0", "-5", "1.5", "12.0", "NaN", "Infinity", "true", "null", '"5"', "[5]", "1000000001"]


@pytest.mark.parametrize("value", JSON_COUNTS)
@pytest.mark.parametrize("name", ["input_length", "output_length", "expert"])
def test_a_bad_count_in_json_is_told(read: Reader, name: str, value: str) -> None:
    row = '{"timestamp": 1, "input_length": 1, "output_length": 1, "expert": 1}'
    if (name, value) == ("expert", "0"):
        assert read(row.replace(f'"{name}": 1', f'"{name}": 0')).experts == 0
        return
    message = fault(read, row.replace(f'"{name}": 1', f'"{name}": {value}'))
    assert "/trace:1: " in message
    assert f"{name} = " in message
    assert "must be a whole number from" in message


@pytest.mark.parametrize(
    "value",
    [
        "",
        "12:00",
        "2024-05-10",
        "2024-02-30 12:00:00",
        "2024-05-10 24:00:00",
        "2024-05-10 12:00:60",
        "0000-01-01 00:00:00",
        f"{NOON}.",
        f"{NOON}.1234567891",
        f"{NOON}+02:00",
        "1715342400",
        "nan",
    ],
)
def test_a_bad_calendar_time_is_told(read: Reader, value: str) -> None:
    message = fault(read, AZURE + f"{NOON},1,1\n{value},1,1\n")
    assert "/trace:3: " in message
    assert "TIMESTAMP = " in message
    assert value in message
    assert "must be like 2023-11-16" in message


@pytest.mark.parametrize("value", ["", "nan", "inf", "-1", "-0.5", "x", "1_0", "1e16", "1e9999", "9" * 40])
def test_bad_seconds_are_told(read: Reader, value: str) -> None:
    message = fault(read, BURST + f"0,m,1,1,2,l\n{value},m,1,1,2,l\n")
    assert "/trace:3: " in message
    assert "Timestamp = " in message
    assert "must be a number of seconds from 0" in message


@pytest.mark.parametrize(
    "value", ["true", "null", "NaN", "Infinity", "-1", '"1"', "1e15", "1000000000000000", "1e99999"]
)
def test_bad_milliseconds_are_told(read: Reader, value: str) -> None:
    message = fault(read, f'{{"timestamp": {value}, "input_length": 1, "output_length": 1}}')
    assert "/trace:1: " in message
    assert "timestamp = " in message
    assert "must be a number of milliseconds from 0" in message


def test_no_such_file_and_a_directory_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.csv': No such file or directory: must be"):
        read_trace(tmp_path / "missing.csv")
    with pytest.raises(InputError, match="Is a directory"):
        read_trace(tmp_path)
    with pytest.raises(InputError, match="null byte"):
        read_trace(tmp_path / "a\0b")


TEXT = st.text(alphabet='{}[]",:.0123456789eE+-Nalutrinfse\\ TIMESAP\x00\n\r', max_size=80)


@given(TEXT, st.sampled_from(["", AZURE, BURST, "{"]))
def test_whatever_the_text_it_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, text: str, start: str
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "trace"
    path.write_bytes((start + text).encode())
    try:
        trace = read_trace(path)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert trace.arrival_ps[0] == 0
        assert bool((np.diff(trace.arrival_ps) >= 0).all())
        assert min(trace.input_tokens.min(), trace.output_tokens.min()) >= 1

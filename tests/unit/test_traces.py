"""Does a trace come in exactly as it is in the file, and is every fault in it told with its place?"""

from __future__ import annotations

import csv
import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.traces import LONGEST_SPAN_PS, Trace, read_trace
from node.errors import InputError

AZURE_2023 = Path(__file__).resolve().parents[3] / "shared/traces/azure_llm_2023_conv.csv"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
NOON = "2024-05-10 12:00:00"
ROW = {"timestamp": 0, "input_length": 5, "output_length": 6}

Reader = Callable[..., Trace]  # content as str or bytes, limit of rows


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    def write_and_read(content: str | bytes, limit: int | None = None) -> Trace:
        path = tmp_path / "trace"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_trace(path, limit)

    return write_and_read


def jsonl(*rows: Mapping[str, object]) -> str:
    return "".join(json.dumps({**ROW, **row}) + "\n" for row in rows)


def fault(read: Reader, content: str | bytes) -> str:
    with pytest.raises(InputError) as caught:
        read(content)
    message = str(caught.value)
    assert "\n" not in message
    return message


# What is read


def test_the_azure_trace_is_read_to_the_last_digit() -> None:
    if not AZURE_2023.exists():
        pytest.skip(f"no Azure trace at {AZURE_2023}")
    with AZURE_2023.open(newline="") as file:
        rows = list(csv.DictReader(file))
    start = time.perf_counter()
    trace = read_trace(AZURE_2023)
    assert time.perf_counter() - start < 2  # about 0.1 s on an idle machine
    assert len(rows) == len(trace.arrival_ps) == 19_366
    assert int(trace.input_tokens.sum()) == sum(int(row["ContextTokens"]) for row in rows)
    assert int(trace.output_tokens.sum()) == sum(int(row["GeneratedTokens"]) for row in rows)
    assert int((trace.input_tokens + trace.output_tokens > 4096).sum()) == 1_612
    # 18:15:46.6805900 is the first, 19:14:08.4025270 the last: 58 min 21.7219370 s.
    assert trace.arrival_ps[0] == 0
    assert int(trace.arrival_ps[-1]) == (58 * 60 + 21) * 10**12 + 721_937_000_000
    assert trace.notes == ()
    assert trace.experts is None


@pytest.mark.parametrize(
    ("second", "arrival_ps"),
    [
        (f"{NOON}.000000001", 1_000),
        (f"{NOON}.123456789", 123_456_789_000),
        (f"{NOON}.1", 100_000_000_000),
        (f"{NOON}.009930+00:00", 9_930_000_000),
        ("2024-05-10T12:00:01Z", 1_000_000_000_000),
        ("2024-05-11 00:00:00", 12 * 3600 * 10**12),
    ],
)
def test_azure_timestamps_are_exact(read: Reader, second: str, arrival_ps: int) -> None:
    assert read(f"{AZURE}{NOON},1,1\n{second},2,3\n").arrival_ps.tolist() == [0, arrival_ps]


@given(st.integers(0, 10**18), st.integers(0, 10**18))
def test_seconds_of_a_burstgpt_trace_are_exact(
    tmp_path_factory: pytest.TempPathFactory, first_ps: int, later_ps: int
) -> None:
    # Pasted together as text, far from any float: 7 s and 42 ps is 7.000000000042.
    first, later = (f"{ps // 10**12}.{ps % 10**12:012}" for ps in sorted((first_ps, later_ps)))
    path = tmp_path_factory.mktemp("burst") / "trace"
    path.write_text(f"{BURST}{first},m,1,1,2,l\n{later},m,1,1,2,l\n")
    assert read_trace(path).arrival_ps.tolist() == [0, abs(later_ps - first_ps)]


def test_burstgpt_columns_are_found_by_name_and_failed_requests_left_out(read: Reader) -> None:
    trace = read(
        "Session ID,Response tokens,Timestamp,Elapsed time,Request tokens\n"
        "a,7,5,0.1,100\n"
        "b,0,6,0.1,200\n"
        "c,8,7.5,0.1,300\n"
    )
    assert trace.arrival_ps.tolist() == [0, 2_500_000_000_000]
    assert trace.input_tokens.tolist() == [100, 300]
    assert trace.output_tokens.tolist() == [7, 8]
    assert trace.lines.tolist() == [2, 4]
    assert "columns ignored: Session ID, Elapsed time" in trace.notes
    assert "rows with no response tokens (failed requests), skipped: 1" in trace.notes


def test_mooncake_milliseconds_and_hash_ids(read: Reader) -> None:
    trace = read(jsonl({"timestamp": 27482, "hash_ids": [1, 2]}, {"timestamp": 30535, "hash_ids": []}))
    assert trace.arrival_ps.tolist() == [0, 3053 * 10**9]
    assert trace.notes == ("hash_ids ignored: prefix reuse is not modelled",)


def test_a_decimal_of_milliseconds_is_exact(read: Reader) -> None:
    line = '{"timestamp": @, "input_length": 1, "output_length": 1}\n'
    assert read(line.replace("@", "0") + line.replace("@", "0.300000001")).arrival_ps.tolist() == [
        0,
        300_000_001,
    ]


def test_our_own_lines_carry_experts_that_are_sorted_with_their_rows(read: Reader) -> None:
    rows = ({"timestamp": at, "expert": expert} for at, expert in ((9, 4), (1, 2), (9, 0)))
    trace = read(jsonl(*rows))
    assert trace.experts is not None
    assert trace.experts.tolist() == [2, 4, 0]
    assert trace.lines.tolist() == [2, 1, 3]  # equal times stay in file order
    assert trace.arrival_ps.tolist() == [0, 8 * 10**9, 8 * 10**9]
    assert trace.notes == ("rows out of time order, sorted by arrival: 1",)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30))
def test_sorting_is_stable_and_loses_no_row(tmp_path_factory: pytest.TempPathFactory, times: list[int]) -> None:
    path = tmp_path_factory.mktemp("sort") / "trace"
    path.write_text(jsonl(*({"timestamp": at, "expert": index} for index, at in enumerate(times))))
    trace = read_trace(path)
    assert trace.experts is not None
    assert trace.experts.tolist() == sorted(range(len(times)), key=lambda index: times[index])
    late = sum(at < max(times[: index + 1]) for index, at in enumerate(times))
    assert trace.notes == ((f"rows out of time order, sorted by arrival: {late}",) if late else ())


@pytest.mark.parametrize(
    "content",
    [
        (AZURE + f"{NOON},1,2\n").replace("\n", "\r\n"),
        "\ufeff" + AZURE + f"{NOON},1,2\n",
        AZURE + f"{NOON},1,2\n\n  \n",
        AZURE + f"{NOON},1,2",
        AZURE + f'"{NOON}", 1 ,2\n',
        "\ufeff" + jsonl({"input_length": 1, "output_length": 2}).replace("\n", "\r\n") + "\r\n",
    ],
)
def test_line_ends_byte_order_marks_blanks_and_quotes_are_no_faults(read: Reader, content: str | bytes) -> None:
    trace = read(content)
    assert (trace.input_tokens.tolist(), trace.output_tokens.tolist()) == ([1], [2])


def test_a_limit_counts_good_rows_and_reads_nothing_behind_them(read: Reader) -> None:
    rows = "1,m,10,1,0,l\n2,m,20,0,0,l\n3,m,30,1,0,l\nnonsense\n"
    assert read(BURST + rows, limit=2).input_tokens.tolist() == [10, 30]
    with pytest.raises(InputError, match="trace:5: 'nonsense': 1 columns"):
        read(BURST + rows, limit=3)
    with pytest.raises(InputError, match="limit = 0: must be at least 1"):
        read(BURST + rows, limit=0)


# What is refused: (content, line, and what the message must hold)

BAD_FILES = {
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


def test_the_span_may_reach_its_limit(read: Reader) -> None:
    assert read(BURST + "0,m,1,1,2,l\n6000000,m,1,1,2,l\n").arrival_ps.tolist() == [0, LONGEST_SPAN_PS]


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

"""Does a trace come in exactly as it is in the file?"""

from __future__ import annotations

import csv
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.traces import LONGEST_SPAN_PS, read_trace
from node.errors import InputError
from tests.unit.trace_text import AZURE, BURST, NOON, Reader, jsonl

AZURE_2023 = Path(__file__).resolve().parents[3] / "shared/traces/azure_llm_2023_conv.csv"


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


def test_the_span_may_reach_its_limit(read: Reader) -> None:
    assert read(BURST + "0,m,1,1,2,l\n6000000,m,1,1,2,l\n").arrival_ps.tolist() == [0, LONGEST_SPAN_PS]

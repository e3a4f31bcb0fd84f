"""Are a trace's requests kept as they are: its experts, its times, its lengths up to the context?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cluster.distributions import parse_lengths
from cluster.traces import read_trace
from cluster.workload import WorkloadConfig, load
from node.errors import InputError
from node.request import Request
from tests.unit.drawn import column, generate

AZURE_2023 = Path(__file__).resolve().parents[3] / "shared/traces/azure_llm_2023_conv.csv"


def traced(tmp_path: Path, *rows: tuple[float, int, int] | tuple[float, int, int, int]) -> str:
    names = ("timestamp", "input_length", "output_length", "expert")
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(json.dumps(dict(zip(names, row, strict=False))) + "\n" for row in rows))
    return str(path)


def test_experts_of_a_trace_are_kept(tmp_path: Path) -> None:
    trace = traced(tmp_path, (5, 1, 1, 7), (2, 2, 2, 0), (9, 3, 3, 3))
    workload = generate(trace=trace)
    assert workload.requests == [
        Request(0, 0, 2, 2, 0),
        Request(1, 3 * 10**9, 1, 1, 7),
        Request(2, 7 * 10**9, 3, 3, 3),
    ]
    assert workload.source == trace
    assert "rows out of time order, sorted by arrival: 1" in workload.notes
    assert any("workload.popularity" in note for note in workload.notes)


def test_an_expert_beyond_the_catalogue_is_told_with_its_line(tmp_path: Path) -> None:
    # Line 1 arrives last: the line told is the file's, not the order's.
    trace = traced(tmp_path, (9, 1, 1, 8), (1, 1, 1, 7), (2, 1, 1, 99))
    with pytest.raises(InputError, match=r"trace.jsonl:1: expert = 8: must be an expert .* 0 to 7"):
        generate(trace=trace)
    assert generate(trace=trace, weights=[1.0] * 100).experts_given


def test_experts_are_drawn_for_a_trace_without_them_as_for_generated_requests(tmp_path: Path) -> None:
    trace = traced(tmp_path, *((at, 1, 1) for at in range(300)))
    assert column(generate(trace=trace), "expert") == column(generate(), "expert")


def test_limit_is_rows_of_the_file(tmp_path: Path) -> None:
    trace = traced(tmp_path, (9, 1, 1), (5, 2, 2), (1, 3, 3))
    assert column(generate(trace=trace, limit=2), "input_tokens") == [2, 1]


@pytest.mark.parametrize(
    ("scale", "arrivals"),
    [
        (1.0, [0, 1, 3_600_000 * 10**9 + 1]),
        (2, [0, 1, 1_800_000 * 10**9 + 1]),  # 0.5 ps rounds up to 1
        (0.1, [0, 10, 36_000_000 * 10**9 + 10]),  # a tenth, exactly, though no float is one
        (3.0, [0, 0, 1_200_000 * 10**9]),
    ],
)
def test_rate_scale_divides_arrivals_exactly(tmp_path: Path, scale: float, arrivals: list[int]) -> None:
    path = Path(traced(tmp_path))
    times = ("0", "0.000000001", "3600000.000000001")  # ms
    path.write_text("".join(f'{{"timestamp": {at}, "input_length": 1, "output_length": 1}}\n' for at in times))
    assert column(generate(trace=str(path), rate_scale=scale), "arrival") == arrivals


def test_the_azure_trace_has_1612_requests_over_4096_tokens() -> None:
    if not AZURE_2023.exists():
        pytest.skip(f"no Azure trace at {AZURE_2023}")
    ran, refusing = (generate(trace=str(AZURE_2023), over_context=way) for way in ("run", "refuse"))
    assert (ran.over_context, len(ran.requests), len(ran.refused)) == (1612, 19_366, 0)
    assert (refusing.over_context, len(refusing.requests), len(refusing.refused)) == (
        1612,
        19_366 - 1612,
        1612,
    )


@pytest.mark.parametrize("name", ["input_tokens", "output_tokens"])
def test_the_default_lengths_are_fitted_to_the_azure_trace(name: str) -> None:
    if not AZURE_2023.exists():
        pytest.skip(f"no Azure trace at {AZURE_2023}")
    trace = getattr(read_trace(AZURE_2023), name)
    drawn = parse_lengths(getattr(WorkloadConfig(), name), name).draw(200_000, np.random.default_rng(1))
    # Standard error of the drawn mean: at most 0.3 % of it.
    assert drawn.mean() == pytest.approx(trace.mean(), rel=0.01)
    assert np.log(drawn).std() == pytest.approx(np.log(trace).std(), rel=0.02)
    assert drawn.max() == trace.max()


OVER = [  # context 100: (input, output), whether over, and what clipping makes of it
    ((60, 40), False, (60, 40)),
    ((61, 40), True, (60, 40)),
    ((60, 41), True, (59, 41)),
    ((1, 99), False, (1, 99)),
    ((2, 99), True, (1, 99)),
    ((1, 100), True, (1, 99)),
    ((500, 500), True, (1, 99)),
    ((500, 1), True, (99, 1)),
]


@pytest.mark.parametrize("way", ["run", "clip", "refuse"])
def test_context_may_be_reached_and_not_passed(tmp_path: Path, way: str) -> None:
    trace = traced(tmp_path, *((at, *lengths, 1) for at, (lengths, _, _) in enumerate(OVER)))
    config = WorkloadConfig(trace=trace, over_context=way)
    workload = load(config, [1, 1], [10**6, 100], 1)  # expert 1's context counts, not expert 0's
    assert workload.over_context == 6
    kept = {request.id: (request.input_tokens, request.output_tokens) for request in workload.requests}
    refused = {request.id: (request.input_tokens, request.output_tokens) for request in workload.refused}
    given_lengths = {index: lengths for index, (lengths, _, _) in enumerate(OVER)}
    over = {index for index, (_, is_over, _) in enumerate(OVER) if is_over}
    if way == "run":
        assert (kept, refused) == (given_lengths, {})
    elif way == "clip":
        assert (kept, refused) == ({index: clipped for index, (_, _, clipped) in enumerate(OVER)}, {})
    else:
        assert refused == {index: given_lengths[index] for index in over}
        assert kept == {index: lengths for index, lengths in given_lengths.items() if index not in over}


def test_warmup_leaves_at_least_one_request(tmp_path: Path) -> None:
    trace = traced(tmp_path, (0, 1, 1), (1, 5000, 1), (2, 1, 1))
    assert len(generate(trace=trace, warmup=2).requests) == 3
    with pytest.raises(InputError, match=r"workload.warmup = 3: must be less than the number of requests, 3"):
        generate(trace=trace, warmup=3)
    with pytest.raises(InputError, match=r"workload.warmup = 2: .* requests, 2"):
        generate(trace=trace, warmup=2, over_context="refuse")


def test_a_trace_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv': No such file"):
        generate(trace=str(tmp_path / "none.csv"))

"""Does the table of requests hold every request once, in whole picoseconds that add up?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from cluster.backends import LocalBackend
from cluster.config_file import read_config
from cluster.not_served import NotServed
from cluster.requests_table import write_requests
from cluster.runner import Run, prepare, run
from node.request import Requests

CHARGES = ["queue", "switch", "router", "call_overhead", "prefill", "decode", "stall"]
OF_REQUEST = ["request", "arrival", "expert", "group", "input_tokens", "output_tokens"]
NOBODY = NotServed(Requests.of([]), [], np.array([], dtype=np.int64))
INTEGERS = [*OF_REQUEST, *CHARGES, "e2e", "ttft"]


@pytest.fixture(scope="module")
def result() -> Run:
    """A run in which some requests are refused."""
    settings = {
        "cluster.backend": "local",
        "workload.requests": 80,
        "workload.rate": 5.0,
        "workload.over_context": "refuse",
        "workload.output_tokens": "uniform(low=1, high=80)",
        "workload.input_tokens": "uniform(low=1, high=4600)",
        "experts.count": 20,
        "sharding.tensor_parallel": 4,
        "runtime.kv_reserve": "40 GiB",
    }
    config = read_config(None, settings.items())
    return run(config, LocalBackend(), prepare(config))


@pytest.fixture(scope="module", params=["parquet", "csv"])
def table(request: pytest.FixtureRequest, result: Run, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    path = tmp_path_factory.mktemp("table") / f"requests.{request.param}"
    write_requests(result.columns, result.others, path)
    assert path.read_bytes()[:4] == (b"PAR1" if request.param == "parquet" else b'"req')
    return pa.parquet.read_table(path) if request.param == "parquet" else pa.csv.read_csv(path)


def rows(table: pa.Table, outcome: str) -> list[dict[str, int | None]]:
    return [row for row in table.to_pylist() if row["outcome"] == outcome]


def test_the_columns_are_integers_and_an_outcome(table: pa.Table) -> None:
    assert table.column_names == [*INTEGERS, "outcome"]
    assert {str(table.schema.field(name).type) for name in INTEGERS} == {"int64"}
    assert str(table.schema.field("outcome").type) == "string"


def test_every_request_has_one_row_in_the_order_of_its_number(table: pa.Table, result: Run) -> None:
    workload = sorted([*result.workload.requests, *result.workload.refused], key=lambda request: request.id)
    assert table["request"].to_pylist() == [request.id for request in workload] == list(range(80))
    for name in ("arrival", "expert", "input_tokens", "output_tokens"):
        assert table[name].to_pylist() == [getattr(request, name) for request in workload]
    assert len(rows(table, "completed")) == len(result.workload.requests)


def test_a_refused_request_has_no_group_and_no_times(table: pa.Table, result: Run) -> None:
    refused = rows(table, "refused")
    assert [row["request"] for row in refused] == [request.id for request in result.workload.refused]
    assert 0 < len(refused) < 80
    for row in refused:
        assert {name for name, value in row.items() if value is None} == {"group", *CHARGES, "e2e", "ttft"}


def test_the_times_of_a_completed_request_add_up(table: pa.Table, result: Run) -> None:
    makespan = round(float(str(result.summary["makespan_s"])) * 10**12)
    completed = rows(table, "completed")
    for row in completed:
        number = {name: int(str(row[name])) for name in INTEGERS}
        assert number["group"] == number["expert"] % 2
        assert sum(number[name] for name in CHARGES) == number["e2e"]
        assert min(number[name] for name in CHARGES) >= 0
        assert 0 < number["ttft"] <= number["e2e"] <= makespan - number["arrival"]
        assert (number["ttft"] == number["e2e"]) == (number["output_tokens"] == 1)
        assert number["e2e"] - number["ttft"] <= number["decode"] + number["stall"]
    assert max(int(str(row["arrival"])) + int(str(row["e2e"])) for row in completed) == makespan


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_the_same_columns_are_the_same_bytes(suffix: str, result: Run, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.{suffix}" for number in range(2)]
    for path in paths:
        write_requests(dict(result.columns), result.others, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_parquet_is_written_with_settings_of_our_own(result: Run, tmp_path: Path) -> None:
    write_requests(result.columns, NOBODY, tmp_path / "requests.parquet")
    found = pa.parquet.ParquetFile(tmp_path / "requests.parquet").metadata
    assert (found.format_version, found.num_row_groups) == ("2.6", 1)
    assert {found.row_group(0).column(i).compression for i in range(found.num_columns)} == {"ZSTD"}


def test_parquet_and_csv_hold_the_same(result: Run, tmp_path: Path) -> None:
    for others in (NOBODY, result.others):
        write_requests(result.columns, others, tmp_path / "requests.parquet")
        write_requests(result.columns, others, tmp_path / "requests.csv")
        found = pa.csv.read_csv(tmp_path / "requests.csv")
        assert found.equals(pa.parquet.read_table(tmp_path / "requests.parquet"))
        assert len(found) == len(result.columns["request"]) + len(others.requests)

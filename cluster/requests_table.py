"""One row a request: what it was, and where its time went."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from node.events import Ints
from node.request import Requests
from node.runtime.ledger import CHARGES
from node.units import PS_PER_S, exact_sum

_OF_REQUEST = ("request", "arrival", "expert", "node", "group", "input_tokens", "output_tokens")
COLUMNS = (*_OF_REQUEST, *CHARGES, "e2e", "ttft")


def columns_of(requests: Requests, found: Mapping[str, Ints]) -> dict[str, Ints]:
    """The ``requests`` of a run that is over and what was ``found`` of each; times in integer picoseconds.

    Of several nodes the ``node`` is known, too; groups are numbered within it.
    """
    columns = _of(requests) | dict(found)
    return {name: columns[name] for name in COLUMNS if name in columns}


def _of(requests: Requests) -> dict[str, Ints]:
    names = ("arrival", "expert", "input_tokens", "output_tokens")
    return {"request": requests.id} | {name: getattr(requests, name) for name in names}


def spent(columns: Mapping[str, Ints]) -> dict[str, float]:
    """The mean time that a request spent on each charge, in seconds."""
    count = len(columns["e2e"])
    return {charge: exact_sum(columns[charge]) / count / PS_PER_S for charge in CHARGES}


def write_requests(columns: dict[str, Ints], refused: Requests, path: Path) -> None:
    """Write the table as ``.parquet`` or ``.csv``; a refused request has its own row, with no group and no times."""
    arrow = _arrow(columns, refused)
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(arrow, path)
    else:
        pyarrow.parquet.write_table(arrow, path, compression="zstd", row_group_size=1 << 20, version="2.6")


def _arrow(columns: dict[str, Ints], refused: Requests) -> pa.Table:
    completed = pa.table({**columns, "outcome": pa.repeat("completed", len(columns["request"]))})
    if not len(refused):
        return completed
    known = _of(refused)
    rows = {name: pa.array(known[name]) if name in known else pa.nulls(len(refused), pa.int64()) for name in columns}
    rows["outcome"] = pa.repeat("refused", len(refused))
    return pa.concat_tables([completed, pa.table(rows)]).sort_by("request")

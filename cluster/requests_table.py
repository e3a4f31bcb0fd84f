"""One row a request: what it was, and where its time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from cluster.not_served import REFUSED, NotServed
from node.events import Ints
from node.request import Requests
from node.runtime.ledger import CHARGES
from node.units import PS_PER_S, exact_sum

_OF_REQUEST = ("request", "arrival", "expert", "node", "group", "input_tokens", "output_tokens")
COLUMNS = (*_OF_REQUEST, *CHARGES, "e2e", "ttft")
_DIFFERS = ("request", "arrival", *CHARGES, "e2e", "ttft")  # from one request to the next, and mostly by little


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


def write_requests(
    columns: dict[str, Ints], others: NotServed, path: Path, services: tuple[Ints, Sequence[str]] | None = None
) -> None:
    """Write the table as ``.parquet`` or ``.csv``; one not served has its own row, with no group, of times the queue.

    ``services``: by request the number of its class, and the names of classes.
    """
    arrow = _arrow(columns, others)
    if services is not None:
        number, names = services
        arrow = arrow.append_column("class", pa.array(names).take(pa.array(number[arrow["request"].to_numpy()])))
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(arrow, path)
    else:
        pyarrow.parquet.write_table(
            arrow, path, compression="zstd", row_group_size=1 << 20, version="2.6",
            column_encoding=dict.fromkeys(_DIFFERS, "DELTA_BINARY_PACKED"),
            use_dictionary=[name for name in arrow.column_names if name not in _DIFFERS],
        )  # fmt: skip


def _arrow(columns: dict[str, Ints], others: NotServed) -> pa.Table:
    completed = pa.table({**columns, "outcome": pa.repeat("completed", len(columns["request"]))})
    if not len(others.requests):
        return completed
    known = _of(others.requests)
    nothing = pa.nulls(len(others.requests), pa.int64())
    rows = {name: pa.array(known[name]) if name in known else nothing for name in columns}
    before = np.array(others.outcome) == REFUSED
    rows["queue"] = pa.array(others.waited, mask=before)
    if others.node is not None:
        rows["node"] = pa.array(others.node, mask=before)
    rows["outcome"] = pa.array(others.outcome)
    return pa.concat_tables([completed, pa.table(rows)]).sort_by("request")

"""One row a request: what it was, and where its time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from node.events import Ints
from node.request import Request
from node.runtime.ledger import CHARGES
from node.simulation import Simulation
from node.units import PS_PER_S, exact_sum

_OF_REQUEST = ("request", "arrival", "expert", "group", "input_tokens", "output_tokens")
COLUMNS = (*_OF_REQUEST, *CHARGES, "e2e", "ttft")


def columns_of(simulation: Simulation) -> dict[str, Ints]:
    """The requests of a run that is over, in the order of their numbers; times in integer picoseconds."""
    requests, found = simulation.requests, simulation.columns()
    names = {"request": "id", **{name: name for name in _OF_REQUEST if name not in ("request", "group")}}
    columns = {name: getattr(requests, attribute) for name, attribute in names.items()} | found
    return {name: columns[name] for name in COLUMNS}


def spent(columns: Mapping[str, Ints]) -> dict[str, float]:
    """The mean time that a request spent on each charge, in seconds."""
    count = len(columns["e2e"])
    return {charge: exact_sum(columns[charge]) / count / PS_PER_S for charge in CHARGES}


def write_requests(columns: dict[str, Ints], refused: Sequence[Request], path: Path) -> None:
    """Write the table as ``.parquet`` or ``.csv``; a refused request has its own row, with no group and no times."""
    arrow = _arrow(columns, refused)
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(arrow, path)
    else:
        pyarrow.parquet.write_table(arrow, path, compression="zstd", row_group_size=1 << 20, version="2.6")


def _arrow(columns: dict[str, Ints], refused: Sequence[Request]) -> pa.Table:
    completed = pa.table({**columns, "outcome": pa.array(["completed"] * len(columns["request"]), pa.string())})
    if not refused:
        return completed
    known = [(r.id, r.arrival, r.expert, None, r.input_tokens, r.output_tokens) for r in refused]
    rows: dict[str, pa.Array] = {
        name: pa.array([row[i] for row in known], pa.int64()) for i, name in enumerate(_OF_REQUEST)
    }
    rows |= {name: pa.nulls(len(known), pa.int64()) for name in COLUMNS[len(_OF_REQUEST) :]}
    rows["outcome"] = pa.array(["refused"] * len(known), pa.string())
    return pa.concat_tables([completed, pa.table(rows)]).sort_by("request")

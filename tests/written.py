"""The SHA-256 of what a run writes of its results, by name."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cluster.output import write_json
from cluster.requests_table import write_requests
from cluster.runner import Run


def hashes_of(result: Run, folder: Path) -> dict[str, str]:
    """Of ``summary.json`` and ``requests.parquet``, which are written into ``folder``."""
    write_json(folder / "summary.json", result.summary)
    write_requests(result.columns, result.others, folder / "requests.parquet")
    names = ("summary.json", "requests.parquet")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}

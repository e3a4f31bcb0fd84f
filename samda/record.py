"""What lies in a folder of ours says in JSON what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from node.errors import InputError

FORMAT = 1


def read_record(path: Path, kind: str, what: str, advice: str) -> dict[str, Any]:
    """The record of ``what`` ("expert") that says it is of ``kind``; ``InputError``, with ``advice``, for any other."""
    try:
        record = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; expected the folder of {what}") from None
    except ValueError as error:
        raise InputError(f"{path}: is not JSON: {error}") from None
    if not isinstance(record, dict) or (record.get("format"), record.get("kind")) != (FORMAT, kind):
        of = what.partition(" ")[2]
        raise InputError(f"{path}: is no {of} of format {FORMAT} (kind {kind!r}); {advice}")
    return record

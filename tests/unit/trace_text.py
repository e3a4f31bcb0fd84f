"""Traces as text, for tests of reading them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from cluster.traces import Trace

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
NOON = "2024-05-10 12:00:00"
ROW = {"timestamp": 0, "input_length": 5, "output_length": 6}
Reader = Callable[..., Trace]  # content as str or bytes, limit of rows


def jsonl(*rows: Mapping[str, object]) -> str:
    """JSON lines of ``ROW``, changed."""
    return "".join(json.dumps({**ROW, **row}) + "\n" for row in rows)

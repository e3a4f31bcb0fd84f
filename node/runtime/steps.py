"""What the runs of a group process: of a prefill or decode the fields of a command from ``tokens`` on."""

from __future__ import annotations

from collections.abc import Sequence
from operator import mul

from node.dataflow.form import causal_pairs

Step = tuple[int, int, int, int, int, int]  # tokens, pairs, context, sequences, growth, steps


def prefill(lengths: Sequence[int], window: int | None) -> Step:
    """One pass over prompts of ``lengths`` tokens."""
    tokens = sum(lengths)
    if window is None:
        pairs = (sum(map(mul, lengths, lengths)) + tokens) // 2  # causal_pairs, added up
    else:
        pairs = sum([causal_pairs(length, window) for length in lengths])
    return tokens, pairs, tokens, len(lengths), 0, 0


def decode(batch: int, context: int, steps: int) -> Step:
    """Steps of ``batch`` sequences, whose first attends to ``context`` tokens in all, themselves among them."""
    return batch, context, context, batch, batch, steps


def windowed(contexts: Sequence[int], window: int, steps: int) -> Step:
    """``decode`` with an attention window: at most until that of a sequence fills up, for its cost changes there."""
    steps = min([steps, *(window - context for context in contexts if context < window)])
    seen = sum(min(context, window) for context in contexts)
    return len(contexts), seen, seen, len(contexts), sum(context < window for context in contexts), steps

"""How often a router is right, expert by expert."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from cluster.routing.encoders import ENCODERS
from cluster.routing.prompts import Prompts
from cluster.routing.router import BOUND, fit, leave_one_out

Z_95 = 1.959964  # of the normal distribution, two-sided


@dataclass(frozen=True)
class Row:
    """Prompts of one expert, or of all: how many, how many went to it, to the general one, and to whom else most."""

    expert: str
    prompts: int
    right: int
    to_general: int
    most_confused: str | None  # the general one aside; the first by name of equals
    confused: int

    @property
    def accuracy(self) -> float:
        """The share that was right; 0 of none."""
        return self.right / self.prompts if self.prompts else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy."""
        return wilson(self.right, self.prompts)


@dataclass(frozen=True)
class Report:
    """``measured_on``: held_out, or leave_one_out of the training prompts where nothing was held out."""

    encoder: str
    bound: float
    general: str | None
    examples: int
    measured_on: str
    rows: tuple[Row, ...]
    overall: Row


def report(prompts: Prompts, encoder: str = "ngrams", bound: float = BOUND) -> Report:
    """Fit a router to the training prompts and count what it does with those held out.

    Where none are, every training prompt is judged by a router that was fitted without it.
    """
    router = fit(prompts.train, prompts.general, ENCODERS[encoder], bound)
    held_out = any(prompts.held_out.values())
    if held_out:
        found = [(name, router.route(text).expert) for name, texts in prompts.held_out.items() for text in texts]
    else:
        found = [(name, choice.expert) for name, _, choice in leave_one_out(router, prompts.train)]
    rows = tuple(
        _row(name, [(owner, chosen) for owner, chosen in found if owner == name], prompts.general)
        for name in prompts.train
    )
    examples = sum(len(texts) for texts in prompts.train.values())
    measured_on = "held_out" if held_out else "leave_one_out"
    overall = _row("all", found, prompts.general)
    return Report(encoder, router.bound, prompts.general, examples, measured_on, rows, overall)


def wilson(right: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share: Wilson, JASA 22 (1927); 0 to 1 where nothing was seen."""
    if not of:
        return 0.0, 1.0
    share, z2 = right / of, Z_95 * Z_95
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = Z_95 / (1 + z2 / of) * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def as_json(found: Report) -> dict[str, object]:
    """The report as plain values, with accuracy and interval of each row."""
    tree = asdict(found)
    for plain, row in zip((*tree["rows"], tree["overall"]), (*found.rows, found.overall), strict=True):
        plain |= {"accuracy": row.accuracy, "interval_95": row.interval}
    return tree


def _row(name: str, found: Iterable[tuple[str, str]], general: str | None) -> Row:
    """``found``: (owner, chosen) of each prompt."""
    pairs = list(found)
    wrong = Counter(chosen for owner, chosen in pairs if chosen not in (owner, general))
    most, count = min(wrong.items(), key=lambda item: (-item[1], item[0]), default=(None, 0))
    right = sum(owner == chosen for owner, chosen in pairs)
    return Row(name, len(pairs), right, sum(chosen == general for _, chosen in pairs), most, count)

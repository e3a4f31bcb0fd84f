"""From images to what a classifier of domains sees of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from samda.encoder import Cached
from samda.images import Case
from samda.patches import embed
from samda.routing.classifier import Array, pooled


def features_of(cases: Sequence[Case], embeddings: Cached, told: Callable[[str, int, str], None]) -> Array:
    """A row of features for each image; ``told`` hears of every one that is done."""
    rows = []
    for done, case in enumerate(cases, 1):
        rows.append(pooled(embed(embeddings, case, 0, case.hash).numpy()))
        told("images", done, "")
    return np.stack(rows)

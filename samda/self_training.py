"""Self-training: what an adapted expert is certain of on images without masks is learned like masks.

Ours; of SAMDA only that later steps use the target is known. A pixel counts where the probability of its class is at
least the confidence, all others count nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from samda.composition import Composed
from samda.encoder import Cached
from samda.images import Case
from samda.inference import probabilities
from samda.plan import Plan


def pseudo_labelled(
    model: Composed, plan: Plan, cases: Sequence[Case], confidence: float, embeddings: Cached | None = None
) -> list[Case]:
    """The images with the masks that the expert gives them, whatever masks they have."""
    found = []
    for case in cases:
        foreground = probabilities(model, plan, case, embeddings)
        certain = np.maximum(foreground, 1 - foreground) >= confidence
        found.append(replace(case, mask=foreground > 0.5, certain=certain))
    return found

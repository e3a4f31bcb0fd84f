"""How a prompt becomes numbers. An encoder is a pure function of prompts, with what was chosen for it.

``ridge`` and ``bound`` were chosen by leave-one-out on the training prompts of ``prompts.toml``: the ridge of the best
accuracy, then the bound of the best accuracy where the general expert has no examples of its own (docs/design.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cluster.routing.minilm import minilm
from cluster.routing.ngrams import ngrams


@dataclass(frozen=True)
class Encoder:
    """``rows``: prompts to rows of length 1, of zeros where a prompt says nothing."""

    rows: Callable[[Sequence[str]], npt.NDArray[np.float32]]
    ridge: float
    bound: float


ENCODERS: dict[str, Encoder] = {
    "ngrams": Encoder(ngrams, ridge=0.2, bound=0.26),
    "minilm": Encoder(minilm, ridge=0.5, bound=0.36),
}

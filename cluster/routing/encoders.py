"""How a prompt becomes numbers: an encoder is a pure function of prompts, with the ridge of its regression.

The ridge is the one of best accuracy by leave-one-out on the training prompts of ``prompts.toml`` (docs/design.md).
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


ENCODERS: dict[str, Encoder] = {
    "ngrams": Encoder(ngrams, ridge=0.2),
    "minilm": Encoder(minilm, ridge=0.5),
}

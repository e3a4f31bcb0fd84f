"""What tells the families of decoder models apart, beyond their sizes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """How a decoder layer is built.

    ``layer_norm``: norms with mean and bias, otherwise RMS norms; ``bias``: linear layers have one; ``gated``: the FFN
    is SiLU(gate) x up, otherwise GELU(up); ``parallel``: attention and FFN read the same input and are summed (one
    all-reduce), each with a norm of its own if ``two_norms``; ``rotary`` positions, otherwise ALiBi;
    ``embedding_norm``: a norm after the embedding.
    """

    layer_norm: bool = False
    bias: bool = False
    gated: bool = True
    parallel: bool = False
    two_norms: bool = True
    rotary: bool = True
    embedding_norm: bool = False


FAMILIES: dict[str, Family] = {
    "llama": Family(),
    "falcon": Family(layer_norm=True, gated=False, parallel=True),
    "falcon-one-norm": Family(layer_norm=True, gated=False, parallel=True, two_norms=False),
    "bloom": Family(layer_norm=True, bias=True, gated=False, rotary=False, embedding_norm=True),
}

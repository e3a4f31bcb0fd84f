"""What tells the families of decoder models apart, beyond their sizes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """How a decoder layer is built.

    ``layer_norm``: norms with mean and bias, otherwise RMS norms; ``bias``: linear layers have one; ``gated``: the FFN
    is SiLU(gate) x up, otherwise the ``gelu`` of up (``gelu``: by tanh, or ``gelu_erf``); ``parallel``: attention and
    FFN read the same input and are summed (one all-reduce), each with a norm of its own if ``two_norms``;
    ``positions``: ``rotary``, ``alibi`` or ``learned`` (a table with a row per place in the context, added to the
    embedding); ``embedding_norm``: a norm after that.
    """

    layer_norm: bool = False
    bias: bool = False
    gated: bool = True
    parallel: bool = False
    two_norms: bool = True
    positions: str = "rotary"
    embedding_norm: bool = False
    gelu: str = "gelu"


FAMILIES: dict[str, Family] = {
    "llama": Family(),
    "falcon": Family(layer_norm=True, gated=False, parallel=True, gelu="gelu_erf"),
    "falcon-one-norm": Family(layer_norm=True, gated=False, parallel=True, two_norms=False, gelu="gelu_erf"),
    "bloom": Family(layer_norm=True, bias=True, gated=False, positions="alibi", embedding_norm=True),
    "gpt": Family(layer_norm=True, bias=True, gated=False, positions="learned"),
}

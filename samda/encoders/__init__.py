"""The encoders that there are, by the names that users give them."""

from __future__ import annotations

from pathlib import Path

from node.errors import InputError
from samda.encoder import Encoder
from samda.encoders.sam import sam
from samda.encoders.sam_code import VARIANTS
from samda.encoders.vgg import hed, random

ENCODERS = ("hed", "random", *VARIANTS)


def make_encoder(name: str, *, checkpoint: Path | None = None, pixels: int | None = None, seed: int = 0) -> Encoder:
    """One of ``ENCODERS``: ``checkpoint`` and ``pixels`` are of SAM, ``seed`` is of the random one alone.

    ``InputError`` for a name that is not there, for what an encoder has no use for or lacks.
    """
    if name not in ENCODERS:
        raise InputError(f"encoder {name!r}: one of {', '.join(ENCODERS)} is allowed")
    if name in VARIANTS:
        if checkpoint is None:
            raise InputError(
                f"encoder {name!r}: a checkpoint is needed, the file of SAM's weights; none comes with this"
            )
        return sam(name, checkpoint, pixels)
    if checkpoint is not None or pixels is not None:
        given = "checkpoint" if checkpoint is not None else "size"
        raise InputError(f"encoder {name!r}: has no use for a {given}; that is for {', '.join(VARIANTS)}")
    return hed() if name == "hed" else random(seed)

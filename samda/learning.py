"""What an expert learns from, and what it is before it does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from node.errors import InputError
from samda.checkpoint import Expert
from samda.composition import Composed, Composition, EncoderFacts, with_adapter
from samda.encoder import Cached
from samda.images import Case
from samda.patches import embed

SHARE = 5  # of so many images the last is for validation


def held_out(folder: Path, cases: Sequence[Case]) -> tuple[list[Case], list[Case]]:
    """Images to train on and, the last fifth by name, to choose weights by; raises ``InputError``."""
    last = max(1, len(cases) // SHARE)
    trained, chosen_by = list(cases[:-last]), list(cases[-last:])
    for part, found in (("training", trained), ("validation", chosen_by)):
        if not any(case.truth.any() for case in found):
            raise InputError(
                f"{folder}: {len(found)} of its {len(cases)} images are for {part}, none of them with foreground: "
                "name images for validation (--validation), or add some"
            )
    return trained, chosen_by


def standardise(model: Composed, cases: Sequence[Case], embeddings: Cached | None) -> None:
    """Have a composed expert standardise embeddings by those of the images that it is to learn from."""
    if embeddings is not None and model.adapter is not None:
        model.adapter.standardise_by([embed(embeddings, case, 0, case.hash) for case in cases])


def adapted(expert: Expert, cases: Sequence[Case], embeddings: Cached | None, seed: int) -> Expert:
    """A plain expert with an adapter for the encoder beside it, where there is one; any other as it is."""
    if embeddings is None or expert.composition.kind != "plain":
        return expert
    composition = Composition("adapter", EncoderFacts.of(embeddings.encoder))
    model = with_adapter(expert.model, expert.plan.unet, composition, seed)
    standardise(model, cases, embeddings)
    return Expert(expert.plan, composition, model, expert.trained)


def check_encoder(path: Path, expert: Expert, embeddings: Cached | None) -> None:
    """``InputError`` where an expert needs an encoder that is not given, or another one."""
    needed = expert.composition.encoder
    if needed is None:
        return
    if embeddings is None:
        raise InputError(f"{path}: was made with the encoder {needed.name} ({needed.hash[:16]}): give it (--encoder)")
    if embeddings.encoder.hash != needed.hash:
        raise InputError(
            f"{path}: was made with the encoder {needed.name} ({needed.hash[:16]}), but --encoder is "
            f"{embeddings.encoder.name} ({embeddings.encoder.hash[:16]}): other weights"
        )

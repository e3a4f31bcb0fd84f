"""A router on disk: a folder with ``router.json``, what it is and how well it did, and ``router.npz``, its numbers."""

from __future__ import annotations

import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from cluster.output import write_json
from node.errors import InputError
from samda.composition import EncoderFacts
from samda.encoder import Encoder
from samda.record import FORMAT, read_record
from samda.routing.classifier import Classifier, Measured

KIND = "samda-router"
JSON, NUMBERS = "router.json", "router.npz"


@dataclass(frozen=True)
class Router:
    """A classifier, and the encoder whose embeddings it was fitted to."""

    classifier: Classifier
    encoder: EncoderFacts


def save_router(folder: Path, router: Router, measured: Measured, images: int, seed: int) -> None:
    """Write both files into a folder that is there; ``images``: so many it was fitted to."""
    classifier = router.classifier
    np.savez(folder / NUMBERS, weights=classifier.weights, offsets=classifier.offsets)
    write_json(
        folder / JSON,
        {
            "format": FORMAT, "kind": KIND, "domains": list(classifier.domains), "encoder": asdict(router.encoder),
            "fitted_to": images, "seed": seed,
            "held_out": {
                "images": measured.images, "right": measured.right, "confusion": measured.confusion.tolist(),
            },
        },
    )  # fmt: skip


def load_router(folder: Path) -> Router:
    """Read both; raises ``InputError``."""
    record = read_record(folder / JSON, KIND, "a router", "fit one with coe samda fit-router")
    try:
        encoder = EncoderFacts(**record["encoder"])
        with np.load(folder / NUMBERS, allow_pickle=False) as numbers:
            classifier = Classifier(tuple(record["domains"]), numbers["weights"], numbers["offsets"])
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{folder}: {JSON} and {NUMBERS} do not go together: {error}; fit it anew") from None
    shape = (len(classifier.domains), 2 * encoder.channels)
    if classifier.weights.shape != shape or classifier.offsets.shape != shape[:1]:
        raise InputError(f"{folder}: {NUMBERS} has weights {classifier.weights.shape}, {JSON} says {shape}")
    return Router(classifier, encoder)


def check_encoder(folder: Path, router: Router, encoder: Encoder) -> None:
    """``InputError`` where a router was fitted to another encoder's embeddings."""
    if encoder.hash != router.encoder.hash:
        raise InputError(
            f"{folder}: was fitted to embeddings of {router.encoder.name} {router.encoder.hash[:12]}, not of "
            f"{encoder.name} {encoder.hash[:12]}: give the same --encoder, with the same weights"
        )

"""What the commands of ``coe samda`` share."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import click
import torch

from cluster.cli_options import OUT, options_together
from node.errors import InputError
from samda.cache import cached
from samda.encoder import Cached, Encoder
from samda.encoders import ENCODERS, make_encoder
from samda.fingerprint import SCHEMES
from samda.images import Case, read_labelled
from samda.learning import held_out
from samda.plan import WIDTHS
from samda.recipe import Images

CACHE = Path.home() / ".cache" / "samba-coe" / "embeddings"
DATA = "Images with masks: NAME.png beside NAME_mask.png, or images/ and masks/; PNG or TIFF, grey."

F = TypeVar("F", bound=Callable[..., object])

folder = click.Path(path_type=Path)
encoder_options = options_together(
    click.option("--encoder", metavar="NAME[:FILE[@PIXELS]]",
                 help=f"Generic encoder: {', '.join(ENCODERS)}; SAM's with the file of its weights, and the side of "
                      "what it is given, 1024 where nothing is said."),
    click.option("--cache", type=folder, default=CACHE, help="Folder of embeddings.  [default: ~/.cache/samba-coe]"),
)  # fmt: skip
plan_options = options_together(
    click.option("--width", type=click.Choice(list(WIDTHS)), default="small", show_default=True,
                 help="Of the U-Net: 1.9 million parameters, or as wide as nnU-Net's."),
    click.option("--normalisation", "scheme", type=click.Choice(SCHEMES), default="foreground", show_default=True,
                 help="By the foreground of the training images, or each image by itself."),
)  # fmt: skip
threads_option = click.option(
    "--threads", type=click.IntRange(1), help="Of PyTorch; the last bits depend on it.  [default: the CPUs]"
)


def learning_options(steps: int | None, rate: float, taken: str) -> Callable[[F], F]:
    """Those of ``Given``; ``taken``: how many steps there are where nobody says."""
    return options_together(
        click.option("--data", type=folder, required=True, help=DATA),
        click.option("--validation", type=folder, help="Images with masks to choose weights by."),
        encoder_options,
        click.option("--steps", type=click.IntRange(1), default=steps, help=f"Of training.  [default: {taken}]"),
        click.option("--rate", type=click.FloatRange(0, min_open=True), default=rate, show_default=True),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True),
        threads_option,
        click.option("--output", type=folder, required=True, help="Folder of the expert; it must not exist."),
    )


@dataclass(frozen=True)
class Given:
    """What ``learning_options`` give."""

    data: Path
    validation: Path | None
    encoder: str | None
    cache: Path
    steps: int | None
    rate: float
    seed: int
    threads: int | None
    output: Path

    def images(self, *, hold_out: bool) -> Images:
        """Those to learn from, and those of ``--validation``; without it the last fifth of them, or none."""
        cases: list[Case] = read_labelled(self.data)
        if self.validation is not None:
            return Images(cases, read_labelled(self.validation))
        return Images(*held_out(self.data, cases)) if hold_out else Images(cases)

    def embeddings(self) -> Cached | None:
        """Those of ``--encoder``."""
        if self.encoder is None:
            return None
        found = embeddings_of(self.encoder, self.cache)
        tell_encoder("encoder", found.encoder)
        return found

    def record(self) -> dict[str, str]:
        """What a training that goes on must have in common with the one that was begun."""
        given = {key: value for key, value in asdict(self).items() if key not in ("cache", "output")}
        return {key: str(value) for key, value in (given | {"threads": use_threads(self.threads)}).items()}


def use_threads(threads: int | None) -> int:
    """Have PyTorch use so many, and give the number."""
    torch.set_num_threads(threads or os.cpu_count() or 1)
    return torch.get_num_threads()


def embeddings_of(text: str, cache: Path) -> Cached:
    """The encoder that ``--encoder`` names, with its embeddings kept; raises ``InputError``."""
    name, _, rest = text.partition(":")
    file, at, digits = rest.rpartition("@")
    sized = bool(at) and digits.isdecimal()
    file = file if sized else rest
    try:
        encoder = make_encoder(name, checkpoint=Path(file) if file else None, pixels=int(digits) if sized else None)
    except InputError as error:
        raise InputError(f"--encoder {text!r}: {error}") from None
    return cached(encoder, cache)


def tell_encoder(what: str, encoder: Encoder) -> None:
    """Which encoder it is, and what of it is not as it was trained."""
    OUT.print(f"{what}: {encoder.name}, hash {encoder.hash[:16]}", highlight=False)
    if encoder.note is not None:
        OUT.print(f"note: {encoder.name}: {encoder.note}", highlight=False)

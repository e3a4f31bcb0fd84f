"""``coe samda fit-router``: learn to tell domains."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from cluster.cli_options import OUT, tell_written
from cluster.output import check_output, result_folder
from cluster.show import print_table
from node.errors import InputError
from samda.cli_options import embeddings_of, encoder_options, folder, tell_encoder, threads_option, use_threads
from samda.composition import EncoderFacts
from samda.images import Case, read_images
from samda.progress import steps_bar
from samda.routing.classifier import FEWEST, Ints, Measured, fit, held_out, measure
from samda.routing.features import features_of
from samda.routing.files import Router, save_router


@click.command("fit-router")
@click.argument("folders", metavar="FOLDER FOLDER...", type=folder, nargs=-1, required=True)
@encoder_options
@click.option("--held-out", "share", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.3,
              show_default=True, help="Share of each domain's images that it is measured on.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Which images are held out.")
@threads_option
@click.option("--output", type=folder, required=True, help="Folder of the router; it must not exist.")
def fit_router(
    folders: tuple[Path, ...],
    encoder: str | None,
    cache: Path,
    share: float,
    seed: int,
    threads: int | None,
    output: Path,
) -> None:
    """Fit a router to folders of images, one of each domain, and say how often it is right on images held out.

    The first folder's domain is expert 0, the next one's expert 1, and so on.
    """
    use_threads(threads)
    check_output(str(output))
    names, cases, labels = _read(folders)
    embeddings = embeddings_of(encoder or "hed", cache)
    tell_encoder("encoder", embeddings.encoder)
    with steps_bar(len(cases)) as told:
        features = features_of(cases, embeddings, told)
    out = held_out(labels, share, seed)
    classifier = fit(names, features[~out], labels[~out])
    measured = measure(classifier, features[out], labels[out])
    router = Router(classifier, EncoderFacts.of(embeddings.encoder))
    with result_folder(str(output), "fit-router") as made:
        save_router(made.temporary, router, measured, int((~out).sum()), seed)
    _show(names, measured, router.encoder)
    tell_written(output)


def _read(folders: tuple[Path, ...]) -> tuple[list[str], list[Case], Ints]:
    """Names of the domains, and of each image its domain's number."""
    names = [path.resolve().name for path in folders]
    if len(folders) < 2:
        raise InputError(f"{folders[0]}: is one domain: give a folder of images for each of two or more")
    if len(set(names)) < len(names):
        raise InputError(f"{', '.join(names)}: domains are called as their folders, whose names must differ")
    cases: list[Case] = []
    labels: list[int] = []
    for number, path in enumerate(folders):
        found = read_images(path)
        if len(found) < FEWEST:
            raise InputError(f"{path}: has {len(found)} images: a domain needs {FEWEST} at least")
        cases += found
        labels += [number] * len(found)
    return names, cases, np.array(labels)


def _show(names: list[str], measured: Measured, encoder: EncoderFacts) -> None:
    low, high = measured.interval
    title = (
        f"{measured.right} of {measured.images} images held out are told rightly by {encoder.name} {encoder.hash[:12]} "
        f"({measured.right / measured.images:.1%}; 95 % interval {low:.1%} to {high:.1%})"
    )
    rows = []
    for number, (name, row) in enumerate(zip(names, measured.confusion, strict=True)):
        other = np.where(np.arange(len(names)) == number, -1, row)
        taken = f"{names[int(other.argmax())]} ({other.max()})" if other.max() > 0 else "-"
        rows.append((name, str(number), str(row.sum()), str(row[number]), taken))
    print_table(OUT, title, ("domain", "expert", "held out", "right", "most taken for"), rows, left=(0, 4))

"""``coe samda experiment``: arms of a few-shot adaptation, compared."""

from __future__ import annotations

from pathlib import Path

import click

from cluster.cli_options import ERR, OUT, tell_written
from cluster.output import RUNS, write_json
from node.errors import InputError
from samda.cli_options import (
    embeddings_of,
    encoder_options,
    folder,
    plan_options,
    tell_encoder,
    threads_option,
    use_threads,
)
from samda.encoder import Cached
from samda.experiment.folder import experiment_folder
from samda.experiment.pictures import SHEET, write_overlays
from samda.experiment.results import as_json, pairs, rows
from samda.experiment.run import Experiment
from samda.experiment.settings import ARMS, Settings, check, record
from samda.experiment.split import SOURCE, TARGET, split
from samda.images import read_labelled
from samda.progress import steps_bar
from samda.show import experiment_tables


@click.command()
@click.option("--source", type=folder, required=True, help="Folder of images and masks to learn from.")
@click.option("--target", type=folder, required=True, help="Folder of images and masks to adapt to.")
@click.option("--shots", default="1,5", show_default=True, metavar="N,N", help="Annotated images of an adaptation.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--arms", default="plain,random,generic-adapter", show_default=True, metavar="NAME,NAME",
              help=f"Of {', '.join(ARMS)}.")  # fmt: skip
@encoder_options
@plan_options
@click.option("--source-steps", type=click.IntRange(1), default=Settings.source_steps, show_default=True)
@click.option("--checks", type=click.IntRange(1), default=Settings.checks, show_default=True,
              help="How often in a training validation images choose between its weights.")  # fmt: skip
@click.option("--adapt-steps", type=(click.IntRange(0), click.IntRange(1)), default=Settings.adapt_steps,
              show_default=True, metavar="FIRST EACH", help="Of an adaptation, and more for each shot.")  # fmt: skip
@threads_option
@click.option(
    "--output", type=folder, help="Folder of the experiment; one that is there goes on.  [default: runs/samda]"
)
def experiment(
    shots: str, arms: str, encoder: str | None, cache: Path, threads: int | None, output: Path | None, **options: object
) -> None:
    """Train on the source, adapt to the target with few images, by several arms, and compare them.

    A U-Net alone (plain), or with an embedding of a frozen encoder: the one of --encoder (generic) or one with random
    weights (random), joined at the adaptation by an adapter that begins at zero, or from the source on (concat). Shots,
    validation and test images are apart; an experiment that was ended goes on where it was, if given once more.
    """
    named, threads = tuple(arms.split(",")), use_threads(threads)
    settings = Settings(shots=_numbers(shots), arms=named, encoder=encoder or "hed", threads=threads, **options)  # type: ignore[arg-type]
    source, target = settings.source, settings.target
    domains = split(source, read_labelled(source), SOURCE), split(target, read_labelled(target), TARGET)
    check(settings, domains[1])
    encoders = _encoders(settings, cache)
    described = record(settings, *domains, {name: one.encoder.hash for name, one in encoders.items()})
    for name, one in encoders.items():
        tell_encoder(name, one.encoder)
    path = output or RUNS / "samda"
    with experiment_folder(path, described) as kept, steps_bar(settings.total_steps()) as told:
        try:
            found = Experiment(settings, *domains, encoders, kept, told).run()
        except KeyboardInterrupt:
            ERR.print(f"what is done is in {path}; the same command goes on from there")
            raise
        write_json(path / "experiment.json", as_json(described, settings, found))
        write_overlays(path / SHEET, settings, domains[1], kept)
    experiment_tables(OUT, rows(settings, found), pairs(settings, found), settings.seeds, len(domains[1].test))
    tell_written(path)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--shots {text!r}: must be whole numbers with commas between them, as 1,5,10") from None


def _encoders(settings: Settings, cache: Path) -> dict[str, Cached]:
    """Those that the arms need, by what arms call them."""
    needed = {joined[0] for arm in settings.arms if (joined := ARMS[arm]) is not None}
    texts = {"generic": settings.encoder, "random": "random"}
    return {name: embeddings_of(texts[name], cache) for name in sorted(needed)}

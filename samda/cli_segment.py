"""``coe samda segment``: images through an expert."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import click

from cluster.cli_options import OUT, tell_written
from cluster.output import check_output, result_folder
from node.errors import InputError
from node.spec_file import load_machine
from node.units import seconds, show_seconds
from samda.checkpoint import Expert, load_expert
from samda.cli_options import embeddings_of, encoder_options, folder, tell_encoder, threads_option, use_threads
from samda.emulated import Emulated, on_sockets
from samda.images import MASK, read_images
from samda.inference import Network
from samda.inference import segment as segmented
from samda.learning import check_encoder
from samda.progress import steps_bar
from samda.scores import mean_score, score
from samda.show import scores_table
from samda.written import write_mask

MACHINE = "sn40l-node"


@click.command()
@click.argument("expert_folder", metavar="EXPERT", type=folder)
@click.option("--data", type=folder, required=True, help="Images: PNG or TIFF, grey; in it, or in its images/.")
@encoder_options
@threads_option
@click.option("--sockets", type=click.IntRange(1), help=f"Emulated sockets of {MACHINE} compute the expert's network.")
@click.option("--output", type=folder, required=True, help="Folder of the masks, NAME_mask.png; it must not exist.")
def segment(
    expert_folder: Path,
    data: Path,
    encoder: str | None,
    cache: Path,
    threads: int | None,
    sockets: int | None,
    output: Path,
) -> None:
    """Segment images with an expert; where they have masks, say how well."""
    use_threads(threads)
    check_output(str(output))
    expert, cases = load_expert(expert_folder), read_images(data)
    if encoder is not None and expert.composition.kind == "plain":
        raise InputError(f"--encoder {encoder!r}: {expert_folder} was made without an encoder; leave it out")
    embeddings = None if encoder is None else embeddings_of(encoder, cache)
    if embeddings is not None:
        tell_encoder("encoder", embeddings.encoder)
    check_encoder(expert_folder, expert, embeddings)
    scores = {}
    with (
        result_folder(str(output), "segment") as made,
        steps_bar(len(cases)) as told,
        _network(expert_folder, expert, sockets) as network,
    ):
        for done, case in enumerate(cases, 1):
            mask = segmented(network, expert.plan, case, embeddings)
            write_mask(made.temporary / f"{case.name}{MASK}.png", mask)
            told("images", done, "")
            if case.mask is not None:
                scores[case.name] = score(mask, case.mask)
    if isinstance(network, Emulated):
        took = show_seconds(seconds(network.expert.now))
        OUT.print(f"On {sockets} emulated sockets of {MACHINE}: {took}, calls and the expert's way into HBM included")
    if scores:
        title = f"Beside the masks of {len(scores)} of {len(cases)} images"
        scores_table(OUT, title, scores | {"mean": mean_score(list(scores.values()))})
    tell_written(output)


@contextlib.contextmanager
def _network(folder: Path, expert: Expert, sockets: int | None) -> Iterator[Network]:
    """The expert's own network, or the same on sockets."""
    if sockets is None:
        yield expert.model
        return
    with on_sockets(folder, load_machine(MACHINE, {"sockets": sockets})) as emulated:
        yield emulated

"""``coe samda route``: images to a trace of requests, each for the expert of its domain."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from cluster.cli_options import OUT, tell_written
from cluster.output import check_file, write_text
from cluster.show import print_table
from samda.cli_options import embeddings_of, encoder_options, folder, tell_encoder, threads_option, use_threads
from samda.images import read_image, read_images
from samda.progress import steps_bar
from samda.routing.classifier import Array, Ints
from samda.routing.features import features_of
from samda.routing.files import check_encoder, load_router
from samda.routing.trace import order, trace_lines


@click.command()
@click.argument("images", metavar="IMAGE...", type=folder, nargs=-1, required=True)
@click.option("--classifier", type=folder, required=True, help="Folder of a router, of coe samda fit-router.")
@encoder_options
@click.option("--rate", type=click.FloatRange(1e-6, 1e6), default=1.0, show_default=True, help="Images per second.")
@click.option("--requests", type=click.IntRange(1), help="Images come again and again.  [default: each once]")
@click.option("--seed", type=click.IntRange(0), help="Shakes their order.  [default: as they are given]")
@threads_option
@click.option("--output", type=folder, required=True, help="File of the trace: lines of JSON.")
def route(  # noqa: PLR0913 - as many as it has options
    images: tuple[Path, ...],
    *,
    classifier: Path,
    encoder: str | None,
    cache: Path,
    rate: float,
    requests: int | None,
    seed: int | None,
    threads: int | None,
    output: Path,
) -> None:
    """Tell images, or folders of them, by domain, and write a trace for coe run --set workload.trace=FILE.

    Each image is a request to the expert of its domain: expert 0 is of the router's first domain, and so on.
    """
    use_threads(threads)
    check_file(output)
    router = load_router(classifier)
    cases = [case for path in images for case in (read_images(path) if path.is_dir() else [read_image(path)])]
    embeddings = embeddings_of(encoder or router.encoder.name, cache)
    tell_encoder("encoder", embeddings.encoder)
    check_encoder(classifier, router, embeddings.encoder)
    with steps_bar(len(cases)) as told:
        scores = router.classifier.scores(features_of(cases, embeddings, told))
    experts = scores.argmax(1)
    chosen = experts[order(len(cases), requests or len(cases), seed)]
    write_text(output, trace_lines(chosen.tolist(), rate))
    _show(router.classifier.domains, np.sort(scores, 1), experts, chosen)
    tell_written(output)


def _show(domains: tuple[str, ...], ascending: Array, experts: Ints, chosen: Ints) -> None:
    """``ascending`` (images, domains): scores."""
    rows = []
    for number, domain in enumerate(domains):
        lead = (ascending[:, -1] - ascending[:, -2])[experts == number]
        said = f"{lead.mean():.1f}" if len(lead) else "-"
        rows.append((domain, str(number), str(len(lead)), str(int((chosen == number).sum())), said))
    title = f"{len(experts)} images, {len(chosen)} requests; lead: of the log-likelihood over the next domain's, mean"
    print_table(OUT, title, ("domain", "expert", "images", "requests", "lead"), rows)

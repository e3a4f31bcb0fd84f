"""``coe samda adapt``: an expert made fit for another domain by a few of its images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from cluster.cli_options import OUT
from node.errors import InputError
from samda.checkpoint import Expert, load_expert
from samda.cli_options import Given, folder, learning_options
from samda.composition import PARTS
from samda.encoder import Cached
from samda.expert_folder import Learning
from samda.images import Case, read_images
from samda.learning import adapted, check_encoder
from samda.recipe import ADAPT_RATE, Images, Recipe, adaptation_steps
from samda.self_training import pseudo_labelled


@click.command()
@click.argument("expert_folder", metavar="EXPERT", type=folder)
@learning_options(None, ADAPT_RATE, f"{adaptation_steps(0)}, and {adaptation_steps(1) - adaptation_steps(0)} an image")
@click.option("--train-only", default=",".join(PARTS), show_default=True, metavar="PART,PART",
              help="What learns: the U-Net's encoder, its decoder, the adapter; all else is frozen.")  # fmt: skip
@click.option("--unlabelled", type=folder, help="Images without masks, for self-training after the adaptation.")
@click.option("--confidence", type=click.FloatRange(0.5, 1), default=0.9, show_default=True,
              help="From which on a pixel of theirs is learned as the expert sees it.")  # fmt: skip
def adapt(expert_folder: Path, train_only: str, unlabelled: Path | None, confidence: float, **options: object) -> None:
    """Adapt an expert to the images of another domain, one or more, with masks.

    With --encoder a plain expert gets an adapter for that encoder's embedding, which at first adds nothing. Without
    --validation the weights after the last step are kept. An adaptation that was ended goes on, if given once more.
    """
    given = Given(**options)  # type: ignore[arg-type]
    begin = load_expert(expert_folder)
    images, embeddings = given.images(hold_out=False), given.embeddings()
    check_encoder(expert_folder, begin, embeddings)
    target = read_images(unlabelled) if unlabelled is not None else []
    extra = {"expert": expert_folder, "train_only": train_only, "unlabelled": unlabelled, "confidence": confidence}
    parts = _parts(train_only, plain=begin.composition.kind == "plain" and embeddings is None)
    learning = Learning(given.output, given.record() | {key: str(value) for key, value in extra.items()})
    expert = adapted(begin, images.train, embeddings, given.seed)
    steps = given.steps or adaptation_steps(len(images.train))
    recipe = Recipe(steps, given.seed, given.rate, parts=parts, from_start=bool(images.validation))
    history = learning.train("adaptation", expert, images, recipe, embeddings)
    if target:
        images = _self_labelled(expert, images, target, confidence, embeddings)
        history = learning.train("self-training", expert, images, replace(recipe, seed=given.seed + 1), embeddings)
    learning.finish(expert, images, history)


def _parts(text: str, *, plain: bool) -> tuple[str, ...]:
    parts = tuple(dict.fromkeys(text.split(",")))
    if wrong := [part for part in parts if part not in PARTS]:
        raise InputError(f"--train-only {wrong[0]!r}: must be of {', '.join(PARTS)}")
    if plain and parts == ("adapter",):
        raise InputError("--train-only adapter: the expert has none; give an --encoder, or train other parts")
    return parts


def _self_labelled(
    expert: Expert, images: Images, target: list[Case], confidence: float, embeddings: Cached | None
) -> Images:
    """The shots, and the images without masks with those that the expert gives them."""
    found = pseudo_labelled(expert.model, expert.plan, target, confidence, embeddings)
    certain = sum(float(case.certain.mean()) for case in found if case.certain is not None) / len(found)
    OUT.print(f"self-training on {len(found)} images more: of {certain:.1%} of their pixels the expert is certain",
              highlight=False)  # fmt: skip
    return Images([*images.train, *found], images.validation)

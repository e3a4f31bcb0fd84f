"""``coe samda train``: an expert of a user's own images."""

from __future__ import annotations

import click

from cluster.cli_options import OUT
from samda.checkpoint import Expert
from samda.cli_options import Given, learning_options, plan_options
from samda.composition import Composition, EncoderFacts, composed
from samda.expert_folder import Learning
from samda.fingerprint import fingerprint
from samda.learning import standardise
from samda.plan import WIDTHS, make_plan
from samda.recipe import SOURCE_RATE, SOURCE_STEPS, Recipe
from samda.unet import parameters


@click.command()
@learning_options(SOURCE_STEPS, SOURCE_RATE, str(SOURCE_STEPS))
@plan_options
def train(width: str, scheme: str, **options: object) -> None:
    """Train an expert on images with masks.

    Without --validation the last fifth of the images, by name, chooses between weights. With --encoder the expert sees
    that encoder's embedding from the first step on, concatenated at its bottleneck. A training that was ended goes on
    where it was, if given once more.
    """
    given = Given(**options)  # type: ignore[arg-type]
    images, embeddings = given.images(hold_out=True), given.embeddings()
    plan = make_plan(fingerprint(images.train), WIDTHS[width], scheme)
    composition = Composition()
    if embeddings is not None:
        composition = Composition("concat", EncoderFacts.of(embeddings.encoder))
    expert = Expert(plan, composition, composed(plan.unet, composition, given.seed))
    learning = Learning(given.output, {**given.record(), "width": width, "normalisation": scheme})
    standardise(expert.model, images.train, embeddings)
    counted = f"{len(images.train)} images to train on, {len(images.validation)} for validation"
    network = f"{len(plan.unet.features)} stages, {parameters(expert.model):,} parameters"
    patches = f"patches of {plan.patch[1]} x {plan.patch[0]}, {plan.batch} a step"
    OUT.print(f"{counted}; {network}; {patches}", highlight=False)
    assert given.steps is not None
    history = learning.train("source", expert, images, Recipe(given.steps, given.seed, given.rate), embeddings)
    learning.finish(expert, images, history)

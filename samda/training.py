"""Training: source, adaptation and self-training are the same loop over other images, steps and frozen parts.

The loss, the norm at which gradients are clipped and the decay of the rate, (1 - step / steps) ** 0.9, are nnU-Net's
(Isensee et al. 2021). Ours: AdamW in place of SGD, as runs are some hundred steps where nnU-Net's are 250,000; and the
choice of the weights: of those that were checked the ones with the best mean Dice on validation images, the earliest of
equals; without validation images the last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from node.errors import InputError
from samda.composition import Composed
from samda.encoder import Cached
from samda.images import Case
from samda.inference import segment
from samda.loss import segmentation_loss
from samda.patches import Drawing
from samda.plan import Plan
from samda.recipe import History, Images, Recipe
from samda.scores import Score, mean_score, score

DECAY_POWER = 0.9
CLIP = 12.0
SAVED_EVERY_S = 20.0

Told = Callable[[int, str], None]  # steps done, and what to say of them
Weights = dict[str, Tensor]


def silent(_steps: int, _text: str) -> None:
    """Tells nobody."""


def train(
    model: Composed, plan: Plan, images: Images, recipe: Recipe, embeddings: Cached | None = None,
    state: Path | None = None, told: Told = silent,
) -> History:  # fmt: skip
    """Train ``model`` in place, and leave it with the weights that were chosen.

    ``embeddings``: None for a plain expert. ``state``: a file in which training is kept, and from which it goes on
    where that is there, to the same weights as without a pause.
    """
    run = Training(model, plan, images, recipe, embeddings)
    if state is not None and state.exists():
        run.take_up(state)
    saved = time.monotonic()
    told(run.step, run.history.said())
    while run.step < recipe.steps:
        run.advance()
        if state is not None and time.monotonic() - saved > SAVED_EVERY_S:
            run.save(state)
            saved = time.monotonic()
        told(run.step, run.history.said())
    model.load_state_dict(run.kept)
    return run.history


class Training:
    """A network on its way, which can be left and taken up after any step."""

    def __init__(
        self, model: Composed, plan: Plan, images: Images, recipe: Recipe, embeddings: Cached | None = None
    ) -> None:
        self.model, self.plan, self.images, self.recipe, self.embeddings = model, plan, images, recipe, embeddings
        self.weights = model.train_only(recipe.parts)
        self.optimiser = torch.optim.AdamW(self.weights, lr=recipe.rate, weight_decay=recipe.weight_decay)
        self.drawing = Drawing(images.train, plan, embeddings, recipe.seed)
        self.history, self.step, self.kept = History(), 0, _copy(model)
        if recipe.checked(0):
            self._check()

    def advance(self) -> None:
        """One step, and the check that is due after it."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate * (1 - self.step / self.recipe.steps) ** DECAY_POWER
        batch = self.drawing.batch(self.step)
        self.model.train()
        loss = segmentation_loss(self.model(batch.images, batch.embedding), batch.masks, batch.certain)
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, CLIP)
        self.optimiser.step()
        self.history.losses.append(float(loss.detach()))
        self.step += 1
        if self.recipe.checked(self.step):
            self._check()

    def _check(self) -> None:
        """Keep the weights as they are now where they are the best so far."""
        if self.images.validation:
            scores = evaluate(self.model, self.plan, self.images.validation, self.embeddings)
            dice, best = mean_score(scores).dice, self.history.best
            self.history.checks.append((self.step, dice))
            if dice <= best:
                return
        self.kept, self.history.chosen = _copy(self.model), self.step

    def save(self, path: Path) -> None:
        """Keep all that the steps to come depend on; to a temporary name, then renamed."""
        temporary = path.with_name(f"{path.name}.new")  # PyTorch takes no name that begins with a dot
        torch.save(
            {
                "step": self.step,
                "model": self.model.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "kept": self.kept,
                "history": asdict(self.history),
            },
            temporary,
        )
        temporary.rename(path)

    def take_up(self, path: Path) -> None:
        """Go on from what ``save`` kept; raises ``InputError`` where that is of another network, or damaged."""
        try:
            found = torch.load(path, weights_only=True)
            self.model.load_state_dict(found["model"])
            self.optimiser.load_state_dict(found["optimiser"])
            self.step, self.kept, self.history = found["step"], found["kept"], History(**found["history"])
        except (OSError, RuntimeError, LookupError, TypeError, ValueError, EOFError, UnpicklingError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{path}: training cannot go on from it ({reason}); remove it to begin anew") from None


def evaluate(model: Composed, plan: Plan, cases: Sequence[Case], embeddings: Cached | None = None) -> list[Score]:
    """The score of each image, which all have masks."""
    return [score(segment(model, plan, case, embeddings), case.truth) for case in cases]


def _copy(model: Composed) -> Weights:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}

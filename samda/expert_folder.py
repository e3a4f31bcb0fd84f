"""Where an expert is kept while it comes to be, and afterwards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from cluster.cli_options import ERR, OUT, tell_written
from cluster.output import check_output, write_json
from node.errors import InputError
from samda.checkpoint import Expert, save_expert
from samda.encoder import Cached
from samda.progress import steps_bar
from samda.recipe import History, Images, Recipe
from samda.training import train

SETTINGS, STATE = "settings.json", "training"


class Learning:
    """An expert's folder while it comes to be, ``NAME.partial``; the same command once more goes on in it.

    Raises ``InputError`` where the expert is there already, or what was begun is of other settings.
    """

    def __init__(self, output: Path, settings: Mapping[str, str]) -> None:
        check_output(str(output))
        self.output = output
        self.partial = output.with_name(f"{output.name}.partial")
        self.settings = given = dict(settings)
        try:
            self.partial.mkdir(parents=True, exist_ok=True)
            before = json.loads((self.partial / SETTINGS).read_text())
        except FileNotFoundError:
            write_json(self.partial / SETTINGS, given)
            return
        except (OSError, ValueError) as error:
            raise InputError(f"{self.partial}: cannot be used: {error}; remove it, or name another --output") from None
        for key in dict.fromkeys((*before, *given)):
            if before.get(key) != given.get(key):
                raise InputError(
                    f"{self.partial}: was begun with another {key} ({before.get(key)}, not {given.get(key)}): "
                    "remove it, or name another --output"
                )

    def train(self, name: str, expert: Expert, images: Images, recipe: Recipe, embeddings: Cached | None) -> History:
        """Train, with a bar of progress, and keep what training goes on from."""
        with steps_bar(recipe.steps) as told:
            try:
                return train(
                    expert.model, expert.plan, images, recipe, embeddings, self.partial / f"{name}.{STATE}",
                    lambda step, text: told(name, step, text),
                )  # fmt: skip
            except KeyboardInterrupt:
                ERR.print(f"what was learned is in {self.partial}; the same command goes on from there")
                raise

    def finish(self, expert: Expert, images: Images, history: History) -> None:
        """Write the expert, and give its folder its name."""
        checks = ", ".join(f"{dice:.3f} after {step}" for step, dice in history.checks)
        if checks:
            OUT.print(f"Dice on validation images, by steps: {checks}; kept: {history.chosen}", highlight=False)
        learned = {**self.settings, "images": len(images.train), "chosen_step": history.chosen}
        expert.trained = {**learned, "before": expert.trained} if expert.trained else learned
        save_expert(self.partial, expert)
        write_json(self.partial / "history.json", asdict(history))
        for path in (self.partial / SETTINGS, *self.partial.glob(f"*.{STATE}*")):
            path.unlink()
        try:
            self.partial.rename(self.output)
        except OSError as error:
            raise InputError(f"--output {str(self.output)!r}: cannot be made: {error.strerror}; the expert is in "
                             f"{self.partial}") from None  # fmt: skip
        tell_written(self.output)

"""Runs an experiment: for each seed the source's experts, then every arm with every number of shots."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial

from samda.checkpoint import Expert, load_expert, save_expert
from samda.composition import Composition, EncoderFacts, composed
from samda.encoder import Cached
from samda.experiment.folder import ExperimentFolder, Name, Result
from samda.experiment.settings import ARMS, Settings
from samda.experiment.split import Split, drawn_shots
from samda.fingerprint import fingerprint
from samda.inference import segment
from samda.learning import adapted, standardise
from samda.memory import forget_peak, peak_bytes
from samda.plan import WIDTHS, make_plan
from samda.recipe import History, Images, Recipe
from samda.scores import Score, mean_score, score
from samda.training import evaluate, train
from samda.written import write_mask

Told = Callable[[str, int, str], None]  # what is at work, steps done of it, what to say


@dataclass(frozen=True)
class Experiment:
    """``encoders``: those that the arms need, "random" and "generic"."""

    settings: Settings
    source: Split
    target: Split
    encoders: Mapping[str, Cached]
    folder: ExperimentFolder
    told: Told

    def run(self) -> dict[Name, Result]:
        """All results, of which those in the folder are not made again."""
        settings = self.settings
        sources = ("plain", *(arm for arm in settings.arms if arm.endswith("-concat")))
        found = {}
        for seed in range(settings.seeds):
            for arm in sources:
                name = Name(seed, 0, arm)
                found[name] = self._kept(name, self._not_adapted, settings.source_steps)
            for shots in settings.shots:
                for arm in settings.arms:
                    name = Name(seed, shots, arm)
                    found[name] = self._kept(name, self._adapted, settings.steps(shots))
        return found

    def _kept(self, name: Name, make: Callable[[Name], Result], steps: int) -> Result:
        found = self.folder.result(name)
        if found is None:
            found = make(name)
            self.folder.add(name, found)
        self.told(str(name), steps, "")
        return found

    def embeddings(self, arm: str) -> Cached | None:
        """What an arm sees beside the image."""
        joined = ARMS[arm]
        return None if joined is None else self.encoders[joined[0]]

    def _not_adapted(self, name: Name) -> Result:
        """The expert of the source, as it is on the target."""
        forget_peak()
        begun = time.monotonic()
        expert, history = self._source_expert(name)
        seconds = time.monotonic() - begun
        return {**self._judged(name, expert), **_effort(history, seconds), "shots_used": []}

    def _source_expert(self, name: Name) -> tuple[Expert, History]:
        """Trained on the source, and kept: every adaptation of the seed begins with it."""
        settings, embeddings = self.settings, self.embeddings(name.arm)
        plan = make_plan(fingerprint(self.source.train), WIDTHS[settings.width], settings.scheme)
        composition = Composition()
        if embeddings is not None:
            composition = Composition("concat", EncoderFacts.of(embeddings.encoder))
        model = composed(plan.unet, composition, name.seed)
        expert = Expert(plan, composition, model, {"seed": name.seed, "source": str(settings.source)})
        standardise(model, self.source.train, embeddings)
        recipe = Recipe(settings.source_steps, name.seed, settings.source_rate, checks=settings.checks)
        history = self._train(name, expert, Images(self.source.train, self.source.validation), recipe)
        path = self.folder.source(name.seed, name.arm)
        path.mkdir(exist_ok=True)
        save_expert(path, expert)
        return expert, history

    def _adapted(self, name: Name) -> Result:
        forget_peak()
        begun = time.monotonic()
        settings, embeddings = self.settings, self.embeddings(name.arm)
        shots = drawn_shots(self.target.train, name.shots, name.seed)
        begin = self.folder.source(name.seed, name.arm if name.arm.endswith("-concat") else "plain")
        expert = adapted(load_expert(begin), shots, embeddings, name.seed)
        steps = settings.steps(name.shots)
        recipe = Recipe(steps, name.seed, settings.adapt_rate, checks=settings.checks, from_start=True)
        history = self._train(name, expert, Images(shots, self.target.validation), recipe)
        seconds = time.monotonic() - begun
        return {**self._judged(name, expert), **_effort(history, seconds), "shots_used": [shot.name for shot in shots]}

    def _train(self, name: Name, expert: Expert, images: Images, recipe: Recipe) -> History:
        state = self.folder.state(str(name))
        told = partial(self.told, str(name))
        embeddings = self.embeddings(name.arm)
        history = train(expert.model, expert.plan, images, recipe, embeddings, state, told)
        state.unlink(missing_ok=True)
        return history

    def _judged(self, name: Name, expert: Expert) -> Result:
        """On the target's test images, whose segmentations are written, and on the source's."""
        embeddings = self.embeddings(name.arm) if expert.composition.kind != "plain" else None
        folder = self.folder.masks(name)
        folder.mkdir(exist_ok=True)
        scores = []
        for case in self.target.test:
            mask = segment(expert.model, expert.plan, case, embeddings)
            write_mask(folder / f"{case.name}.png", mask)
            scores.append(score(mask, case.truth))
        on_source = evaluate(expert.model, expert.plan, self.source.test, embeddings)
        return {
            **asdict(name),
            "target": _score(scores),
            "target_images": {case.name: one.dice for case, one in zip(self.target.test, scores, strict=True)},
            "source": _score(on_source),
        }


def _score(scores: list[Score]) -> dict[str, float]:
    return asdict(mean_score(scores))


def _effort(history: History, seconds: float) -> Result:
    """What it took, and what was chosen on validation images; memory with the judging in it."""
    return {
        "steps": len(history.losses),
        "chosen_step": history.chosen,
        "validation": history.checks,
        "last_loss": sum(history.losses[-20:]) / len(history.losses[-20:]),
        "train_seconds": round(seconds, 2),
        "peak_bytes": peak_bytes(),
    }

"""What an experiment is: all that its results depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from node.errors import InputError
from samda.experiment.split import Split
from samda.recipe import ADAPT_RATE, FIRST_STEPS, SOURCE_RATE, SOURCE_STEPS, STEPS_EACH, adaptation_steps

ARMS = {  # name -> which encoder, how it joins; None: a U-Net alone
    "plain": None,
    "random": ("random", "adapter"),
    "random-concat": ("random", "concat"),
    "generic-adapter": ("generic", "adapter"),
    "generic-concat": ("generic", "concat"),
}


@dataclass(frozen=True)
class Settings:
    """``adapt_steps``: steps of an adaptation without any shot, and how many each shot adds."""

    source: Path
    target: Path
    shots: tuple[int, ...]
    seeds: int
    arms: tuple[str, ...]
    encoder: str
    width: str = "small"
    scheme: str = "foreground"
    source_steps: int = SOURCE_STEPS
    source_rate: float = SOURCE_RATE
    adapt_steps: tuple[int, int] = (FIRST_STEPS, STEPS_EACH)
    adapt_rate: float = ADAPT_RATE
    checks: int = 5
    threads: int = 2

    def steps(self, shots: int) -> int:
        """Of an adaptation: more images, more steps."""
        return adaptation_steps(shots, *self.adapt_steps)

    def total_steps(self) -> int:
        """Of all trainings."""
        adapted = sum(self.steps(shots) for shots in self.shots)
        sources = 1 + sum(arm.endswith("-concat") for arm in self.arms)
        return self.seeds * (sources * self.source_steps + len(self.arms) * adapted)


def check(settings: Settings, target: Split) -> None:
    """``InputError`` where there is no such arm, or shots are more than there are."""
    for arm in settings.arms:
        if arm not in ARMS:
            raise InputError(f"--arms {arm!r}: must be of {', '.join(ARMS)}")
    for name, found in (("arms", settings.arms), ("shots", settings.shots)):
        if len(set(found)) != len(found) or not found:
            raise InputError(f"--{name} {','.join(map(str, found))!r}: must be one or more, each once")
    for shots in settings.shots:
        if not 1 <= shots <= len(target.train):
            raise InputError(
                f"--shots {shots}: must be 1 to {len(target.train)}, half of the images of {settings.target}"
            )


def record(settings: Settings, source: Split, target: Split, encoders: Mapping[str, str]) -> dict[str, object]:
    """All that results depend on, to be compared when an experiment goes on; ``encoders``: name -> hash."""
    given = asdict(settings)
    return {
        **{key: str(value) if isinstance(value, Path) else value for key, value in given.items()},
        "source_split": source.names(),
        "target_split": target.names(),
        "images": _hash(source, target),
        "encoders": dict(encoders),
        "torch": torch.__version__,
    }


def _hash(*splits: Split) -> str:
    found = hashlib.sha256()
    for one in splits:
        for case in (*one.train, *one.validation, *one.test):
            found.update(case.hash.encode() + case.truth.tobytes())
    return found.hexdigest()

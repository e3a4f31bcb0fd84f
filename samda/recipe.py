"""How a network is trained, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from samda.composition import PARTS
from samda.images import Case

SOURCE_STEPS, SOURCE_RATE = 400, 3e-3
FIRST_STEPS, STEPS_EACH, ADAPT_RATE = 60, 12, 3e-3


@dataclass(frozen=True)
class Recipe:
    """``checks``: how often validation is asked, the last time at the end; ``parts``: what is trained (``PARTS``).

    ``from_start``: the weights to begin with are among those chosen from, as in an adaptation.
    """

    steps: int
    seed: int
    rate: float = 1e-3
    weight_decay: float = 1e-2
    checks: int = 5
    parts: Sequence[str] = PARTS
    from_start: bool = False

    def checked(self, step: int) -> bool:
        """Whether validation is asked after so many steps."""
        if step == 0:
            return self.from_start
        return step * self.checks // self.steps > (step - 1) * self.checks // self.steps


@dataclass(frozen=True)
class Images:
    """``train``: with masks; ``validation``: with masks, for the choice of weights alone; may be none."""

    train: Sequence[Case]
    validation: Sequence[Case] = ()


@dataclass
class History:
    """``losses``: of each step; ``checks``: (step, mean Dice on validation); ``chosen``: the step that is kept."""

    losses: list[float] = field(default_factory=list)
    checks: list[tuple[int, float]] = field(default_factory=list)
    chosen: int = 0

    @property
    def best(self) -> float:
        """The best Dice on validation so far."""
        return max((dice for _, dice in self.checks), default=-1.0)

    def said(self) -> str:
        """What a bar of progress says of it."""
        recent = self.losses[-20:]
        loss = f"loss {sum(recent) / len(recent):.3f}" if recent else ""
        return f"{loss}  validation Dice {self.checks[-1][1]:.3f}" if self.checks else loss


def adaptation_steps(shots: int, first: int = FIRST_STEPS, each: int = STEPS_EACH) -> int:
    """Steps of an adaptation: more images, more steps."""
    return first + each * shots

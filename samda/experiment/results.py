"""What an experiment found: means and deviations over seeds, and differences of the same seed, source and shots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev

from samda.experiment.folder import Name, Result
from samda.experiment.settings import Settings

METRICS = ("dice", "iou")


@dataclass(frozen=True)
class Spread:
    """Over seeds: ``values`` in their order; ``deviation``: that of a sample, None of a single seed."""

    mean: float
    deviation: float | None
    values: Sequence[float]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of one value a seed."""
        return cls(fmean(values), stdev(values) if len(values) > 1 else None, list(values))


@dataclass(frozen=True)
class Row:
    """An arm after so many shots. ``forgotten``: Dice on the source's test images before adapting, less that after."""

    arm: str
    shots: int
    dice: Spread
    iou: Spread
    source_dice: Spread
    forgotten: Spread
    seconds: Spread
    peak_bytes: int


@dataclass(frozen=True)
class Pair:
    """An arm less another of the same seed and shots (``than``; "no adaptation": the source's expert, 0 shots)."""

    arm: str
    than: str
    shots: int
    dice: Spread
    iou: Spread


NOT_ADAPTED = "no adaptation"


def rows(settings: Settings, found: Mapping[Name, Result]) -> list[Row]:
    """Of every arm and number of shots, first those that are not adapted."""
    arms = sorted({(name.shots, name.arm) for name in found}, key=lambda one: (one[0], _order(settings, one[1])))
    return [_row(arm, shots, settings.seeds, found) for shots, arm in arms]


def pairs(settings: Settings, found: Mapping[Name, Result]) -> list[Pair]:
    """Every arm against no adaptation and against plain, and each generic one against the random one in its place."""
    asked = []
    for shots in settings.shots:
        for arm in settings.arms:
            control = {"generic-adapter": "random", "generic-concat": "random-concat"}.get(arm)
            others = [other for other in ("plain", control) if other in settings.arms and other != arm]
            asked += [(shots, arm, NOT_ADAPTED), *((shots, arm, str(other)) for other in others)]
    return [_pair(arm, than, shots, settings.seeds, found) for shots, arm, than in asked]


def as_json(record: Mapping[str, object], settings: Settings, found: Mapping[Name, Result]) -> dict[str, object]:
    """All of it."""
    return {
        "experiment": dict(record),
        "rows": [asdict(row) for row in rows(settings, found)],
        "pairs": [asdict(pair) for pair in pairs(settings, found)],
        "results": [dict(result) for result in found.values()],
    }


def _order(settings: Settings, arm: str) -> int:
    return settings.arms.index(arm) if arm in settings.arms else -1


def _source_of(arm: str) -> str:
    """Whose training on the source an arm begins with."""
    return arm if arm.endswith("-concat") else "plain"


def _row(arm: str, shots: int, seeds: int, found: Mapping[Name, Result]) -> Row:
    every = [found[Name(seed, shots, arm)] for seed in range(seeds)]
    before = [found[Name(seed, 0, _source_of(arm))]["source"]["dice"] for seed in range(seeds)]
    after = [one["source"]["dice"] for one in every]
    dice, iou = (Spread.of([one["target"][metric] for one in every]) for metric in METRICS)
    return Row(
        arm,
        shots,
        dice,
        iou,
        Spread.of(after),
        Spread.of([one - other for one, other in zip(before, after, strict=True)]),
        Spread.of([one["train_seconds"] for one in every]),
        max(one["peak_bytes"] for one in every),
    )


def _pair(arm: str, than: str, shots: int, seeds: int, found: Mapping[Name, Result]) -> Pair:
    def differences(metric: str) -> Spread:
        values = []
        for seed in range(seeds):
            other = Name(seed, 0, _source_of(arm)) if than == NOT_ADAPTED else Name(seed, shots, than)
            values.append(found[Name(seed, shots, arm)]["target"][metric] - found[other]["target"][metric])
        return Spread.of(values)

    return Pair(arm, than, shots, differences("dice"), differences("iou"))

"""What arms saw, to look at."""

from __future__ import annotations

from pathlib import Path

from samda.experiment.folder import ExperimentFolder, Name
from samda.experiment.results import NOT_ADAPTED
from samda.experiment.settings import Settings
from samda.experiment.split import Split
from samda.images import read_mask
from samda.sheet import Row, write_sheet

MOST_ROWS = 6
SHEET = "overlays.png"


def write_overlays(path: Path, settings: Settings, target: Split, folder: ExperimentFolder) -> None:
    """A sheet of the target's test images, each as every arm segments it after most shots, of the first seed."""
    shots = max(settings.shots)
    columns = {NOT_ADAPTED: Name(0, 0, "plain")} | {arm: Name(0, shots, arm) for arm in settings.arms}
    rows = []
    for case in target.test[:MOST_ROWS]:
        found = {head: read_mask(folder.masks(name) / f"{case.name}.png") for head, name in columns.items()}
        rows.append(Row(case.name, case.pixels, case.truth, found))
    title = f"{settings.source.name} to {settings.target.name}, {shots} shots, seed 0; generic: {settings.encoder}"
    write_sheet(path, title, rows)

"""A bar of training steps, with the time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cluster.cli_options import ERR

ESTIMATED_OVER_S = 600


@contextmanager
def steps_bar(total: int) -> Iterator[Callable[[str, int, str], None]]:
    """What tells a bar which training is at work, how many of its steps are done, and what to say beside it.

    Nothing where standard error is no terminal. Trainings are told of one after the other.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}", markup=False),
        TextColumn("elapsed"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=ERR, disable=not ERR.is_terminal, speed_estimate_period=ESTIMATED_OVER_S)
    done: dict[str, int] = {}
    with bar:
        task = bar.add_task("", total=total, state="")

        def told(what: str, steps: int, text: str) -> None:
            done[what] = steps
            bar.update(task, description=what, completed=sum(done.values()), state=text)

        yield told

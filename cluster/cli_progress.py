"""Bars of progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from cluster.cli_options import ERR
from cluster.nodes.node import State
from cluster.runner import Watch
from node.units import PS_PER_S, show_seconds

ESTIMATED_OVER_S = 3600  # of how much of its past a bar makes the time left


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on the terminal's standard error; nothing where that is no terminal."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=ERR, disable=not ERR.is_terminal) as progress:
        yield progress


def watcher(progress: Progress, label: str, requests: int) -> Watch:
    """What moves a bar of ``progress`` as a run goes on."""
    task: TaskID = progress.add_task(label, total=requests, state="")

    def watch(state: State) -> None:
        served = state.hits + state.misses
        rate = f"hit rate {state.hits / served:.1%}" if served else ""
        text = f"virtual time {show_seconds(state.now / PS_PER_S)}  {rate}"
        progress.update(task, completed=state.completed, state=text)

    return watch


@contextmanager
def points_bar(what: str, total: int, completed: int = 0) -> Iterator[Callable[[], None]]:
    """A bar of runs, with the time left, and what moves it by one; nothing where standard error is no terminal."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("elapsed"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=ERR, disable=not ERR.is_terminal, speed_estimate_period=ESTIMATED_OVER_S)
    with bar:
        task = bar.add_task(what, total=total, completed=completed)
        yield lambda: bar.advance(task)


@contextmanager
def search_bar() -> Iterator[Callable[[str, int], None]]:
    """What is being run, and how many runs have begun; nothing where standard error is no terminal."""
    columns = (
        TextColumn("{task.completed} tries"),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=ERR, disable=not ERR.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def told(what: str, nodes: int) -> None:
            bar.update(task, advance=1, description=f"{nodes} nodes, {what}")

        yield told

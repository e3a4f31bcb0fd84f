"""Options of a run that can be put aside, and that goes on from where one was."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click

from cluster.cli_options import ERR, options_together
from cluster.output import Written, check_output, shown
from cluster.resuming.checkpoints import Checkpoints
from cluster.resuming.partial_run import SUFFIX, Begun, read_checkpoint
from cluster.resuming.stopping import told_to_stop
from node.errors import InputError

resume_options = options_together(
    click.option("--checkpoint", "every_s", type=click.FloatRange(0, min_open=True), metavar="SECONDS",
                 help="Write a checkpoint every so often (wall time); a run that is told to stop writes one anyway."),
    click.option("--resume", metavar=f"NAME{SUFFIX}", help="Go on from a checkpoint of yours: a pickle, so it is run."),
)  # fmt: skip


def partial_of(output: str | None) -> Path | None:
    """The folder of checkpoints beside ``--output``; ``InputError`` where there are some already."""
    check_output(output)
    if output is None:
        return None
    path = Path(output)
    found = path.with_name(f"{path.name}{SUFFIX}")
    if os.path.lexists(found):
        raise InputError(
            f"--output {output!r}: there is {found}, of a run that is not over; go on with it (--resume {found}), or "
            "remove it"
        )
    return found


def resumed(folder: str, asked: Written, metered: int | None) -> Begun:
    """The run of a checkpoint, written as it was to be but for what is ``asked``; ``InputError`` where it cannot be."""
    begun, path = read_checkpoint(Path(folder)), Path(folder)
    if asked.events is not None:
        raise InputError("--timeline: a run that goes on has the timeline that it began with; leave it out")
    output = asked.output
    if output is None and begun.written.output is not None:
        if path.suffix != SUFFIX:
            raise InputError(f"--resume {folder!r}: is not called NAME{SUFFIX}; say with --output where results go")
        output = str(path.with_suffix(""))
    check_output(output)
    if metered is not None and metered != begun.metered:
        was = "none" if begun.metered is None else f"those of {begun.metered} experts"
        raise InputError(f"--metrics-port: a run that goes on has the metrics that it began with: {was}")
    requests_format = asked.requests_format or begun.written.requests_format
    return replace(begun, written=replace(begun.written, output=output, requests_format=requests_format))


def only_how_it_runs(key: str) -> bool:
    """Of the keys those that a run which goes on may be given; ``InputError`` for any other."""
    if not key.startswith("cluster."):
        raise InputError(f"{key}: a run that goes on does so as it began; allowed beside --resume: keys of [cluster]")
    return True


@contextlib.contextmanager
def checkpoints(begun: Begun, folder: Path | None, every_s: float | None) -> Iterator[Checkpoints]:
    """Those of a run that is told to stop by signals, within the block."""
    with told_to_stop() as stop:
        yield Checkpoints(begun, folder, every_s, stop, lambda text: ERR.print(f"note: {text}", soft_wrap=True), shown)

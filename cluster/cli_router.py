"""``coe router``: how often prompts reach the expert that they are for."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cluster import show
from cluster.cli_options import OUT
from cluster.routing.encoders import ENCODERS
from cluster.routing.prompts import OWN, load_prompts
from cluster.routing.report import Report, Row, as_json
from cluster.routing.report import report as measure
from cluster.routing.router import BOUND

MEASURED = {"held_out": "prompts held out", "leave_one_out": "prompts, each by a router fitted without it"}


@click.command()
@click.option(
    "--prompts", "file", type=click.Path(path_type=Path), default=OWN, help="A TOML file.  [default: the project's]"
)
@click.option("--encoder", type=click.Choice(list(ENCODERS)), default="ngrams", show_default=True)
@click.option("--bound", type=click.FloatRange(0, 1), default=BOUND, show_default=True,
              help="Confidence below which the general expert answers.")  # fmt: skip
@click.option("--json", "as_text", is_flag=True, help="Print JSON.")
def router(file: Path, encoder: str, bound: float, as_text: bool) -> None:
    """Fit a router to labelled prompts and say how often it is right.

    A file of prompts has general = "NAME" and a table [experts.NAME] each, with train = [...] and held_out = [...];
    where nothing is held out, every prompt is judged by a router that was fitted without it.
    """
    found = measure(load_prompts(file), encoder, bound)
    if as_text:
        click.echo(json.dumps(as_json(found), indent=2))
        return
    title = f"Router by {encoder}, fitted to {found.examples} prompts, bound {found.bound:g}"
    columns = ("expert", MEASURED[found.measured_on], "accuracy", "95 % interval", "to general", "most confused with")
    rows = [_line(row, found) for row in (*found.rows, found.overall)]
    show.print_table(OUT, title, columns, rows, left=(0, 5))


def _line(row: Row, found: Report) -> tuple[str, ...]:
    name = f"{row.expert} (general)" if row.expert == found.general and row is not found.overall else row.expert
    measured = ["-"] * 3
    if row.prompts:
        interval = " - ".join(f"{end:.1%}" for end in row.interval)
        measured = [f"{row.accuracy:.1%}", interval, f"{row.to_general / row.prompts:.1%}"]
    confused = f"{row.most_confused} ({row.confused})" if row.most_confused else "-"
    return (name, str(row.prompts), *measured, confused)

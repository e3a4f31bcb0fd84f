"""``coe sensitivity``: which of the numbers that nobody published matters."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cluster.cli_options import OUT, backend_options, config_of, config_options, workload_options
from cluster.cli_progress import points_bar
from cluster.deploy import machine_of
from cluster.output import check_file, write_text
from cluster.sensitivity import as_json, effects, picture, varied_of
from cluster.show_sensitivity import sensitivity_table
from cluster.sweep.tasks import solver
from node.errors import InputError
from node.spec import KINDS


@click.command()
@config_options
@workload_options
@backend_options
@click.option("--machine", help="A built-in machine or a .toml file.")
@click.option("--result", default="e2e_s.p50", show_default=True, help="The figure of the summary that is looked at.")
@click.option("--kinds", default="assumed,derived", show_default=True, help="Kinds of inputs to vary, with commas.")
@click.option("--factor", type=click.FloatRange(min=1, min_open=True), default=2.0, show_default=True,
              help="The range of an input that states none: the value over this to the value times this.")  # fmt: skip
@click.option("--workers", type=click.IntRange(1), help="Runs at once.  [default: the CPUs of the Ray cluster]")
@click.option("--json", "printed", is_flag=True, help="Print JSON.")
@click.option("--svg", "drawn", type=click.Path(path_type=Path), help="Draw to this file.")
def sensitivity(  # noqa: PLR0913 - one argument an option
    *,
    config_file: Path | None,
    settings: tuple[str, ...],
    result: str,
    kinds: str,
    factor: float,
    workers: int | None,
    printed: bool,
    drawn: Path | None,
    **options: object,
) -> None:
    """Set each number of a machine that nobody published to both ends of its range; rank them by effect on a result.

    A number's range is what its spec states, or a factor around its value. Numbers with a stated range are varied
    whatever their kind.
    """
    config = config_of(config_file, settings, options, lambda key: not key.startswith("footprint."))
    asked = [kind.strip() for kind in kinds.split(",") if kind.strip()]
    if not asked or set(asked) - set(KINDS):
        raise InputError(f"--kinds {kinds!r}: must be of {', '.join(KINDS)}, with commas")
    if drawn is not None:
        check_file(drawn)
    with config.naming_origins():
        machine = machine_of(config)
    varied, without = varied_of(machine, asked, factor)
    solve = solver(config.cluster, workers)
    with points_bar("runs", 1 + 2 * len(varied)) as advance:
        found = effects(config, varied, result, solve, advance)
    if drawn is not None:
        write_text(drawn, picture(result, found))
    if printed:
        click.echo(json.dumps(as_json(result, factor, found, without), indent=2))
    else:
        sensitivity_table(OUT, machine, result, factor, found, without)

"""``coe sweep``: many runs over a grid of settings, in parallel, that a kill does not lose."""

from __future__ import annotations

from collections.abc import Container, Sequence
from contextlib import suppress
from pathlib import Path

import click

from cluster.cli_options import ERR, OUT, tell_written
from cluster.cli_progress import points_bar
from cluster.config import Config
from cluster.output import RUNS, write_json, write_text
from cluster.show_sweep import sweep_table
from cluster.sweep.definition import configs, read_sweep, record
from cluster.sweep.folder import SweepFolder, sweep_folder
from cluster.sweep.front import LATENCIES
from cluster.sweep.results import Results, as_csv, as_json, picture
from cluster.sweep.tasks import Found, Solver, cannot_run, solver
from node.errors import InputError
from node.spec import Machine
from node.spec_file import load_machine


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Folder of the sweep; one that is there goes on.  [default: runs/ and the file's name]",
)
@click.option("--latency", type=click.Choice(LATENCIES), default="e2e_s.p99", show_default=True, metavar="FIGURE",
              help=f"What cost is held against: {', '.join(LATENCIES)}.")  # fmt: skip
@click.option("--workers", type=click.IntRange(1), help="Points at once.  [default: the CPUs of the Ray cluster]")
@click.option("--backend", help="ray, or local: one point after another in this process.")
@click.option("--address", help="Ray cluster to use; without it one is started on this machine.")
def sweep(
    file: Path, output: Path | None, latency: str, workers: int | None, backend: str | None, address: str | None
) -> None:
    """Run every combination of the table [grid] of a config file.

    Writes points.csv, sweep.json and front.svg. A sweep that was ended goes on where it was, if given once more.
    """
    asked = read_sweep(file).with_options({"cluster.backend": backend, "cluster.address": address})
    points = asked.points()
    found = configs(asked, points)
    valid = [config for config in found if isinstance(config, Config)]
    solve = solver(valid[0].cluster, workers)
    machines = _machines(valid, asked.grid)
    path = output or RUNS / file.stem
    with sweep_folder(path, record(asked, found), str(file)) as folder:
        done = _complete(folder, found, solve)
        results = Results(points, [done[number] for number in range(len(points))], latency, machines)
        write_text(path / "points.csv", as_csv(results))
        write_json(path / "sweep.json", as_json(results))
        write_text(path / "front.svg", picture(results))
    sweep_table(OUT, results)
    tell_written(path)


def _complete(folder: SweepFolder, found: Sequence[Config | InputError], solve: Solver) -> dict[int, Found]:
    """Run what the folder lacks; each result is kept as soon as it is there."""
    invalid = {number: cannot_run(one) for number, one in enumerate(found) if isinstance(one, InputError)}
    done = {**folder.done(), **invalid}
    missing = [(number, one) for number, one in enumerate(found) if number not in done and isinstance(one, Config)]
    if not missing:
        return done
    with points_bar("points", len(found), len(done)) as advance:
        try:
            for number, result in solve(missing):
                folder.add(number, result)
                done[number] = result
                advance()
        except KeyboardInterrupt:
            ERR.print(f"{len(done)} of {len(found)} points are in {folder.path}; the same command goes on from there")
            raise
    return done


def _machines(valid: Sequence[Config], grid: Container[str]) -> list[Machine]:
    """The machines of a sweep, without the numbers of them that the grid varies."""
    found: dict[str, Machine] = {}
    for config in valid:
        numbers = {path: value for path, value in config.machine.numbers.items() if f"machine.{path}" not in grid}
        with suppress(InputError):  # one that there is not: its points cannot run
            found.setdefault(config.machine.name, load_machine(config.machine.name, numbers))
    return list(found.values())

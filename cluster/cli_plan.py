"""``coe plan``: the fewest nodes, or the cheapest, that keep a promise at a rate of requests."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import click

from cluster.cli_options import ERR, OUT, backend_options, config_options, machine_list, named, tell_written
from cluster.cli_progress import search_bar
from cluster.config_file import config_of_values, parse_setting, values_of
from cluster.deploy import MOST_NODES
from cluster.output import check_output, result_folder, write_json, write_text
from cluster.plan.asked import Asked, promises, used
from cluster.plan.candidates import check_choices, default_points, points_of_all
from cluster.plan.interval import LEAST_RUNS, MOST_RUNS
from cluster.plan.problem import problem_of
from cluster.plan.report import Report, as_json, picture
from cluster.plan.search import Search
from cluster.ray_backend import ray_session
from cluster.show_plan import plan_table
from cluster.sweep.definition import Point, grid_of
from cluster.sweep.tasks import solver
from node.errors import InputError
from node.spec_file import read_toml

NO_PLAN, INTERRUPTED = 1, 130  # exit codes
Values = dict[str, tuple[object, str]]


@click.command()
@config_options
@backend_options
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Requests/s; a trace is scaled to it.")
@click.option("--slo", help="What is promised: ttft=TIME, e2e=TIME or both with a comma; by class: [slo] in --config.")
@click.option("--attainment", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.99,
              show_default=True, help="Share of requests, of each class, to which promises are kept.")  # fmt: skip
@click.option("--experts", type=int, help="Number of experts.")
@click.option("--machines", help="Machines or .toml files to choose from, with commas.  [default: sn40l-node]")
@click.option("--trace", help="A request trace: Azure or BurstGPT CSV, Mooncake or own JSONL.")
@click.option("--requests", type=click.IntRange(1), help="Requests of a run.  [default: 10 minutes of them or more]")
@click.option("--seeds", type=click.IntRange(LEAST_RUNS, MOST_RUNS), default=5, show_default=True,
              help="Runs of each number of nodes, each from a seed of its own.")  # fmt: skip
@click.option("--seed", type=int, help="The first of the seeds.")
@click.option("--most-nodes", type=click.IntRange(1, MOST_NODES), default=64, show_default=True,
              help="Plans have no more nodes.")  # fmt: skip
@click.option("--workers", type=click.IntRange(1), help="Runs at once.  [default: the CPUs of the Ray cluster]")
@click.option("--output", help="Folder for the results; it must not exist.  [default: a new one under runs/]")
def plan(  # noqa: PLR0913 - one argument an option
    *,
    config_file: Path | None,
    settings: tuple[str, ...],
    rate: float | None,
    slo: str | None,
    attainment: float,
    machines: str | None,
    requests: int | None,
    seeds: int,
    most_nodes: int,
    workers: int | None,
    output: str | None,
    **options: object,
) -> None:
    """Find the fewest nodes, or the cheapest, that keep a promise at a rate of requests.

    Candidates are ways to shard, evict and route: a default set, or all combinations of the lists in the table
    [candidates], or in each of the tables [[candidates]], of the config file. Each number of nodes is run from several
    seeds; it does if the interval of the share of requests to which the promise is kept is above --attainment. Writes
    plan.json and plan.svg. Exit code 1 where nothing does.
    """
    asked = Asked(attainment, seeds, most_nodes)
    check_output(output)
    tree = {} if config_file is None else read_toml(config_file)
    given = tree.pop("candidates", None)
    values = values_of(tree, str(config_file), [parse_setting(text) for text in settings], named(options))
    if slo is not None:
        values |= promises(slo)
    points, origins = _points(values, config_file, given, machines)
    problem = problem_of(asked, values, points, origins, rate, requests)
    cluster, complete = problem.config.cluster, True
    solve = solver(cluster, workers)
    with search_bar() as told:
        search = Search(problem, solve, told)
        try:
            with ray_session(cluster.address) if cluster.backend == "ray" else nullcontext():  # one for all runs
                search.run()
        except KeyboardInterrupt:
            complete = False
    report = Report(problem, search.rows, search.best, complete)
    with result_folder(output, "plan") as folder:
        write_json(folder.temporary / "plan.json", as_json(report))
        write_text(folder.temporary / "plan.svg", picture(report))
    plan_table(OUT, report)
    tell_written(folder.final)
    if not complete:
        ERR.print("coe: ended before the search was over: what is written is as far as it came")
        sys.exit(INTERRUPTED)
    if report.best is None:
        ERR.print(f"coe: no candidate does with up to {most_nodes} nodes", highlight=False)
        sys.exit(NO_PLAN)


def _points(
    values: Values, config_file: Path | None, given: object, machines: str | None
) -> tuple[list[Point], dict[str, str]]:
    """The candidates, and where their keys were set; a machine that is the only one is a key of ``values``."""
    grids: list[dict[str, Sequence[object]]] = []
    if config_file is not None and given is not None:
        tables = given if isinstance(given, list) and given else [given]
        grids = [grid_of(config_file, "candidates", table, values) for table in tables]
    keys = dict.fromkeys(key for grid in grids for key in grid)
    check_choices(keys, str(config_file))
    origins = dict.fromkeys(keys, str(config_file))
    chosen = [] if machines is None else machine_list(machines)
    if chosen and "machine.name" in (*keys, *values):
        raise InputError("machine.name: is set, and --machines given; remove one of the two")
    if len(chosen) == 1:
        values["machine.name"] = (chosen[0], "--machines")
    if not grids:
        origins["machine.name"] = "--machines"
        return default_points(values, chosen or [config_of_values(values, used).machine.name]), origins
    if len(chosen) > 1:
        grids, origins["machine.name"] = [{"machine.name": chosen, **grid} for grid in grids], "--machines"
    return points_of_all(grids), origins

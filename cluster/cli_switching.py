"""``coe switching``: what it costs to switch experts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click

from cluster.cli_options import COMPARED, OUT, config_of, config_options, machine_list, machine_number, workload_options
from cluster.cli_progress import progress_bar, watcher
from cluster.compare import variants
from cluster.config import ClusterConfig, Config
from cluster.output import check_file, write_text
from cluster.show_switching import switching_table
from cluster.switching.activation import Named, activation, models_of, over_bandwidth, share
from cluster.switching.measure import Switching, measure
from cluster.switching.report import Report, as_json, picture
from node.errors import InputError, OutOfMemoryError
from node.estimate import Call
from node.models.shape import model_names


@click.command()
@config_options
@workload_options
@click.option("--machines", default=COMPARED, show_default=True, help="Machines or .toml files, with commas.")
@click.option("--models", help="Models whose activation is told, with commas.  [default: all built-in]")
@click.option("--input", "input_tokens", type=click.IntRange(1), default=128, show_default=True,
              help="Prompt tokens of the request alone and of the operator's batches.")  # fmt: skip
@click.option("--output", "output_tokens", type=click.IntRange(1), default=20, show_default=True,
              help="Their answers' tokens.")  # fmt: skip
@click.option("--json", "printed", is_flag=True, help="Print JSON.")
@click.option("--svg", "drawn", type=click.Path(path_type=Path), help="Draw to this file.")
def switching(  # noqa: PLR0913 - one argument an option
    *,
    config_file: Path | None,
    settings: tuple[str, ...],
    machines: str,
    models: str | None,
    printed: bool,
    drawn: Path | None,
    input_tokens: int,
    output_tokens: int,
    **options: object,
) -> None:
    """What switching experts costs: an activation, its share of request time, and what a workload meets.

    By arithmetic for each model and machine, then in runs of the workload, in this process.
    """
    call = Call(input_tokens, output_tokens)
    config = config_of(config_file, settings, options, _used)
    config = replace(config, cluster=ClusterConfig(backend="local"))
    if drawn is not None:
        check_file(drawn)
    named = variants(machine_list(machines), config)
    with config.naming_origins():
        asked = models_of(config, model_names() if models is None else _list(models))
        activations = [activation(config, one, model) for model in asked for one in named]
        bandwidths = {one[0]: over_bandwidth(config, one) for one in named}
        shares = [share(config, one, call) for one in named]
    runs, cannot = _runs(config, named, call)
    report = Report(named, call, activations, bandwidths, shares, runs, cannot)
    if drawn is not None:
        write_text(drawn, picture(report))
    if printed:
        click.echo(json.dumps(as_json(report), indent=2))
    else:
        switching_table(OUT, report)


def _runs(config: Config, named: list[Named], call: Call) -> tuple[list[Switching], dict[str, str]]:
    """The runs, and why a machine that has no room for the experts has none."""
    runs, cannot = [], {}
    requests = config.workload.requests if config.workload.limit is None else config.workload.limit
    with progress_bar() as progress:
        for one in named:
            try:
                runs.append(measure(config, one, call, watcher(progress, one[0], requests)))
            except OutOfMemoryError as error:
                cannot[one[0]] = str(error)
    return runs, cannot


def _used(key: str) -> bool:
    return not key.startswith(("footprint.", "cluster.", "routing.", "machine.name")) or machine_number(key)


def _list(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InputError(f"--models {text!r}: must be models, with commas, for example llama-2-7b,llama-3-70b")
    return names

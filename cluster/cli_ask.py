"""``coe footprint``, ``coe reproduce`` and ``coe machines``: answers that need no workload."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cluster import footprint_curve as footprints
from cluster import published as publishing
from cluster import reproduce as reproducing
from cluster import show
from cluster.cli_options import COMPARED, OUT, config_of, config_options, machine_list, machine_number, machine_options
from cluster.compare import variants
from cluster.deploy import deployment_of
from cluster.output import check_file, write_text
from cluster.show_footprint import footprint_table
from cluster.validation_page import validation_page
from node.errors import InputError
from node.spec_file import load_machine, machine_names
from node.units import parse

MOST_EXPERTS = 10**9
FOOTPRINT_KEYS = (
    "experts.model", "experts.dtype", "experts.router", "experts.group", "sharding.tensor_parallel",
    "sharding.home", "sharding.replicas", "sharding.router", "runtime.kv_reserve",
)  # fmt: skip


@click.command()
@config_options
@click.option("--experts", default="10,40,100,200,400,850", show_default=True, help="Numbers of experts, with commas.")
@click.option("--machines", default=COMPARED, show_default=True, help="Machines or .toml files, with commas.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--svg", "drawn", type=click.Path(path_type=Path), help="Draw machines over experts to this file.")
def footprint(
    config_file: Path | None,
    settings: tuple[str, ...],
    experts: str,
    machines: str,
    as_json: bool,
    drawn: Path | None,
) -> None:
    """How many machines hold a number of experts, and by what arithmetic.

    One with a host link is there as it is, and with its link shared the other way. Cost is told of machines that say
    their cost_per_hour.
    """
    config = config_of(
        config_file,
        settings,
        {},
        lambda key: key in FOOTPRINT_KEYS or key.startswith("footprint.") or machine_number(key),
    )
    counts = _counts(experts)
    if drawn is not None:
        check_file(drawn)
    with config.naming_origins():
        limit_s = parse(config.footprint.activation_limit, "s", "footprint.activation_limit")
        named = variants(machine_list(machines), config)
        curves = [footprints.curve(label, deployment_of(config, machine), limit_s) for label, machine in named]
    if drawn is not None:
        write_text(drawn, footprints.picture(curves, max(counts)))
    if as_json:
        rows = [one.row(count) for one in curves for count in counts]
        click.echo(json.dumps(footprints.as_json(curves, rows), indent=2))
    else:
        footprint_table(OUT, curves, counts)


@click.command()
@machine_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--write", "page", type=click.Path(path_type=Path), help="Write the validation page to this file.")
def reproduce(settings: tuple[str, ...], as_json: bool, page: Path | None) -> None:
    """The published results beside what the emulator says; each row is a run.

    Numbers that are set are set on every machine that knows them.
    """
    config = config_of(None, settings, {}, machine_number)
    if page is not None and settings:
        raise InputError(f"--write {str(page)!r}: the page is of the machines as they are; leave out --set")
    if page is not None:
        check_file(page)
    runs = publishing.Runs(config.machine.numbers)
    rows = reproducing.rows(runs)
    if page is not None:
        per_gpu = reproducing.rows(publishing.Runs({"host_link.sharing": "per_socket"}))
        write_text(page, validation_page(rows, per_gpu, reproducing.overhead_effect(runs)))
    if as_json:
        click.echo(json.dumps(publishing.as_json(rows), indent=2))
    else:
        show.reproduce_table(OUT, rows)


@click.command()
@click.argument("name", required=False)
@machine_options
def machines(name: str | None, settings: tuple[str, ...]) -> None:
    """List the machines, or every number of one with its kind and source."""
    if name is not None:
        config = config_of(None, settings, {}, machine_number)
        show.machine_table(OUT, load_machine(name, config.machine.numbers))
        return
    if settings:
        raise InputError(f"--set {settings[0]!r}: needs the name of a machine, for example coe machines sn40l-node")
    found = [load_machine(known) for known in machine_names()]
    rows = [(machine.name, str(machine.sockets), machine.title) for machine in found]
    show.print_table(OUT, "Machines", ("name", "sockets", "what"), rows, left=(0, 2))


def _counts(text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1 or max(counts) > MOST_EXPERTS:
        raise InputError(
            f"--experts {text!r}: must be whole numbers from 1 to {MOST_EXPERTS:,}, with commas, for example 10,100,850"
        )
    return counts

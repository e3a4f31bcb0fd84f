"""``coe footprint``, ``coe reproduce`` and ``coe machines``: answers that need no workload."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cluster import footprint as footprints
from cluster import published as publishing
from cluster import reproduce as reproducing
from cluster import show
from cluster.cli_options import COMPARED, OUT, config_of, config_options, machine_list, machine_number, machine_options
from cluster.deploy import deployment_of, machines_of
from cluster.output import check_file, write_text
from cluster.validation_page import validation_page
from node.errors import InputError
from node.spec_file import load_machine, machine_names
from node.units import parse

FOOTPRINT_KEYS = (
    "experts.model", "experts.dtype", "experts.router", "experts.group", "sharding.tensor_parallel",
    "sharding.home", "sharding.replicas", "sharding.router", "runtime.kv_reserve",
)  # fmt: skip


@click.command()
@config_options
@click.option("--experts", default="10,40,100,200,400,850", show_default=True, help="Numbers of experts, with commas.")
@click.option("--machines", default=COMPARED, show_default=True, help="Machines or .toml files, with commas.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def footprint(config_file: Path | None, settings: tuple[str, ...], experts: str, machines: str, as_json: bool) -> None:
    """How many machines hold a number of experts."""
    config = config_of(
        config_file,
        settings,
        {},
        lambda key: key in FOOTPRINT_KEYS or key.startswith("footprint.") or machine_number(key),
    )
    counts = _counts(experts)
    with config.naming_origins():
        limit_s = parse(config.footprint.activation_limit, "s", "footprint.activation_limit")
        rooms = {
            machine.name: footprints.capacity(deployment_of(config, machine))
            for machine in machines_of(machine_list(machines), config.machine.numbers)
        }
    rows = [footprints.row(label, room, count, limit_s) for label, room in rooms.items() for count in counts]
    if as_json:
        click.echo(json.dumps(footprints.as_json(rows), indent=2))
    else:
        show.footprint_table(OUT, rows, rooms, limit_s)


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
    if min(counts) < 1:
        raise InputError(
            f"--experts {text!r}: must be whole numbers of at least 1, with commas, for example 10,100,850"
        )
    return counts

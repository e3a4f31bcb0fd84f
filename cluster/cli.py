"""The ``coe`` command: options in, the right module called, results shown and written."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cluster import compare as comparing
from cluster import footprint as footprints
from cluster import reproduce as reproducing
from cluster import show
from cluster.config import Config
from cluster.config_file import parse_setting, read_config
from cluster.deploy import deployment_of
from cluster.output import folder_for, result_folder, write_json, write_text
from cluster.requests_table import write_requests
from cluster.runner import Progress as RunProgress
from cluster.runner import Run, Watch, backends, prepare
from cluster.runner import run as run_workload
from cluster.validation_page import validation_page
from node.errors import InputError
from node.spec_file import load_machine, machine_names
from node.units import PS_PER_S, parse, show_seconds

F = TypeVar("F", bound=Callable[..., object])
OUT, ERR = (Console(stderr=stderr, width=None if sys.stdout.isatty() else 120) for stderr in (False, True))
OVERLOAD, OVERLOAD_REQUESTS = 1.05, 100  # makespan over the span of arrivals, and how many requests it takes to say
COMPARED = "sn40l-node,dgx-a100,dgx-h100"
FOOTPRINT_KEYS = (
    "experts.model", "experts.dtype", "experts.router", "experts.group", "sharding.tensor_parallel",
    "runtime.kv_reserve",
)  # fmt: skip


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    def apply(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return apply


config_options = _options(
    click.option("--config", "config_file", type=click.Path(path_type=Path), help="A TOML file of settings."),
    click.option("--set", "settings", multiple=True, metavar="TABLE.KEY=VALUE", help="Set one key; may be repeated."),
)
workload_options = _options(
    click.option("--trace", help="A request trace: Azure or BurstGPT CSV, Mooncake or own JSONL."),
    click.option("--limit", type=int, help="Use only so many requests."),
    click.option("--rate-scale", type=float, help="Divide arrival times by this."),
    click.option("--seed", type=int, help="Seed of everything that is drawn."),
    click.option("--backend", help="ray or local."),
    click.option("--address", help="Ray cluster to use; without it one is started on this machine."),
)
_KEYS = {
    "trace": "workload.trace",
    "limit": "workload.limit",
    "rate_scale": "workload.rate_scale",
    "seed": "seed",
    "backend": "cluster.backend",
    "address": "cluster.address",
    "machine": "machine.name",
}


def _config(
    config_file: Path | None,
    settings: Sequence[str],
    options: dict[str, object],
    used: Callable[[str], bool],
) -> Config:
    pairs = [parse_setting(text) for text in settings]
    pairs += [(_KEYS[name], value) for name, value in options.items() if value is not None]
    return read_config(config_file, pairs, used)


def _used_by_run(key: str) -> bool:
    return not key.startswith("footprint.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("samba-coe"), prog_name="coe")
def coe() -> None:
    """Emulate SambaNova SN40L nodes that serve a Composition of Experts."""


@coe.command()
@config_options
@workload_options
@click.option("--machine", help="A built-in machine or a .toml file.")
@click.option("--output", help="Folder for the results; it must not exist.  [default: a new one under runs/]")
@click.option("--timeline", "timeline_limit", type=click.IntRange(0), default=50_000, show_default=True,
              help="Most events in timeline.json.")  # fmt: skip
@click.option("--requests-format", type=click.Choice(["parquet", "csv"]), default="parquet", show_default=True)
def run(
    config_file: Path | None,
    settings: tuple[str, ...],
    output: str | None,
    timeline_limit: int,
    requests_format: str,
    **options: object,
) -> None:
    """Serve a workload on a machine; print and write what happened."""
    config = _config(config_file, settings, options, _used_by_run)
    folder = folder_for(output, "run")
    started = time.time()
    prepared = prepare(config)
    _notes(prepared[1].notes)
    with backends(config) as make_backend, _progress() as progress:
        watch = _watcher(progress, prepared[0].machine.name, len(prepared[1].requests))
        result = run_workload(config, make_backend(), prepared, watch, timeline_limit)
    with result_folder(folder) as temporary:
        _write_run(temporary, result, requests_format)
        write_json(temporary / "run.json", _run_record(config, time.time() - started))
    show.run_table(OUT, result)
    _over_context(result, config)
    _overload(result)
    OUT.print(f"\nwritten to {folder}")


def _write_run(folder: Path, result: Run, requests_format: str) -> None:
    write_json(folder / "summary.json", result.summary)
    write_requests(result.columns, result.workload.refused, folder / f"requests.{requests_format}")
    result.timeline.write(folder / "timeline.json")


def _run_record(config: Config, wall_s: float) -> dict[str, object]:
    packages = ("samba-coe", "ray", "numpy", "msgpack", "pyarrow")
    tree = {key: value for key, value in asdict(config).items() if key != "explicit"}
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "config": tree,
        "seed": config.seed,
        "wall_s": round(wall_s, 3),
        "command": sys.argv,
    }


@coe.command()
@config_options
@workload_options
@click.option("--machines", default=COMPARED, show_default=True, help="Machines or .toml files, with commas.")
@click.option("--output", help="Folder for compare.json; it must not exist.  [default: a new one under runs/]")
def compare(
    config_file: Path | None, settings: tuple[str, ...], machines: str, output: str | None, **options: object
) -> None:
    """Serve the same workload on several machines, side by side."""
    config = _config(config_file, settings, options, lambda key: _used_by_run(key) and key != "machine.name")
    folder = folder_for(output, "compare")
    variants = comparing.variants(_names(machines), config)
    with backends(config) as make_backend, _progress() as progress:
        columns = comparing.compare(
            config, variants, make_backend, lambda label, requests: _watcher(progress, label, requests)
        )
    with result_folder(folder) as temporary:
        write_json(temporary / "compare.json", comparing.as_json(columns))
    show.compare_table(OUT, columns)
    OUT.print(f"\nwritten to {folder}")


@coe.command()
@config_options
@click.option("--experts", default="10,40,100,200,400,850", show_default=True, help="Numbers of experts, with commas.")
@click.option("--machines", default=COMPARED, show_default=True, help="Machines or .toml files, with commas.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def footprint(config_file: Path | None, settings: tuple[str, ...], experts: str, machines: str, as_json: bool) -> None:
    """How many machines hold a number of experts."""
    config = _config(
        config_file,
        settings,
        {},
        lambda key: key in FOOTPRINT_KEYS or key.startswith("footprint.") or _machine_number(key),
    )
    limit_s = parse(config.footprint.activation_limit, "s", "footprint.activation_limit")
    counts = _counts(experts)
    rooms = {
        machine.name: footprints.capacity(deployment_of(config, machine))
        for machine in (load_machine(name, config.machine.numbers) for name in _names(machines))
    }
    rows = [footprints.row(label, room, count, limit_s) for label, room in rooms.items() for count in counts]
    if as_json:
        click.echo(json.dumps(footprints.as_json(rows), indent=2))
    else:
        show.footprint_table(OUT, rows, rooms, limit_s)


@coe.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--write", "page", type=click.Path(path_type=Path), help="Write the validation page to this file.")
def reproduce(as_json: bool, page: Path | None) -> None:
    """The published results beside what the emulator says; each row is a run."""
    rows = reproducing.rows()
    if page is not None:
        write_text(page, validation_page(rows, reproducing.overhead_effect()))
    if as_json:
        click.echo(json.dumps(reproducing.as_json(rows), indent=2))
    else:
        show.reproduce_table(OUT, rows)


@coe.command()
@click.argument("name", required=False)
@click.option("--set", "settings", multiple=True, metavar="machine.PATH=VALUE", help="Set one number.")
def machines(name: str | None, settings: tuple[str, ...]) -> None:
    """List the machines, or every number of one with its kind and source."""
    if name is not None:
        config = _config(None, settings, {"machine": name}, lambda key: key.startswith("machine."))
        show.machine_table(OUT, load_machine(name, config.machine.numbers))
        return
    found = [load_machine(known) for known in machine_names()]
    rows = [(machine.name, str(machine.sockets), machine.title) for machine in found]
    show.print_table(OUT, "Machines", ("name", "sockets", "what"), rows, left=(0, 2))


def _machine_number(key: str) -> bool:
    return key.startswith("machine.") and key != "machine.name"


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or len(set(names)) != len(names):
        raise InputError(f"--machines {text!r}: must be different machines, with commas, for example {COMPARED}")
    return names


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


def _notes(notes: Sequence[str]) -> None:
    for note in notes:
        ERR.print(f"note: {note}", style="yellow", highlight=False)


def _over_context(result: Run, config: Config) -> None:
    over = result.workload.over_context
    if over:
        done = {"run": "run all the same", "clip": "clipped to it", "refuse": "refused"}[config.workload.over_context]
        _notes([f"{over:,} of {result.summary['requests']:,} requests exceed their model's context: {done}"])


def _overload(result: Run) -> None:
    arrived, makespan = result.workload.requests[-1].arrival / PS_PER_S, result.summary["makespan_s"]
    assert isinstance(makespan, float)
    if len(result.workload.requests) >= OVERLOAD_REQUESTS and makespan > OVERLOAD * arrived > 0:
        _notes(
            [
                f"the machine does not keep up: requests came for {show_seconds(arrived)}, serving them took "
                f"{show_seconds(makespan)}; waiting times grow with the length of the workload"
            ]
        )


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on the terminal's standard error; nothing where that is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=ERR, disable=not ERR.is_terminal) as progress:
        yield progress


def _watcher(progress: Progress, label: str, requests: int) -> Watch:
    task: TaskID = progress.add_task(label, total=requests, state="")

    def watch(state: RunProgress) -> None:
        served = state.hits + state.activations
        rate = f"hit rate {state.hits / served:.1%}" if served else ""
        text = f"virtual time {show_seconds(state.now / PS_PER_S)}  {rate}"
        progress.update(task, completed=state.completed, state=text)

    return watch

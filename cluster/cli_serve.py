"""``coe run`` and ``coe compare``: serve a workload, show and write what happened."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import click

from cluster import __version__, show, show_run
from cluster import compare as comparing
from cluster.cli_metrics import Followed, followed, live_options
from cluster.cli_options import (
    COMPARED,
    ERR,
    OUT,
    backend_options,
    config_of,
    config_options,
    machine_list,
    taken,
    tell_written,
    workload_options,
)
from cluster.cli_progress import progress_bar, watcher
from cluster.cli_resume import checkpoints, only_how_it_runs, partial_of, resume_options, resumed
from cluster.config import Config
from cluster.output import EVENTS, Written, check_output, result_folder, write_json, write_text
from cluster.report.page import compare_page, run_page
from cluster.requests_table import write_requests
from cluster.resuming.partial_run import Begun
from cluster.runner import Run, backends, notes, prepare
from cluster.runner import run as run_workload
from cluster.service_levels import classes_by_id
from node.native import engine


@click.command()
@config_options
@workload_options
@backend_options
@click.option("--machine", help="A built-in machine or a .toml file.")
@click.option("--output", help="Folder for the results; it must not exist.  [default: a new one under runs/]")
@click.option("--timeline", "events", type=click.IntRange(0),
              help=f"Most events in timeline.json.  [default: {EVENTS}]")  # fmt: skip
@click.option("--requests-format", type=click.Choice(["parquet", "csv"]), help="[default: parquet]")
@live_options
@resume_options
def run(
    config_file: Path | None,
    settings: tuple[str, ...],
    every_s: float | None,
    resume: str | None,
    **options: object,
) -> None:
    """Serve a workload on a machine; print and write what happened."""
    asked = taken(Followed, options)
    asked.check()
    written, started = taken(Written, options), time.time()
    metered = asked.metrics_experts if asked.metered else None
    if resume is None:
        config, partial = config_of(config_file, settings, options, _used_by_run), partial_of(written.output)
        begun = Begun(config, prepare(config), written, metered)
    else:
        begun, partial = resumed(resume, written, metered), Path(resume)
        config = config_of(config_file, settings, options, only_how_it_runs, begun.config)
        begun = replace(begun, config=config)
    prepared, written = begun.prepared, begun.written
    with followed(asked, config, prepared, written.output) as live:
        with (
            backends(config) as make_backend,
            progress_bar() as progress,
            checkpoints(begun, partial, every_s) as kept,
        ):
            live.watch = kept.watching(watcher(progress, prepared[0].machine.name, len(prepared[1].requests)))
            live.pauses, live.pace.hurry = kept.pauses, kept.stopping
            live.pace.begin()
            result = run_workload(config, make_backend(), prepared, live, written.most_events)
        with result_folder(written.output, "run") as folder:
            told = notes(result, config.workload.over_context)
            _write_run(folder.temporary, result, written.table, config, told)
            write_json(folder.temporary / "run.json", _run_record(config, result, time.time() - started))
        kept.remove()
        show_run.run_table(OUT, result)
        _tell(told)
        tell_written(folder.final)


def _write_run(folder: Path, result: Run, requests_format: str, config: Config, told: Sequence[str]) -> None:
    services, classes = result.deployment.options.services, None
    if len(services) > 1:
        classes = classes_by_id(result.workload), [service.name for service in services]
    table = result.columns, result.others, folder / f"requests.{requests_format}", classes
    with ThreadPoolExecutor(1) as beside:  # packing columns leaves the interpreter to others
        written = beside.submit(write_requests, *table)
        write_json(folder / "summary.json", result.summary)
        result.timeline.write(folder / "timeline.json")
        write_text(folder / "report.html", run_page(config, result, told))
        written.result()


def _run_record(config: Config, result: Run, wall_s: float) -> dict[str, object]:
    packages = {"samba-coe": __version__} | {name: version(name) for name in ("ray", "numpy", "msgpack", "pyarrow")}
    tree = {key: value for key, value in asdict(config).items() if key != "explicit"}
    return {
        "versions": {"python": platform.python_version(), **packages},
        "config": tree,
        "seed": config.seed,
        "wall_s": round(wall_s, 3),
        "windows": result.windows,
        "restarts": result.restarts,
        "engine": engine(),
        "command": sys.argv,
    }


@click.command()
@config_options
@workload_options
@backend_options
@click.option("--machines", default=COMPARED, show_default=True, help="Machines or .toml files, with commas.")
@click.option("--output", help="Folder for the results; it must not exist.  [default: a new one under runs/]")
def compare(
    config_file: Path | None, settings: tuple[str, ...], machines: str, output: str | None, **options: object
) -> None:
    """Serve the same workload on several machines, side by side."""
    config = config_of(config_file, settings, options, lambda key: _used_by_run(key) and key != "machine.name")
    check_output(output)
    variants = comparing.variants(machine_list(machines), config)
    with backends(config) as make_backend, progress_bar() as progress:
        columns = comparing.compare(
            config, variants, make_backend, lambda label, requests: watcher(progress, label, requests)
        )
    told = tuple(dict.fromkeys(note for column in columns for note in (*column.notes, *comparing.regime(column))))
    with result_folder(output, "compare") as folder:
        write_json(folder.temporary / "compare.json", comparing.as_json(columns))
        write_text(folder.temporary / "report.html", compare_page(config, variants, columns, told))
    show.compare_table(OUT, columns)
    _tell(told)
    tell_written(folder.final)


def _used_by_run(key: str) -> bool:
    return not key.startswith("footprint.")


def _tell(told: Iterable[str]) -> None:
    for note in told:
        ERR.print(f"note: {note}", style="yellow", highlight=False)

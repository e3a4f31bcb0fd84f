"""``coe submit`` and ``coe fetch``: a run as a job of a Ray cluster, and its results here."""

from __future__ import annotations

import sys

import click

from cluster.cli_options import ERR, tell_written
from cluster.commands import COMMANDS
from cluster.jobs.cluster_client import DEFAULT, ID, ClusterJobs, gist
from cluster.jobs.fetching import fetch, results_of
from cluster.jobs.handing_over import job_of
from cluster.output import RUNS, check_output, result_folder
from node.errors import InputError

HERE = ("submit", "fetch")  # commands that are of no use in a job
address_option = click.option(
    "--address", help=f"Dashboard of the cluster.  [default: RAY_API_SERVER_ADDRESS, or {DEFAULT}]"
)


@click.command()
@address_option
@click.option("--working-dir", default=".", show_default=True, help="Checkout to upload, as .rayignore leaves it.")
@click.option("--installed", is_flag=True, help="Upload nothing: the cluster has samba-coe.")
@click.option("--pip", is_flag=True, help="Have requirements.lock installed for the job first.")
@click.option("--name", help="Name of the job, which no other job of the cluster may have had.")
@click.option("--no-wait", is_flag=True, help="Do not follow it.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def submit(
    address: str | None,
    working_dir: str,
    installed: bool,
    pip: bool,
    name: str | None,
    no_wait: bool,
    command: tuple[str, ...],
) -> None:
    """Run a command of coe as a job of a Ray cluster: coe submit -- run --set workload.requests=5000."""
    _check_command(command)
    if name is not None and not ID.fullmatch(name):
        raise InputError(f"--name {name!r}: must be of letters, digits, _, . and -")
    job = job_of(command, working_dir, installed=installed, pip=pip)
    jobs = ClusterJobs(address)
    with jobs.told():
        found: str = jobs.client.submit_job(entrypoint=job.entrypoint, runtime_env=job.runtime_env, submission_id=name)
    at = f" --address {address}" if address else ""
    goes_on = f"it goes on: ray job logs{at} --follow {found}, ray job stop{at} {found}"
    if no_wait:
        click.echo(found)
        ERR.print(f"note: {goes_on}; when it is over: coe fetch{at} {found}", highlight=False, soft_wrap=True)
        return
    ERR.print(f"job {found}", highlight=False)
    try:
        for piece in jobs.follow(found):
            click.echo(piece, nl=False)
    except KeyboardInterrupt:
        ERR.print(f"coe: no longer following job {found}; {goes_on}", highlight=False, soft_wrap=True)
        sys.exit(130)
    except InputError as error:
        raise InputError(f"lost sight of job {found}; {goes_on}: {error}") from None
    sys.exit(_told_end(jobs, found, f"coe fetch{at} {found}"))


def _check_command(command: tuple[str, ...]) -> None:
    allowed = sorted(set(COMMANDS) - set(HERE))
    if not command or command[0] not in allowed:
        found = repr(command[0]) if command else "nothing"
        raise InputError(f"{found} is no command to submit; allowed after --: {', '.join(allowed)}, and its options")


def _told_end(jobs: ClusterJobs, job: str, to_fetch: str) -> int:
    """Say how a job ended: the exit code."""
    info = jobs.info(job)
    if info.status == "SUCCEEDED":
        ERR.print(f"job {job} succeeded; to bring its results here: {to_fetch}", highlight=False, soft_wrap=True)
        return 0
    code = info.driver_exit_code
    why = "" if code else f": {gist(str(info.message))[:500]}"
    ERR.print(f"coe: job {job} {str(info.status.value).lower()}{why}", highlight=False, soft_wrap=True)
    return 1 if code is None else 128 - code if code < 0 else code  # below 0: by which signal it was killed


@click.command(name="fetch")
@address_option
@click.option("--output", help="Folder for them; it must not exist.  [default: runs/, under their own name]")
@click.argument("job")
def fetch_command(address: str | None, output: str | None, job: str) -> None:
    """Bring the results of a job here, or the checkpoint of one that was stopped, for coe run --resume."""
    check_output(output)
    jobs = ClusterJobs(address)
    source = results_of(jobs, job)
    if output is None:
        output = str(RUNS / source.name)
        check_output(output)
    with result_folder(output, "fetch") as folder:
        fetch(jobs, job, source, folder.temporary)
    tell_written(folder.final)

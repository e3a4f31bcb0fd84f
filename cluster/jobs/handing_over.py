"""A command of ``coe`` becomes a job: what is uploaded for it, and what it runs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from node.errors import InputError

LOCK = "requirements.lock"
STOP_WAIT_S = 60  # until Ray kills a job that it has told to stop: 3, if left to it, may not do for a checkpoint


@dataclass(frozen=True)
class Job:
    """``entrypoint`` in a ``runtime_env``, as Ray has them."""

    entrypoint: str
    runtime_env: dict[str, object]


def job_of(command: Sequence[str], working_dir: str, *, installed: bool, pip: bool) -> Job:
    """The job of a command line of ``coe``, from the checkout ``working_dir``.

    ``installed``: the cluster has the package, and nothing is uploaded. ``pip``: the packages of the checkout's lock
    are installed for it first. Raises ``InputError`` where there is no checkout.
    """
    entrypoint = shlex.join(["python", "-m", "cluster", *command])
    runtime_env: dict[str, object] = {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}}
    if installed:
        if pip:
            raise InputError("--pip: has no effect with --installed; remove one of the two")
        return Job(entrypoint, runtime_env)
    root = Path(working_dir)
    if not (root / "cluster" / "__main__.py").is_file():
        raise InputError(
            f"--working-dir {working_dir!r}: is no checkout of samba-coe; name one, or say --installed where the "
            "cluster has the package"
        )
    runtime_env["working_dir"] = str(root)
    if pip:
        runtime_env["pip"] = str(root / LOCK)
    return Job(entrypoint, runtime_env)

"""What becomes a job, and what is told of an error there?"""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.jobs.cluster_client import gist
from cluster.jobs.handing_over import job_of
from node.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


# What becomes a job


def test_a_command_becomes_a_job_of_the_checkout() -> None:
    job = job_of(["run", "--set", 'machine.hbm.bandwidth="3.6 TB/s"'], str(ROOT), installed=False, pip=False)
    assert job.entrypoint == """python -m cluster run --set 'machine.hbm.bandwidth="3.6 TB/s"'"""
    stop = {"RAY_JOB_STOP_WAIT_TIME_S": "60"}
    assert job.runtime_env == {"env_vars": stop, "working_dir": str(ROOT)}
    assert job_of(["machines"], "/nowhere", installed=True, pip=False).runtime_env == {"env_vars": stop}
    assert job_of(["machines"], str(ROOT), installed=False, pip=True).runtime_env["pip"] == f"{ROOT}/requirements.lock"


@pytest.mark.parametrize(
    ("folder", "how", "message"),
    [
        ("cluster", {}, "--working-dir '.*cluster': is no checkout of samba-coe"),
        ("none", {}, "--working-dir '.*none': is no checkout of samba-coe"),
        ("", {"installed": True, "pip": True}, "--pip: has no effect with --installed"),
    ],
)
def test_what_is_no_checkout_is_told(folder: str, how: dict[str, bool], message: str) -> None:
    with pytest.raises(InputError, match=message):
        job_of(["run"], str(ROOT / folder), **{"installed": False, "pip": False, **how})


# What goes wrong there, in a line


TRACE = "Traceback (most recent call last):\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Request failed with code 404: Job a does not\nexist.", "Request failed with code 404: Job a does not exist"),
        (f"Request failed: {TRACE}  File 1\nValueError: Job a\n already exists.\n.", "Job a already exists"),
        (f"{TRACE}RuntimeError: x\n\n{TRACE}a.b.KeyError: y\n", "y"),
    ],
)
def test_the_gist_of_an_error(text: str, line: str) -> None:
    assert gist(text) == line

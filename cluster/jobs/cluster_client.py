"""The jobs of a Ray cluster, asked by Ray's own client; what goes wrong there is told in one line.

Authentication is Ray's: with ``RAY_AUTH_MODE=token`` the token of ``RAY_AUTH_TOKEN`` or of ``~/.ray/auth_token``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import Iterator
from importlib.util import find_spec

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from node.errors import InputError

DEFAULT = "http://127.0.0.1:8265"
GIVEN, CLUSTER = "RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"
NOISY = ("dashboard.modules.job.sdk", "dashboard.modules.dashboard_sdk", "_private.runtime_env.packaging",
         "_private.runtime_env.working_dir")  # fmt: skip
ID = re.compile(r"[A-Za-z0-9_.-]+")
_CAUSE = re.compile(r"^[\w.]*(?:Error|Exception): ", re.MULTILINE)


class ClusterJobs:
    """The jobs of the cluster whose dashboard is at ``address`` (None: as Ray's own tools find it, or this machine's).

    Raises ``InputError`` where none answers, where it wants another token, or where this Python lacks what it takes.
    """

    def __init__(self, address: str | None) -> None:
        if find_spec("aiohttp") is None or find_spec("pydantic") is None:
            raise InputError("jobs need more of Ray than is installed here: pip install 'ray[default]'")
        name, found = _address(address)
        self.where = f"{name} {found!r}"
        if not found.startswith(("http://", "https://")):
            raise InputError(f"{self.where}: must be a dashboard's address, for example {DEFAULT}")
        for noisy in NOISY:
            logging.getLogger(f"ray.{noisy}").setLevel(logging.ERROR)
        os.environ[GIVEN] = found  # which to Ray's client is more than its own argument
        with self.told():
            self.client = JobSubmissionClient(found)

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """What Ray's client raises within, as ``InputError``."""
        try:
            yield
        except (
            RuntimeError, ConnectionError, ValueError, requests.RequestException, AuthenticationError
        ) as error:  # fmt: skip
            raise InputError(f"{self.where}: {gist(str(error)) or type(error).__name__}") from None

    def info(self, job: str) -> JobDetails:
        """What the cluster knows of a job; ``InputError`` where it knows none of that name."""
        if not ID.fullmatch(job):
            raise InputError(f"job {job!r}: no name of a job")
        with self.told():
            found: JobDetails = self.client.get_job_info(job)
        return found

    def log(self, job: str) -> str:
        """All that a job printed so far."""
        with self.told():
            found: str = self.client.get_job_logs(job)
        return found

    def follow(self, job: str) -> Iterator[str]:
        """What a job prints, from its beginning to its end, piece by piece."""
        pieces = self.client.tail_job_logs(job)

        async def more() -> str | None:
            return await anext(pieces, None)

        with asyncio.Runner() as runner:  # which ends what is under way where Ctrl-C does
            while True:
                with self.told():
                    piece = runner.run(more())
                if piece is None:
                    return
                yield piece


def gist(text: str) -> str:
    """What an error says, in one line; of a traceback in it only the last cause."""
    if "Traceback" in text:
        text = _CAUSE.split(text)[-1]
    return " ".join(text.split()).rstrip(". ")


def _address(given: str | None) -> tuple[str, str]:
    """Where an address is from, and the address; that of ``RAY_ADDRESS`` may be for others than the dashboard."""
    if given is not None:
        return "--address", given
    if os.environ.get(GIVEN):
        return GIVEN, os.environ[GIVEN]
    if os.environ.get(CLUSTER, "").startswith("http"):
        return CLUSTER, os.environ[CLUSTER]
    return "--address", DEFAULT

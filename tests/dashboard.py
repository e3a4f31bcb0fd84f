"""A Ray cluster of one machine with its dashboard, started as users do: by ``ray start`` of a virtual environment."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.listening import end

OURS = Path(sys.executable).parent.parent
PORTS = ("port", "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port",
         "ray-client-server-port")  # fmt: skip
START_LIMIT_S = 180


@dataclass(frozen=True)
class Head:
    """``address`` of the dashboard; ``environment`` of whoever may talk to it; ``folder`` of the session."""

    address: str
    environment: Mapping[str, str]
    folder: Path

    def said(self, *command: str | Path, at: Path, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """What comes of a command."""
        return subprocess.run(
            command, cwd=at, env=self.environment, capture_output=True, text=True, timeout=seconds, check=False
        )


@contextlib.contextmanager
def head(folder: Path, token: str, venv: Path = OURS) -> Iterator[Head]:
    """A cluster that wants ``token``, on loopback, whose Python is that of ``venv``; its files are in ``folder``."""
    session = tempfile.mkdtemp(prefix="coe")  # sockets of Unix have room for about a hundred letters
    with contextlib.ExitStack() as held:
        free = [held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in PORTS]
    clean = {name: text for name, text in os.environ.items() if not name.startswith(("RAY_", "PYTHON", "VIRTUAL"))}
    environment = {
        **clean,
        "PATH": f"{venv}/bin:/usr/bin:/bin",
        "HOME": str(folder),  # where Ray would keep a token
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    options = [f"--{name}={port}" for name, port in zip(PORTS, free, strict=True)]
    options += ["--num-cpus=4", "--object-store-memory=100000000", f"--temp-dir={session}"]
    with (folder / "head.log").open("wb") as log:
        command = [venv / "bin" / "ray", "start", "--head", "--block", "--dashboard-host=127.0.0.1", *options]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        found = Head(f"http://127.0.0.1:{free[1]}", environment, Path(session))
        _wait(found.address, process)
        yield found
    finally:
        end(process)
        shutil.rmtree(session, ignore_errors=True)


def _wait(address: str, process: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + START_LIMIT_S
    while True:
        assert process.poll() is None and time.monotonic() < limit, "no dashboard came"
        try:
            with urllib.request.urlopen(f"{address}/api/version", timeout=5):
                return
        except urllib.error.HTTPError:  # it wants a token, so it is there
            return
        except OSError:
            time.sleep(0.2)

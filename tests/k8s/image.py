"""The image without Docker: its build stage in a folder, and Ray's pods as processes on loopback."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.k8s.dockerfile import pins, stages
from tests.k8s.manifests import ROOT, Pods
from tests.listening import end

LOOPBACK = "127.0.0.1"


def build(folder: Path) -> Path:
    """Do what the build stage says, in ``folder``: the virtual environment; skips where no registry is reachable."""
    source, venv = folder / "src", folder / "venv"
    source.mkdir()
    python = Path(sys.base_prefix, "bin", "python3")
    click = f"click=={pins('requirements.lock')['click']}"
    if _said(f"{sys.executable} -m pip download --quiet --no-deps --dest probe {click}", folder).returncode:
        pytest.skip("no package registry is reachable")
    for name, rest in stages()[0]:
        if name == "COPY":
            *wanted, target = rest.split()
            for one in wanted:
                _copy(ROOT / one, source / target / one if target == "./" else source / target)
        if name == "RUN":
            done = _said(re.sub("^python ", f"{python} ", rest).replace("/opt/venv", str(venv)), source)
            assert done.returncode == 0, f"RUN {rest}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return venv


def _said(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What comes of a line for a shell, which knows nothing of the virtual environment that we are in."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
    environment["PATH"] = "/usr/bin:/bin"
    command = ["/bin/sh", "-c", line]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


@dataclass
class RunningPod:
    """A process that is what a pod's container is, with ports of its own; ``ports`` by those of the container."""

    pod: Pods
    venv: Path
    folder: Path
    token: str
    ports: dict[int, int] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        first = random.randrange(20000, 30000, 200) + 100 * (self.pod.component == "head")  # none that both have
        workers = zip(range(10002, 10102), range(first, first + 100), strict=True)
        named = [6379, 6380, 6381, 6382, 6383, 8080, 8265, 9464, 10001, 44217, 44227, 52365]
        with contextlib.ExitStack() as held:
            found = [held.enter_context(socket.create_server((LOOPBACK, 0))).getsockname()[1] for _ in named]
        self.ports = dict(workers) | dict(zip(named, found, strict=True))

    def here(self, line: str) -> str:
        """A line for the container as one for this process: its ports and its folders."""
        line = re.sub(r"\b\d{4,5}\b", lambda port: str(self.ports.get(int(port[0]), int(port[0]))), line)
        line = line.replace("/etc/samba-coe", str(self.folder)).replace("0.0.0.0", LOOPBACK)
        return line.replace("/results", str(self.folder / "results"))

    @property
    def environment(self) -> dict[str, str]:
        """That of the container, with what KubeRay adds."""
        given = {one["name"]: one["value"] for one in self.pod.container["env"]}
        address = f"{LOOPBACK}:{self.ports[6379]}"
        of_kuberay = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "RAY_ADDRESS": address}
        ours = {"AUTOSCALER_METRIC_PORT": str(self.ports[44217]), "DASHBOARD_METRIC_PORT": str(self.ports[44227])}
        path = {"PATH": f"{self.venv}/bin:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(self.folder)}
        return given | of_kuberay | ours | path

    @contextlib.contextmanager
    def running(self, head: RunningPod) -> Iterator[RunningPod]:
        """``ray start``, as KubeRay has bash do it."""
        is_head = head is self
        cpus = int(self.pod.container["resources"]["limits"]["cpu"])
        start = {name: self.here(text) for name, text in (self.pod.start or {}).items()}
        added = {
            "node-ip-address": LOOPBACK,
            "metrics-export-port": self.ports[8080],
            "dashboard-agent-listen-port": self.ports[52365],
            **({"num-cpus": cpus} if "num-cpus" not in start else {}),
            **({"port": self.ports[6379], "dashboard-port": self.ports[8265]} if is_head else {}),
            **({"ray-client-server-port": self.ports[10001], "temp-dir": self.folder / "r"} if is_head else {}),
            **({} if is_head else {"address": f"{LOOPBACK}:{head.ports[6379]}"}),
        }
        options = " ".join(f"--{name}={value}" for name, value in {**added, **start}.items())
        line = f"exec ray start {'--head' if is_head else ''} --block {options}"
        with (self.folder / f"{self.pod.component}.log").open("wb") as log:
            command = ["/bin/bash", "-c", "--", line]
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, cwd=self.folder)
        try:
            yield self
        finally:
            self._end()

    def _end(self) -> None:
        """Ask it to end, and see that none of its offspring stays."""
        assert self.process is not None
        end(self.process)

"""Do the commands of the image and of its pods do what they should, in a clean virtual environment?

The build stage of the Dockerfile is done as it is written; a head and a worker run as KubeRay would have them run, but
on loopback and on ports that are free; the job's entrypoint is submitted to them.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import __version__
from tests.k8s.image import LOOPBACK, RunningPod, build
from tests.k8s.manifests import NEEDS_KUBECTL, ROOT, of_kind, pods, rendered
from tests.listening import listening_at

pytestmark = NEEDS_KUBECTL
LIMIT_S = 120.0  # beside other tests
PATH = "/usr/bin:/bin"


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def cluster(venv: Path) -> Iterator[tuple[RunningPod, RunningPod]]:
    """Head and worker of the job's cluster, both well."""
    folder, token = Path(tempfile.mkdtemp(prefix="coe-pods-")), secrets.token_hex(32)  # a socket's path is to be short
    manifests = rendered("overlays/job")
    (folder / "results").mkdir()
    (mounted,) = (one for one in of_kind("ConfigMap", manifests) if one["metadata"]["name"] == "samba-coe-run")
    (folder / "run.toml").write_text(mounted["data"]["run.toml"])
    head, worker = (
        RunningPod(pod, venv, folder, token) for pod in pods(manifests) if pod.component in ("head", "sockets")
    )
    try:
        with head.running(head):
            wait_until_well(head)
            with worker.running(head):
                wait_until_well(worker)
                yield head, worker
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def asked(pod: RunningPod, port: int, path: str, token: str = "") -> tuple[int, str]:
    """Status and text of an answer over HTTP."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"http://{LOOPBACK}:{pod.ports[port]}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, str(error)


def wait_until_well(pod: RunningPod) -> None:
    """Until the probe of the container says so."""
    probe = pod.pod.container["readinessProbe"]["httpGet"]
    limit = time.monotonic() + LIMIT_S
    while time.monotonic() < limit:
        try:
            if asked(pod, pod.pod.ports[probe["port"]], probe["path"])[0] == 200:
                return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"{pod.pod.component} is not well:\n{(pod.folder / f'{pod.pod.component}.log').read_text()[-2000:]}")


def done(venv: Path, folder: Path, *command: str) -> str:
    """What a command says that ends well, in a folder with nothing else of ours."""
    said = subprocess.run(
        [venv / "bin" / command[0], *command[1:]],
        cwd=folder,
        env={"PATH": f"{venv}/bin:{PATH}", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    return said.stdout


def test_what_is_installed_is_all_there(venv: Path, tmp_path: Path) -> None:
    assert done(venv, tmp_path, "coe", "--version").split()[-1] == __version__
    listed = subprocess.run(
        ["git", "ls-files", "node", "cluster"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    (packages,) = venv.glob("lib/python3*/site-packages")
    assert [path for path in listed.stdout.split() if not (packages / path).exists()] == []


def test_a_run_needs_nothing_else(venv: Path, tmp_path: Path) -> None:
    done(venv, tmp_path, *["coe", "run", "--backend", "local", "--set", "workload.requests=20", "--output", "first"])
    assert {"report.html", "summary.json", "requests.parquet"} <= {path.name for path in (tmp_path / "first").iterdir()}


def test_a_pod_is_well_for_a_probe_and_closed_for_who_has_no_token(cluster: tuple[RunningPod, RunningPod]) -> None:
    head, worker = cluster
    for pod in cluster:
        assert asked(pod, 52365, "/api/healthz")[0] == 200
    assert asked(head, 8265, "/api/jobs/")[0] == 401
    assert asked(head, 8265, "/api/jobs/", head.token)[0] == 200
    assert asked(worker, 8080, "/metrics")[0] == 200


def test_the_jobs_entrypoint_runs_on_the_sockets_that_are_offered(
    cluster: tuple[RunningPod, RunningPod], tmp_path: Path
) -> None:
    head, _ = cluster
    (job,) = of_kind("RayJob", rendered("overlays/job"))
    entrypoint = head.here(job["spec"]["entrypoint"]).replace("--linger 60", "--linger 3")
    submit = f"ray job submit --address http://{LOOPBACK}:{head.ports[8265]} -- {entrypoint}"
    submitter = subprocess.Popen(
        ["/bin/bash", "-ce", "--", submit],
        env=head.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    metrics = ""
    while submitter.poll() is None:
        try:
            metrics = asked(head, 9464, "/metrics")[1]
        except OSError:
            time.sleep(0.2)
    said = submitter.communicate()[0]
    assert submitter.returncode == 0, said
    (folder,) = (head.folder / "results/runs").iterdir()
    assert "coe_" in metrics and "succeeded" in said
    (tmp_path / "run.toml").write_text((head.folder / "run.toml").read_text().partition("[cluster]")[0])
    done(head.venv, tmp_path, *["coe", "run", "--config", "run.toml", "--backend", "local", "--output", "here"])
    assert (folder / "summary.json").read_bytes() == (tmp_path / "here/summary.json").read_bytes()
    restarts = json.loads((folder / "run.json").read_text())["restarts"]  # Ray may lose one where memory is short
    actors, ends = actors_of(head)
    assert actors == [("SocketShell", False)] * (8 + restarts), (restarts, ends)


def actors_of(head: RunningPod) -> tuple[list[tuple[str, bool]], list[Any]]:
    """Of each of our actors its class and whether it was on the head, and why it ended."""
    found: dict[str, list[dict[str, Any]]] = {}
    for what in ("nodes", "actors"):
        status, text = asked(head, 8265, f"/api/v0/{what}?limit=100&detail=1", head.token)
        assert status == 200
        found[what] = json.loads(text)["data"]["result"]["result"]
    (of_head,) = (node["node_id"] for node in found["nodes"] if node["is_head_node"])
    shells = [actor for actor in found["actors"] if actor["class_name"] != "JobSupervisor"]
    where = [(actor["class_name"], actor["node_id"] == of_head) for actor in shells]
    return where, [actor["death_cause"] for actor in shells]


def test_ray_listens_where_it_was_told_to_and_nowhere_else(cluster: tuple[RunningPod, RunningPod]) -> None:
    of_nobody = {6382, 10001, 44217, 44227}  # the policy lets none of them in
    for pod in cluster:
        assert pod.process is not None
        listening = {port for _, port in listening_at(pod.process.pid)}
        meant = {inside for inside, here in pod.ports.items() if here in listening}
        assert len(meant) == len(listening), listening - set(pod.ports.values())
        declared = set(pod.pod.ports.values()) - {9464}
        assert meant - of_nobody - set(range(10002, 10102)) == declared

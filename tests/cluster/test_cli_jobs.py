"""Do runs go as jobs to a real cluster, by Ray's own command and by ours, and do their results come back?"""

from __future__ import annotations

import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from cluster.__main__ import main
from node.errors import InputError
from tests.checkout import BESIDE, checkout
from tests.cluster.conftest import COMMAND, ENVIRONMENT
from tests.dashboard import OURS, Head, head

RUN = "run --set workload.requests=30 --set experts.count=40 --set cluster.sockets_per_actor=4"
PACED = f"{RUN} --set workload.rate=5 --pace 1 --checkpoint 0.001"
RAY = OURS / "bin" / "ray"
FILES = ("summary.json", "requests.parquet", "timeline.json", "report.html")
Coe = Callable[..., subprocess.CompletedProcess[str]]
Submit = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    with head(tmp_path_factory.mktemp("cluster"), secrets.token_hex(32)) as found:
        yield found


@pytest.fixture
def coe(cluster: Head, tmp_path: Path) -> Coe:
    """``coe(command, line)``: a command of jobs, its address, and the rest."""

    def said(command: str, line: str) -> subprocess.CompletedProcess[str]:
        return cluster.said(COMMAND, command, "--address", cluster.address, *line.split(), at=tmp_path)

    return said


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the run comes to in one process."""
    folder = tmp_path_factory.mktemp("expected")
    command = [COMMAND, *RUN.split(), "--backend", "local", "--output", "a"]
    subprocess.run(command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL, check=True)
    return content(folder / "a")


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture
def submit(coe: Coe, source: Path) -> Submit:
    """``submit(line)``: ``coe submit`` of the checkout."""
    return lambda line: coe("submit", f"--working-dir {source} {line}")


def info(cluster: Head, job: str) -> dict[str, Any]:
    said = cluster.said(RAY, "job", "list", "--address", cluster.address, at=cluster.folder)
    assert said.returncode == 0, said.stderr
    (found,) = (part for part in said.stdout.split("JobDetails(") if f"submission_id='{job}'" in part)
    return {"all": found, "status": found.split("status=<JobStatus.")[1].split(":")[0]}


def ends(cluster: Head, job: str, limit_s: float = 60) -> str:
    """How a job ends."""
    limit = time.monotonic() + limit_s
    while (status := info(cluster, job)["status"]) in ("PENDING", "RUNNING"):
        assert time.monotonic() < limit
        time.sleep(0.5)
    return str(status)


def log(cluster: Head, job: str) -> str:
    return cluster.said(RAY, "job", "logs", "--address", cluster.address, job, at=cluster.folder).stdout


def printed(cluster: Head, job: str, text: str, limit_s: float = 60) -> None:
    """Wait until a job has printed something."""
    limit = time.monotonic() + limit_s
    while text not in log(cluster, job):
        assert time.monotonic() < limit
        time.sleep(0.3)


def test_rays_own_command_runs_a_checkout_and_its_results_come_back(
    cluster: Head, coe: Coe, source: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    options = f"--address {cluster.address} --submission-id plain --working-dir ."
    said = cluster.said(RAY, "job", "submit", *options.split(), "--", *f"python -m cluster {RUN}".split(), at=source)
    assert said.returncode == 0, said.stderr
    assert "requests completed" in said.stdout and "written to /" in said.stdout
    assert "driver_info=DriverInfo(" in info(cluster, "plain")["all"]  # it joined the cluster, and started no Ray
    uploaded = Path(said.stdout.rsplit("written to ", 1)[1].splitlines()[0]).parents[1]
    assert uploaded.is_relative_to(cluster.folder)
    names = {path.name for path in uploaded.iterdir()}
    assert {"cluster", "node"} < names and not names & set(BESIDE)
    assert not list(uploaded.rglob("not-to-be-uploaded"))
    assert sum(path.stat().st_size for path in uploaded.rglob("*") if "runs" not in path.parts) < 10e6
    assert len(list((uploaded / "runs").iterdir())) == 1
    said = coe("fetch", "plain")
    assert said.returncode == 0, said.stderr
    (fetched,) = (tmp_path / "runs").iterdir()
    assert content(fetched) == expected and {path.name for path in fetched.iterdir()} == {*FILES, "run.json"}
    assert said.stdout == f"\nwritten to runs/{fetched.name}\n"
    assert cluster.said(RAY, "job", "list", "--address", cluster.address, at=tmp_path).stdout.count("JobDetails(") == 1


def test_a_run_that_is_submitted_is_followed_and_its_results_come_back(
    coe: Coe, submit: Submit, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    said = submit(f"--name ours -- {RUN}")
    assert said.returncode == 0, said.stderr
    assert f"python -m cluster {RUN}" in said.stdout and "requests completed" in said.stdout
    assert (
        said.stderr.startswith("job ours\n")
        and "job ours succeeded; to bring its results here: coe fetch" in said.stderr
    )
    assert coe("fetch", "ours --output here").returncode == 0
    assert content(tmp_path / "here") == expected and [path.name for path in tmp_path.iterdir()] == ["here"]
    said = coe("fetch", "ours --output here")
    assert said.returncode == 2 and "exists already" in said.stderr


def test_results_may_lie_on_storage_that_is_shared(submit: Submit, tmp_path: Path, expected: dict[str, bytes]) -> None:
    assert submit(f"-- {RUN} --output {tmp_path}/deep/shared").returncode == 0
    assert content(tmp_path / "deep" / "shared") == expected


def test_a_job_that_is_stopped_leaves_a_run_that_goes_on_here(
    cluster: Head, coe: Coe, submit: Submit, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    said = submit(f"--no-wait --name stopped -- {PACED.replace('--set workload.rate=5', '')} --output x")
    assert (said.returncode, said.stdout) == (0, "stopped\n") and "coe fetch --address" in said.stderr
    printed(cluster, "stopped", "to go on from the last checkpoint")
    said = coe("fetch", "stopped")
    assert said.returncode == 2 and "job 'stopped': is running, not over" in said.stderr
    assert cluster.said(RAY, "job", "stop", "--address", cluster.address, "stopped", at=tmp_path).returncode == 0
    assert ends(cluster, "stopped") == "STOPPED" and "stopped by SIGTERM at virtual time" in log(cluster, "stopped")
    assert coe("fetch", "stopped").returncode == 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["x.partial"]
    here = cluster.said(COMMAND, "run", "--resume", "runs/x.partial", "--backend", "local", at=tmp_path)
    assert here.returncode == 0, here.stderr
    assert content(tmp_path / "runs" / "x") == expected


def test_ctrl_c_leaves_the_job_alone(cluster: Head, source: Path, tmp_path: Path) -> None:
    line = [COMMAND, "submit", "--address", cluster.address, *f"--working-dir {source} --name left -- {PACED}".split()]
    with subprocess.Popen(line, cwd=tmp_path, env=cluster.environment, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as one:  # fmt: skip
        printed(cluster, "left", "to go on from the last checkpoint")
        one.send_signal(signal.SIGINT)
        _, err = one.communicate(timeout=30)
    assert one.returncode == 130 and "coe: no longer following job left; it goes on: ray job logs --address" in err
    assert "Traceback" not in err and info(cluster, "left")["status"] == "RUNNING"
    assert cluster.said(RAY, "job", "stop", "--address", cluster.address, "left", at=tmp_path).returncode == 0


def test_a_mistake_in_a_job_is_its_own_line_and_its_exit_code(coe: Coe, submit: Submit) -> None:
    said = submit("--name wrong -- run --set workload.reqs=3")
    assert said.returncode == 2 and said.stderr == "job wrong\ncoe: job wrong failed\n"
    assert said.stdout.splitlines()[-1].startswith("coe: error: --set: workload.reqs: unknown key")
    said = coe("fetch", "wrong")
    assert said.returncode == 2 and "job 'wrong': has written nothing, by its log" in said.stderr


def test_where_the_package_is_installed_nothing_is_uploaded(cluster: Head, coe: Coe) -> None:
    said = coe("submit", "--installed --name installed -- machines")
    assert said.returncode == 0 and "sn40l-node" in said.stdout
    assert "working_dir" not in info(cluster, "installed")["all"]


WRONG = [
    ("submit", "--name ours/../x -- run", "--name 'ours/../x': must be of letters, digits"),
    ("submit", "-- walk", "'walk' is no command to submit; allowed after --: compare, estimate"),
    ("submit", "-- submit -- run", "'submit' is no command to submit"),
    ("submit", "", "nothing is no command to submit"),
    ("submit", "-- run", "--working-dir '.': is no checkout of samba-coe"),
    ("fetch", "none", "Request failed with status code 404: Job none does not exist"),
    ("fetch", "../../api", "job '../../api': no name of a job"),
    ("fetch", "none --output /dev/null/x", "--output '/dev/null/x': cannot be made"),
    (
        "fetch",
        "none --address http://127.0.0.1:1",
        "--address 'http://127.0.0.1:1': Failed to connect to Ray",
    ),
    (
        "fetch",
        "none --address 127.0.0.1:8265",
        "--address '127.0.0.1:8265': must be a dashboard's address",
    ),
    ("fetch", "none --address ray://127.0.0.1:8265", "must be a dashboard's address, for example"),
]


@pytest.mark.parametrize(("command", "line", "message"), WRONG)
def test_a_mistake_is_one_line(command: str, line: str, message: str, coe: Coe, tmp_path: Path) -> None:
    said = coe(command, line)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.startswith("coe: error: ") and said.stderr.count("\n") == 1 and message in said.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_name_may_be_had_once(coe: Coe) -> None:
    for code in (0, 2):
        said = coe("submit", "--installed --name once -- machines")
        assert said.returncode == code
    assert "Job with submission_id once already exists" in said.stderr and said.stderr.count("\n") == 1


@pytest.mark.parametrize("token", ["f" * 64, ""])
def test_who_has_not_the_token_is_told(token: str, cluster: Head, tmp_path: Path) -> None:
    environment = {**cluster.environment, "RAY_AUTH_TOKEN": token}
    if not token:
        del environment["RAY_AUTH_TOKEN"]
    stranger = Head(cluster.address, environment, cluster.folder)
    said = stranger.said(COMMAND, "fetch", "--address", cluster.address, "plain", at=tmp_path)
    assert said.returncode == 2 and said.stderr.count("\n") == 1, said.stderr
    assert said.stderr.startswith(f"coe: error: --address '{cluster.address}': ") and "oken" in said.stderr


def test_the_address_may_come_from_the_environment(cluster: Head, tmp_path: Path) -> None:
    environment = {**cluster.environment, "RAY_API_SERVER_ADDRESS": cluster.address, "RAY_ADDRESS": "127.0.0.1:1"}
    said = Head(cluster.address, environment, cluster.folder).said(COMMAND, "fetch", "none", at=tmp_path)
    assert said.returncode == 2 and f"RAY_API_SERVER_ADDRESS '{cluster.address}': Request failed" in said.stderr
    dashboard = {**cluster.environment, "RAY_ADDRESS": cluster.address}
    said = Head(cluster.address, dashboard, cluster.folder).said(COMMAND, "run", at=tmp_path)
    assert said.returncode == 2 and f"RAY_ADDRESS '{cluster.address}': is a dashboard's; allowed" in said.stderr


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InputError("the results are not whole")])
def test_a_fetch_that_is_interrupted_leaves_nothing(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(_jobs: object, _job: str, _source: object, target: Path) -> None:
        (target / "summary.json").write_text("{")
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cluster.cli_jobs.ClusterJobs", lambda _address: None)
    monkeypatch.setattr("cluster.cli_jobs.results_of", lambda _jobs, _job: PurePosixPath("/there/a"))
    monkeypatch.setattr("cluster.cli_jobs.fetch", half)
    monkeypatch.setattr("sys.argv", ["coe", "fetch", "job"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == (130 if isinstance(error, KeyboardInterrupt) else 2)
    assert [path.name for path in tmp_path.rglob("*")] == ["runs"]

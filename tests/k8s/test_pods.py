"""Are pods as closed, as large and as many as they should be, and is what they refer to there?"""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import click
import pytest
from ray.scripts.scripts import start as ray_start

from cluster import __version__
from cluster.cli_serve import run as coe_run
from cluster.config import Config
from cluster.config_file import read_config
from cluster.runner import prepare
from tests.k8s.dockerfile import of, pins, stages
from tests.k8s.manifests import (
    KUSTOMIZATIONS,
    NEEDS_KUBECTL,
    OVERLAYS,
    ROOT,
    Manifest,
    Pods,
    cluster_spec,
    of_kind,
    pods,
    rendered,
)

pytestmark = NEEDS_KUBECTL
UNITS = {"m": 1e-3, "": 1, "Mi": 2**20, "Gi": 2**30}
EVERY = [(name, one) for name in KUSTOMIZATIONS for one in pods(rendered(name))] if not NEEDS_KUBECTL.args[0] else []
RAY = [(name, one) for name, one in EVERY if one.start is not None]


def each(found: list[tuple[str, Pods]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("pod", [pytest.param(one, id=f"{name}-{one.component}") for name, one in found])


def quantity(text: str) -> float:
    """A quantity of Kubernetes."""
    number = text.rstrip("mMGi")
    return float(number) * UNITS[text.removeprefix(number)]


@each(EVERY)
def test_a_pod_may_do_nothing_that_it_need_not(pod: Pods) -> None:
    _, final = stages()
    user, group = map(int, of("USER", final)[0].split(":"))
    assert pod.spec["automountServiceAccountToken"] is False
    of_pod = pod.spec["securityContext"]
    assert {name: of_pod[name] for name in ("runAsNonRoot", "runAsUser", "runAsGroup", "seccompProfile")} == {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": group,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert pod.container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.spec.keys()


@each(EVERY)
def test_a_pod_gets_what_it_may_use(pod: Pods) -> None:
    resources = pod.container["resources"]
    assert resources["requests"] == resources["limits"]
    assert {"cpu", "memory"} <= resources["limits"].keys()


@each(EVERY)
def test_a_pod_has_the_one_image(pod: Pods) -> None:
    assert pod.container["image"] == f"samba-coe:{__version__}"


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_a_users_kustomization_changes_the_image_of_all(name: str, tmp_path: Path) -> None:
    for folder in ("k8s", "dashboards"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "k8s/mine").mkdir()
    lines = ["resources:", f"  - ../{name}", "images:", "  - name: samba-coe", "    newName: registry.example/coe"]
    (tmp_path / "k8s/mine/kustomization.yaml").write_text("\n".join(lines))
    images = {pod.container["image"] for pod in pods(rendered("mine", tmp_path))}
    assert images == {f"registry.example/coe:{__version__}"}


@each(EVERY)
def test_a_pod_mounts_its_volumes_and_no_others(pod: Pods) -> None:
    mounts = {mount["name"]: mount["mountPath"] for mount in pod.container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
    assert mounts.keys() == volumes.keys() and len(set(mounts.values())) == len(mounts)
    assert ("/results" in mounts.values()) == (pod.component in ("head", "reader"))
    assert not [volume for volume in volumes.values() if "hostPath" in volume]


@each(RAY)
def test_ray_has_room_for_what_it_writes(pod: Pods) -> None:
    limits = {name: quantity(text) for name, text in pod.container["resources"]["limits"].items()}
    at = {mount["mountPath"]: mount["name"] for mount in pod.container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
    shm, tmp = (volumes[at[path]]["emptyDir"] for path in ("/dev/shm", "/tmp"))
    assert shm["medium"] == "Memory" and "medium" not in tmp
    assert pod.start is not None
    assert int(pod.start["object-store-memory"]) < 0.95 * quantity(shm["sizeLimit"])
    sockets = json.loads(parsed(pod).params["resources"]).get("socket", 0)
    assert limits["memory"] > 300 * 2**20 + sockets * 200 * 2**20 + quantity(shm["sizeLimit"])  # as was measured
    assert quantity(tmp["sizeLimit"]) < limits["ephemeral-storage"]
    assert {"name": "HOME", "value": "/tmp"} in pod.container["env"]


@each(RAY)
def test_ray_is_asked_whether_it_is_well(pod: Pods) -> None:
    options = parsed(pod).params
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = pod.container[name]
        assert probe["httpGet"] == {"path": "/api/healthz", "port": "agent"}
        assert probe["timeoutSeconds"] <= probe["periodSeconds"]
    assert pod.ports["agent"] == options["dashboard_agent_listen_port"]
    ready, alive = (
        pod.container[name]["periodSeconds"] * pod.container[name]["failureThreshold"]
        for name in ("readinessProbe", "livenessProbe")
    )
    assert ready < alive


def parsed(pod: Pods) -> click.Context:
    """What ``ray start`` makes of the options of a pod, with those that KubeRay adds."""
    added = ["--block", "--metrics-export-port=8080", "--dashboard-agent-listen-port=52365"]
    where = ["--head"] if pod.component == "head" else ["--address=head:6379"]
    return ray_start.make_context("start", [*where, *added, *pod.options])


@each(RAY)
def test_ray_start_takes_the_options_and_listens_on_the_ports_that_are_declared(pod: Pods) -> None:
    options = parsed(pod).params
    ports = {
        "node-manager": options["node_manager_port"],
        "object-manager": options["object_manager_port"],
        "agent-grpc": options["dashboard_agent_grpc_port"],
        "agent": options["dashboard_agent_listen_port"],
        "metrics": options["metrics_export_port"],
    }
    if pod.component == "head":
        ports |= {"gcs-server": 6379, "dashboard": options["dashboard_port"], "coe-metrics": 9464}
        assert options["dashboard_host"] == "0.0.0.0" and options["num_cpus"] == 0
    alone = json.loads(options["resources"]) == {"socket": 1}
    assert pod.ports == ports | ({"coe-metrics": 9464} if alone else {})
    assert options["min_worker_port"] + 99 == options["max_worker_port"]


# Overlays


def offered(manifests: list[Manifest]) -> list[int]:
    """Sockets by pod of the workers."""
    workers = [pod for pod in pods(manifests) if pod.start is not None and pod.component == "sockets"]
    return [json.loads(parsed(pod).params["resources"])["socket"] for pod in workers for _ in range(pod.replicas)]


def config_of(manifests: list[Manifest], folder: Path) -> Config:
    """The config of ``run.toml`` as it is mounted."""
    (mounted,) = of_kind("ConfigMap", [one for one in manifests if one["metadata"]["name"] == "samba-coe-run"])
    assert list(mounted["data"]) == ["run.toml"] and "labels" not in mounted["metadata"]
    (folder / "run.toml").write_text(mounted["data"]["run.toml"])
    return read_config(folder / "run.toml", [])


@pytest.mark.parametrize(
    ("name", "sockets"),
    [
        ("overlays/single-node", [8]),
        ("overlays/socket-per-pod", [1] * 8),
        ("overlays/multi-node", [8] * 4),
        ("overlays/job", [8]),
    ],
)
def test_the_sockets_of_the_run_have_a_place_each(name: str, sockets: list[int], tmp_path: Path) -> None:
    assert offered(rendered(name)) == sockets
    config = config_of(rendered(name), tmp_path)
    deployment, workload = prepare(config)
    assert config.cluster.address == "auto" and len(workload.requests) >= 1000
    assert config.routing.nodes * deployment.machine.sockets == sum(sockets)


def test_all_overlays_are_tested_for_their_sockets() -> None:
    assert sorted(f"overlays/{name}" for name in ("job", "multi-node", "single-node", "socket-per-pod")) == OVERLAYS


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_is_referred_to_is_there_and_in_use(name: str) -> None:
    manifests, claims, maps = rendered(name), set[str](), set[str]()
    for pod in pods(manifests):
        for volume in pod.spec["volumes"]:
            claims |= {volume["persistentVolumeClaim"]["claimName"]} if "persistentVolumeClaim" in volume else set()
            maps |= {volume["configMap"]["name"]} if "configMap" in volume else set()
    there = [
        one for one in of_kind("ConfigMap", manifests) if "grafana_dashboard" not in one["metadata"].get("labels", {})
    ]
    assert {one["metadata"]["name"] for one in there} == maps == {"samba-coe-run"}
    assert {one["metadata"]["name"] for one in of_kind("PersistentVolumeClaim", manifests)} == claims
    for kind in ("PodMonitor", "PrometheusRule"):
        assert len(of_kind(kind, manifests)) == 1


@pytest.mark.parametrize("name", OVERLAYS)
def test_ray_is_of_one_version_and_wants_a_token(name: str) -> None:
    (cluster,) = (one for one in rendered(name) if one["kind"] in ("RayCluster", "RayJob"))
    assert cluster_spec(cluster)["rayVersion"] == pins("requirements-image.lock")["ray"]
    assert cluster_spec(cluster)["authOptions"] == {"mode": "token"}


def test_sockets_by_themselves_are_spread_over_hosts() -> None:
    (workers,) = (pod for pod in pods(rendered("overlays/socket-per-pod")) if pod.component == "sockets")
    (spread,) = workers.spec["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["maxSkew"]) == ("kubernetes.io/hostname", 1)
    assert spread["labelSelector"] == {"matchLabels": workers.labels}


def test_the_job_is_the_single_node() -> None:
    (cluster,) = of_kind("RayCluster", rendered("overlays/single-node"))
    (job,) = of_kind("RayJob", rendered("overlays/job"))
    assert job["spec"]["rayClusterSpec"] == cluster["spec"]
    assert not of_kind("RayCluster", rendered("overlays/job"))


def test_the_job_runs_a_command_that_there_is_where_results_are_kept() -> None:
    manifests = rendered("overlays/job")
    (job,) = of_kind("RayJob", manifests)
    (head,) = (pod for pod in pods(manifests) if pod.component == "head")
    mounts = {mount["mountPath"] for mount in head.container["volumeMounts"]}
    environment, where, command, *words = shlex.split(job["spec"]["entrypoint"])
    assert (environment, command, words[0]) == ("env", "coe", "run")
    assert where == "--chdir=/results" and "/results" in mounts
    given = coe_run.make_context("run", words[1:]).params
    assert given["config_file"] == Path("/etc/samba-coe/run.toml") and "/etc/samba-coe" in mounts
    assert given["output"] is None  # a new folder each time
    assert (given["metrics_host"], given["metrics_port"]) == ("0.0.0.0", head.ports["coe-metrics"])
    (monitor,) = of_kind("PodMonitor", manifests)
    (every,) = (one["interval"] for one in monitor["spec"]["podMetricsEndpoints"] if one["port"] == "coe-metrics")
    assert given["linger"] >= 3 * float(every.removesuffix("s"))  # the last numbers are scraped, too


def dashboards(manifests: list[Manifest]) -> list[Manifest]:
    """ConfigMaps that Grafana's sidecar takes."""
    label = {"grafana_dashboard": "1"}
    return [one for one in of_kind("ConfigMap", manifests) if one["metadata"].get("labels") == label]


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_dashboard_is_in_every_overlay(name: str) -> None:
    there = {path.name: path.read_text() for path in (ROOT / "dashboards").glob("*.json")}
    found = dashboards(rendered(name))
    assert all(len(one["data"]) == 1 and len(json.dumps(one)) < 256 << 10 for one in found)
    assert {file: text for one in found for file, text in one["data"].items()} == there


def test_a_dashboard_is_two_lines_in_the_kustomization(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    (tmp_path / "dashboards").mkdir()
    text = (ROOT / "dashboards/kustomization.yaml").read_text()
    example = [line.removeprefix("#") for line in text.splitlines() if line.startswith(("#   - name", "#     files"))]
    listed = "\n".join([text.partition("configMapGenerator:")[0], "configMapGenerator:", *example])
    (tmp_path / "dashboards/kustomization.yaml").write_text(listed)
    (tmp_path / "dashboards/fleet-overview.json").write_text('{"title": "Fleet"}')
    (one,) = dashboards(rendered("overlays/job", tmp_path))
    assert one["metadata"]["name"] == "samba-coe-fleet-overview"
    assert one["data"] == {"fleet-overview.json": '{"title": "Fleet"}'}


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_readme_says_what_an_overlay_takes(name: str) -> None:
    limits = [(pod.replicas, pod.container["resources"]["limits"]) for pod in pods(rendered(name))]
    cpus = sum(replicas * quantity(one["cpu"]) for replicas, one in limits)
    memory = sum(replicas * quantity(one["memory"]) for replicas, one in limits) / 2**30
    (row,) = (line for line in (ROOT / "k8s/README.md").read_text().splitlines() if line.startswith(f"| `{name}` |"))
    assert row.endswith(f"| {cpus:g}, {memory:g} GiB |")

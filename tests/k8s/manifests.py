"""What ``kubectl kustomize`` makes of ``k8s/``, and the pods in it."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

Manifest = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
KUSTOMIZATIONS = [*sorted(f"overlays/{one.name}" for one in (ROOT / "k8s/overlays").iterdir()), "reader"]
OVERLAYS = KUSTOMIZATIONS[:-1]
NEEDS_KUBECTL = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="there is no kubectl (https://kubernetes.io/docs/tasks/tools)"
)


class RenderingError(ValueError):
    """What kustomize says is wrong."""


@cache
def _text(folder: Path) -> str:
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RenderingError(done.stderr)
    return done.stdout


def rendered(name: str, root: Path = ROOT) -> list[Manifest]:
    """The objects of a kustomization of ``k8s/``, new ones at each call."""
    return list(yaml.load_all(_text(root / "k8s" / name), yaml.CSafeLoader))


def named(manifest: Manifest) -> str:
    """How an object is called."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def of_kind(kind: str, manifests: Iterable[Manifest]) -> list[Manifest]:
    """Those of a kind."""
    return [one for one in manifests if one["kind"] == kind]


@dataclass(frozen=True)
class Pods:
    """``replicas`` pods of a template; ``start``: what ``ray start`` is given in them, None where it is not run."""

    template: Manifest
    replicas: int = 1
    start: dict[str, str] | None = None

    @property
    def labels(self) -> dict[str, str]:
        """Theirs."""
        return dict(self.template["metadata"]["labels"])

    @property
    def component(self) -> str:
        """What they are."""
        return self.labels["app.kubernetes.io/component"]

    @property
    def spec(self) -> Manifest:
        """Theirs."""
        return dict(self.template["spec"])

    @property
    def container(self) -> Manifest:
        """The one that they have."""
        (container,) = self.spec["containers"]
        assert "initContainers" not in self.spec
        return dict(container)

    @property
    def ports(self) -> dict[str, int]:
        """By name."""
        return {port["name"]: port["containerPort"] for port in self.container.get("ports", [])}

    @property
    def options(self) -> list[str]:
        """``start`` as KubeRay writes it into a line of bash, and as that then reads it."""
        return shlex.split(" ".join(f"--{name}={value}" for name, value in (self.start or {}).items()))


def pods(manifests: Iterable[Manifest]) -> Iterator[Pods]:
    """All that there are."""
    for one in manifests:
        if one["kind"] == "Pod":
            yield Pods(one)
        if one["kind"] == "RayJob":
            yield Pods(one["spec"]["submitterPodTemplate"])
        if one["kind"] in ("RayCluster", "RayJob"):
            spec = cluster_spec(one)
            yield Pods(spec["headGroupSpec"]["template"], 1, spec["headGroupSpec"]["rayStartParams"])
            for group in spec["workerGroupSpecs"]:
                yield Pods(group["template"], group["replicas"], group["rayStartParams"])


def cluster_spec(manifest: Manifest) -> Manifest:
    """The Ray cluster of a RayCluster, or of a RayJob."""
    spec: Manifest = manifest["spec"]
    return spec["rayClusterSpec"] if manifest["kind"] == "RayJob" else spec


def selected(selector: Manifest, labels: dict[str, str]) -> bool:
    """Whether a label selector takes what has these labels."""
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()

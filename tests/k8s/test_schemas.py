"""Would Kubernetes, KubeRay and Prometheus' operator take the manifests as they are, and would a typo be found?"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.k8s.manifests import KUSTOMIZATIONS, NEEDS_KUBECTL, OVERLAYS, ROOT, Manifest, RenderingError, named, rendered
from tests.k8s.schemas import NEEDS_CRDS, refusals

pytestmark = [NEEDS_KUBECTL, NEEDS_CRDS]
FREE = {"labels", "annotations", "matchLabels", "rayStartParams", "data", "requests", "limits"}  # maps of any keys
Place = tuple[str | int, ...]


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_what_is_rendered_is_taken(name: str) -> None:
    assert [(named(one), refusals(one)) for one in rendered(name) if refusals(one)] == []


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Of everything in an object, by keys and numbers."""
    if place:
        yield place
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(part, (*place, key))


def altered(manifest: Manifest, place: Place) -> Iterator[tuple[str, Manifest]]:
    """The object with the key at ``place`` misspelt, and with something of the wrong kind there."""
    *way, key = place
    for what in ("misspelt", "of the wrong kind"):
        new = copy.deepcopy(manifest)
        parent: Any = new
        for step in way:
            parent = parent[step]
        if what == "of the wrong kind":
            parent[key] = {} if isinstance(parent[key], list) else []
        elif isinstance(key, str) and not (way and way[-1] in FREE):
            parent[f"{key}z"] = parent.pop(key)
        else:
            continue
        yield what, new


def test_whatever_is_misspelt_or_of_the_wrong_kind_is_refused() -> None:
    taken, tried = [], set[tuple[str, ...]]()
    for manifest in [one for name in ("overlays/socket-per-pod", "overlays/job", "reader") for one in rendered(name)]:
        for place in places(manifest):
            alike = (manifest["kind"], *(key for key in place if isinstance(key, str)))
            if place[0] in ("apiVersion", "kind") or "rayClusterSpec" in place[:-1] or alike in tried:
                continue  # a list's items are alike, and so are the two kinds that have a Ray cluster
            tried.add(alike)
            taken += [(named(manifest), what, place) for what, wrong in altered(manifest, place) if not refusals(wrong)]
    assert len(tried) > 200
    assert taken == []


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("RayCluster", ("spec", "headGroupSpec", "template")),
        ("RayCluster", ("spec", "workerGroupSpecs", 0, "groupName")),
        ("RayCluster", ("spec", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "name")),
        ("PodMonitor", ("spec", "selector")),
        ("PrometheusRule", ("spec", "groups", 0, "name")),
        ("NetworkPolicy", ("metadata",)),
    ],
)
def test_what_must_be_there_is_missed(kind: str, place: Place) -> None:
    manifest = next(one for one in rendered("overlays/single-node") if one["kind"] == kind)
    parent: Any = manifest
    for step in place[:-1]:
        parent = parent[step]
    del parent[place[-1]]
    assert refusals(manifest)


def test_what_is_there_twice_is_refused() -> None:
    (manifest,) = (one for one in rendered("overlays/single-node") if one["kind"] == "RayCluster")
    container = manifest["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    container["env"].append(container["env"][0])
    assert [one for one in refusals(manifest) if "twice" in one]


@pytest.mark.parametrize(
    ("file", "right", "typo"),
    [
        ("base/raycluster.yaml", "readOnlyRootFilesystem", "readOnlyRootFileSystem"),
        ("base/raycluster.yaml", "rayStartParams", "rayStartParam"),
        ("base/raycluster.yaml", "mode: token", "mode: tokens"),
        ("base/raycluster.yaml", 'num-cpus: "0"', "num-cpus: 0"),
        ("base/raycluster.yaml", 'cpu: "2"', "cpu: 2 cores"),
        ("base/networkpolicy.yaml", "podSelector", "podSelectors"),
        ("base/networkpolicy.yaml", "endPort", "endport"),
        ("base/podmonitor.yaml", "interval: 15s", "interval: 15 s"),
        ("base/results.yaml", "accessModes", "accessMode"),
        ("rules/prometheus-rules.yaml", "expr", "expression"),
    ],
)
def test_a_typo_in_a_file_is_found_in_every_overlay(tmp_path: Path, file: str, right: str, typo: str) -> None:
    for folder in ("k8s", "dashboards"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    path = tmp_path / "k8s" / file
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, typo, 1))
    for name in OVERLAYS:
        assert any(refusals(one) for one in rendered(name, tmp_path)), name


@pytest.mark.parametrize(
    ("file", "right", "typo"),
    [
        (
            "overlays/multi-node/kustomization.yaml",
            "/spec/workerGroupSpecs/0/replicas",
            "/spec/workerGroupSpec/0/replicas",
        ),
        ("overlays/job/kustomization.yaml", "fieldPath: spec", "fieldPath: specs"),
        ("overlays/job/kustomization.yaml", "rayjob.yaml", "ray-job.yaml"),
        ("overlays/multi-node/kustomization.yaml", "behavior: replace", "behaviour: replace"),
        ("base/kustomization.yaml", "configMapGenerator", "configMapsGenerator"),
    ],
)
def test_a_typo_in_a_kustomization_is_not_rendered(tmp_path: Path, file: str, right: str, typo: str) -> None:
    for folder in ("k8s", "dashboards"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    path = tmp_path / "k8s" / file
    assert right in path.read_text()
    path.write_text(path.read_text().replace(right, typo, 1))
    with pytest.raises(RenderingError):
        for name in OVERLAYS:
            rendered(name, tmp_path)

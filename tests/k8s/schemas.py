"""What an API server would refuse, and what it would drop without a word: unknown fields."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from tests.k8s.manifests import Manifest

CRDS = Path(__file__).resolve().parents[3] / "shared/crds"
NEEDS_CRDS = pytest.mark.skipif(not CRDS.exists(), reason=f"the schemas of KubeRay are not there: {CRDS}")
CUSTOM = ("ray.io/", "monitoring.coreos.com/")
KUBERNETES = ("1.30", "1.37")  # the oldest that is meant, and the newest whose schemas are known
KEYS, KEEPS = "x-kubernetes-list-map-keys", "x-kubernetes-preserve-unknown-fields"


def refusals(manifest: Manifest) -> list[str]:
    """Why an object is not taken as it is: a place and a reason each."""
    metadata = manifest.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        return ["metadata.name: there is none"]
    if not manifest["apiVersion"].startswith(CUSTOM):
        return _of_kubernetes(manifest)
    found = list(_validator(manifest["apiVersion"], manifest["kind"]).iter_errors(manifest))
    borne = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}  # custom resources do not say what is in it
    return [_told(error) for error in found] + _of_kubernetes(borne)


def _of_kubernetes(manifest: Manifest) -> list[str]:
    found = []
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(_told(error))
        except kubernetes_validate.SchemaNotFoundError as error:
            found.append(error.message)
    return found


def _told(error: ValidationError) -> str:
    return f"{'.'.join(map(str, error.absolute_path))}: {error.message}"


@cache
def _validator(api_version: str, kind: str) -> Any:
    """For a custom resource: its definition's schema, what it does not know forbidden, keys of lists single."""
    group, version = api_version.split("/")
    definition = yaml.load((CRDS / f"{group}_{kind.lower()}s.yaml").read_text(), yaml.CSafeLoader)
    (of_version,) = (one for one in definition["spec"]["versions"] if one["name"] == version and one["served"])
    schema = _strict(of_version["schema"]["openAPIV3Schema"])
    schema["properties"] |= {"apiVersion": {"const": api_version}, "kind": {"const": kind}, "metadata": {}}
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    return extend(Draft202012Validator, {KEYS: _single})(schema)


def _strict(schema: Manifest) -> Manifest:
    found = dict(schema)
    if "items" in schema:
        found["items"] = _strict(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        found["additionalProperties"] = _strict(schema["additionalProperties"])
    elif schema.get("type") == "object" and not schema.get(KEEPS):
        found["additionalProperties"] = False
        found["properties"] = {name: _strict(one) for name, one in schema.get("properties", {}).items()}
    return found


def _single(_validator: Any, keys: Sequence[str], items: Any, _schema: Any) -> Iterator[ValidationError]:
    """The keyword ``x-kubernetes-list-map-keys``: no two items are the same in all of them."""
    if isinstance(items, list):
        seen = [tuple(item.get(key) for key in keys) for item in items if isinstance(item, dict)]
        for one in {one for one in seen if seen.count(one) > 1}:
            yield ValidationError(f"twice in a list: {one}")

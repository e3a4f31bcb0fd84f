"""Is the Dockerfile what an image should be made of, and does it say of what?"""

from __future__ import annotations

import fnmatch
import re

from tests.k8s.dockerfile import of, pins, stages
from tests.k8s.manifests import ROOT


def test_both_stages_are_on_one_base_that_can_be_pinned() -> None:
    assert [of("FROM", stage) for stage in stages()] == [["${PYTHON} AS build"], ["${PYTHON}"]]
    text = (ROOT / "Dockerfile").read_text()
    assert re.findall(r"(?m)^ARG PYTHON=(\S+)$", text) == ["python:3.11-slim-bookworm"]


def test_nothing_is_fetched_but_what_the_lock_names() -> None:
    build, final = stages()
    assert not of("ADD", build) and not of("ADD", final)
    installs = [
        line for stage in (build, final) for line in of("RUN", stage) if re.search("install|curl|wget|apt", line)
    ]
    assert len(installs) == 2
    assert installs[0].endswith(" -r requirements-image.lock") and installs[1].endswith(" --no-deps .")


def test_what_is_copied_is_there_and_not_ignored() -> None:
    build, final = stages()
    wanted, *kept = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    sources = {line.split()[0] for line in of("COPY", build)} | set(of("COPY", build)[1].split()[:-1])
    assert wanted == "*"
    assert {line.removeprefix("!") for line in kept if line.startswith("!")} == sources
    assert all((ROOT / source).exists() for source in sources)
    assert of("COPY", final) == ["--from=build /opt/venv /opt/venv"]


def test_the_image_is_nobodys_who_matters() -> None:
    _, final = stages()
    names = [one.name for one in final]
    (user,) = of("USER", final)
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)
    assert not {"RUN", "COPY"} & set(names[names.index("USER") :])


def test_all_locks_have_the_same_pins() -> None:
    plain, image, dev = (pins(f"requirements{which}.lock") for which in ("", "-image", "-dev"))
    assert plain.items() <= image.items() and plain.items() <= dev.items()
    assert {"aiohttp", "prometheus-client"} <= image.keys()  # of ray[default]
    assert not fnmatch.filter(image, "pytest*")

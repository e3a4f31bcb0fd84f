"""The Dockerfile, as instructions by stage."""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.k8s.manifests import ROOT


class Instruction(NamedTuple):
    """A line such as ``COPY node node``; continued lines are one."""

    name: str
    rest: str


def stages() -> list[list[Instruction]]:
    """Instructions of each stage, from its FROM on; those before the first are left out."""
    found: list[list[Instruction]] = []
    for line in re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", (ROOT / "Dockerfile").read_text())).splitlines():
        name, _, rest = line.partition(" ")
        if name == "FROM":
            found.append([])
        if name and found:
            found[-1].append(Instruction(name, " ".join(rest.split())))
    return found


def of(name: str, stage: list[Instruction]) -> list[str]:
    """What the instructions of a name say."""
    return [one.rest for one in stage if one.name == name]


def pins(lock: str) -> dict[str, str]:
    """The versions of a lock file."""
    return dict(re.findall(r"(?m)^([a-z0-9-]+)(?:\[[a-z,]*\])?==(\S+)", (ROOT / lock).read_text()))

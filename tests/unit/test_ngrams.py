"""Are n-grams of a prompt the same everywhere?"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cluster.routing.ngrams import DIMENSIONS, MOST_CHARACTERS, ngrams, shortened

ROOT = Path(__file__).parents[2]
CHOOSE = """
from cluster.routing.ngrams import ngrams
from cluster.routing.router import fit
import hashlib
router = fit({"tea": ["un café crème", "green tea"], "code": ["sort a list", "日本語"]}, None)
print(hashlib.sha256(ngrams(["Straße, 日本語, x = a[0]"]).tobytes()).hexdigest(), router.route("café, sorted 日本"))
"""


def test_every_process_finds_the_same_whatever_its_hash_seed() -> None:
    def said(seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [sys.executable, "-c", CHOOSE], env=environment, capture_output=True, text=True, check=True
        ).stdout

    here = hashlib.sha256(ngrams(["Straße, 日本語, x = a[0]"]).tobytes()).hexdigest()
    assert said("1") == said("2") and said("1").startswith(here)


def test_rows_have_length_one_or_are_zeros() -> None:
    rows = ngrams(["tomato soup", "", " \n", "a", "?!"])
    assert rows.shape == (5, DIMENSIONS) and rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 0, 0, 1, 1])
    assert ngrams([]).shape == (0, DIMENSIONS)


def test_a_word_and_its_characters_count_and_their_order_in_the_prompt_does_not() -> None:
    rows = ngrams(["cat", "dog cat", "cat dog", "cats", "dog"])
    like = rows @ rows.T
    assert like[1, 2] == pytest.approx(1) and like[0, 4] == 0
    assert 0 < like[0, 3] < like[0, 1] < 1
    assert np.count_nonzero(rows[0]) == 1 + 3 + 2 + 1  # the word; " ca" "cat" "at "; " cat" "cat "; " cat "


def test_of_a_long_prompt_both_ends_are_kept() -> None:
    half = MOST_CHARACTERS // 2
    assert shortened("x" * MOST_CHARACTERS, MOST_CHARACTERS) == "x" * MOST_CHARACTERS
    assert shortened("a" * half + "b" + "c" * half, MOST_CHARACTERS) == "a" * half + " " + "c" * half

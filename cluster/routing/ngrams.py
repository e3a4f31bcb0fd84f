"""A prompt as hashed n-grams of words and characters: needs no model, the same in every process."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

DIMENSIONS = 1 << 14
CHARACTERS = (3, 4, 5)  # of a word with a blank on either side
MOST_CHARACTERS = 4000  # of a longer prompt the beginning and the end are read: there it says what is wanted
_PIECES = re.compile(r"\w+|[^\w\s]+")


def ngrams(prompts: Sequence[str]) -> npt.NDArray[np.float32]:
    """A row per prompt, of length 1: log(1 + count) of each hashed n-gram; zeros for a prompt of blanks."""
    rows = np.zeros((len(prompts), DIMENSIONS), np.float32)
    for row, prompt in zip(rows, prompts, strict=True):
        for gram, count in Counter(_grams(shortened(prompt, MOST_CHARACTERS))).items():
            row[zlib.crc32(gram.encode("utf-8", "surrogatepass")) % DIMENSIONS] += count
    np.log1p(rows, out=rows)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(lengths > 0, lengths, 1)
    return rows


def shortened(prompt: str, most: int) -> str:
    """The prompt, or the beginning and the end of one that is longer than ``most`` characters."""
    return prompt if len(prompt) <= most else f"{prompt[: most // 2]} {prompt[-(most // 2) :]}"


def _grams(text: str) -> Iterator[str]:
    for word in _PIECES.findall(unicodedata.normalize("NFKC", text).casefold()):
        yield f"w{word}"
        padded = f" {word} "
        for size in CHARACTERS:
            for start in range(len(padded) - size + 1):
                yield f"c{padded[start : start + size]}"

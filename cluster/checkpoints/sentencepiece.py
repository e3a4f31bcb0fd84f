"""The merges of a SentencePiece BPE, which keeps none: any two words that make a third, the best of these first."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def merges_of(words: Sequence[str], scores: Sequence[float], whole: Collection[str] = ()) -> list[tuple[str, str]]:
    """Pairs of words by falling score of what they make, then by where they stand in the vocabulary.

    What is ``whole``, a control token, no words make: a text that spells it is not it.
    """
    number = {word: at for at, word in enumerate(words)}
    found = []
    for at, word in enumerate(words):
        if word in whole:
            continue
        pairs = ((word[:cut], word[cut:]) for cut in range(1, len(word)))
        known = [pair for pair in pairs if pair[0] in number and pair[1] in number]
        found += [(-scores[at], at, number[left], number[right], left, right) for left, right in known]
    return [(left, right) for *_, left, right in sorted(found)]

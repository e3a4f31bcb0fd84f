"""WordPiece of BERT, uncased: text to the tokens of a vocabulary, the longest piece first.

After Devlin et al., "BERT" (NAACL 2019), and its published tokenizer.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping

LONGEST_WORD = 100  # a longer one is unknown, as published
_CJK = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2CEAF), (0x2F800, 0x2FA1F))


def tokenize(text: str, vocabulary: Mapping[str, int]) -> list[int]:
    """The tokens of a text, without [CLS] and [SEP]."""
    return [token for word in _words(text) for token in _pieces(word, vocabulary)]


def _words(text: str) -> Iterator[str]:
    spaced = "".join(_spaced(character) for character in text)
    plain = unicodedata.normalize("NFD", spaced.lower())
    word = ""
    for character in f"{plain} ":
        category = unicodedata.category(character)
        if category == "Mn":
            continue
        alone = _punctuation(character, category)
        if alone or character.isspace():
            if word:
                yield word
            word = ""
        if alone:
            yield character
        elif not character.isspace():
            word += character


def _spaced(character: str) -> str:
    """A CJK character is a word; control characters are dropped, blanks made equal."""
    if character.isspace():
        return " "
    if character in "\0\ufffd" or unicodedata.category(character) in ("Cc", "Cf", "Cn", "Co", "Cs"):
        return ""
    return f" {character} " if any(low <= ord(character) <= high for low, high in _CJK) else character


def _punctuation(character: str, category: str) -> bool:
    """All of ASCII that is no letter, digit or blank, and what Unicode calls punctuation."""
    return category.startswith("P") or (character.isascii() and character.isprintable() and not character.isalnum()
                                        and not character.isspace())  # fmt: skip


def _pieces(word: str, vocabulary: Mapping[str, int]) -> list[int]:
    unknown, found, start = vocabulary["[UNK]"], [], 0
    if len(word) > LONGEST_WORD:
        return [unknown]
    while start < len(word):
        for end in range(len(word), start, -1):
            token = vocabulary.get(("##" if start else "") + word[start:end])
            if token is not None:
                found.append(token)
                start = end
                break
        else:
            return [unknown]
    return found

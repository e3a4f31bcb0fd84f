"""Text to tokens and back, by the model's own vocabulary; a chat's messages by its own template."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import tokenizers
from tokenizers.decoders import DecodeStream

from cluster.checkpoints.chat_template import ChatTemplate, Message
from node.errors import InputError

# these end a text or a turn in whatever model has them, as llama.cpp has it
END_WORDS = ("<|endoftext|>", "<|im_end|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "</s>")


def end_words(vocabulary: tokenizers.Tokenizer) -> set[int]:
    """The tokens of ``END_WORDS`` that the vocabulary has."""
    found = (vocabulary.token_to_id(word) for word in END_WORDS)
    return {number for number in found if number is not None}


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """``vocabulary`` knows the tokens; ``ends``: those that end a text; ``where`` it is from, for errors."""

    where: str
    vocabulary: tokenizers.Tokenizer = field(repr=False)
    ends: frozenset[int]
    template: ChatTemplate | None

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """A plain text, between the tokens that the model wants around one.

        What spells a special token (end of text, of turn) is text like any other, or, with ``special``, that token.
        """
        return self._ids(text, special=special, around=True)

    def chat(self, messages: Sequence[Message]) -> str:
        """The text of ``messages`` up to where the answer begins; raises ``InputError``."""
        if self.template is None:
            raise InputError(f"{self.where}: has no chat template; give it plain text")
        return self.template.render(messages)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of ``messages``; the template has written those that begin a text. Raises ``InputError``.

        Special tokens are the template's alone: a content that spells one must not end its turn and begin another.
        """
        added = self.vocabulary.get_added_tokens_decoder()
        special = {number: token.content for number, token in added.items() if token.special}
        contents = "".join(message["content"] for message in messages)
        spelled = sorted((word for word in special.values() if word in contents), key=len, reverse=True)
        if not spelled:
            return self._ids(self.chat(messages), special=True, around=False)
        aside = dict(zip(spelled, _unused(contents), strict=False))  # stand in for them while the template is at work
        hidden = [{**message, "content": _replaced(message["content"], aside)} for message in messages]
        text, shown = self.chat(hidden), {stand_in: word for word, stand_in in aside.items()}
        self.vocabulary.encode_special_tokens = False
        found = self.vocabulary.encode(text, add_special_tokens=False)
        tokens, at = [], 0
        for number, (start, end) in zip(found.ids, found.offsets, strict=True):
            if special.get(number) == text[start:end].strip():
                tokens += [*self._ids(_replaced(text[at:start], shown), special=False, around=False), number]
                at = end
        return tokens + self._ids(_replaced(text[at:], shown), special=False, around=False)

    def _ids(self, text: str, *, special: bool, around: bool) -> list[int]:
        self.vocabulary.encode_special_tokens = not special
        return list(self.vocabulary.encode(text, add_special_tokens=around).ids)

    def decode(self, tokens: Iterable[int], *, special: bool = False) -> str:
        """The text of ``tokens``; with the ``special`` ones (end of text, of turn) or without."""
        return self.vocabulary.decode(list(tokens), skip_special_tokens=not special)

    def stream(self) -> Stream:
        """A decoder of tokens as they come."""
        return Stream(self.vocabulary)


def _unused(text: str) -> Iterator[str]:
    """Characters for private use that are not in ``text``."""
    return (character for character in map(chr, range(0xF0000, 0x110000)) if character not in text)


def _replaced(text: str, by: Mapping[str, str]) -> str:
    for word, other in by.items():
        text = text.replace(word, other)
    return text


class Stream:
    """Decodes token by token; the bytes of a character are held back until it is whole."""

    def __init__(self, vocabulary: tokenizers.Tokenizer) -> None:
        self._vocabulary = vocabulary
        self._decoder = DecodeStream(skip_special_tokens=True)

    def push(self, token: int) -> str:
        """The text that ``token`` adds, or nothing where it ends amid a character."""
        return self._decoder.step(self._vocabulary, token) or ""

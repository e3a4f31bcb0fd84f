"""Text to tokens and back, by the model's own vocabulary; a chat's messages by its own template."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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

    def encode(self, text: str) -> list[int]:
        """A plain text, between the tokens that the model wants around one."""
        return list(self.vocabulary.encode(text).ids)

    def chat(self, messages: Sequence[Message]) -> str:
        """The text of ``messages`` up to where the answer begins; raises ``InputError``."""
        if self.template is None:
            raise InputError(f"{self.where}: has no chat template; give it plain text")
        return self.template.render(messages)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of ``messages``; the template has written those that begin a text. Raises ``InputError``."""
        return list(self.vocabulary.encode(self.chat(messages), add_special_tokens=False).ids)

    def decode(self, tokens: Iterable[int], *, special: bool = False) -> str:
        """The text of ``tokens``; with the ``special`` ones (end of text, of turn) or without."""
        return self.vocabulary.decode(list(tokens), skip_special_tokens=not special)

    def stream(self) -> Stream:
        """A decoder of tokens as they come."""
        return Stream(self.vocabulary)


class Stream:
    """Decodes token by token; the bytes of a character are held back until it is whole."""

    def __init__(self, vocabulary: tokenizers.Tokenizer) -> None:
        self._vocabulary = vocabulary
        self._decoder = DecodeStream(skip_special_tokens=True)

    def push(self, token: int) -> str:
        """The text that ``token`` adds, or nothing where it ends amid a character."""
        return self._decoder.step(self._vocabulary, token) or ""

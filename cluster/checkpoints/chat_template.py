"""Chat templates: Jinja as the transformers library runs it, in a sandbox, since they come with the model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from node.errors import InputError

Message = Mapping[str, str]  # role and content


class ChatTemplate:
    """A model's template, read ``where``; ``words``: the texts of its special tokens, ``bos_token`` and the like.

    There is no ``strftime_now``: a prompt must not depend on the day, and templates have a date of their own then.
    """

    def __init__(self, where: str, source: str, words: Mapping[str, str]) -> None:
        self._where, self._words = where, dict(words)
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _as_json
        environment.globals["raise_exception"] = _raise
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise InputError(f"{where}: its chat template cannot be read: {_line(error)}") from None

    def render(self, messages: Sequence[Message]) -> str:
        """The text of ``messages`` up to where the answer begins; raises ``InputError``."""
        given = [dict(message) for message in messages]
        try:
            return self._template.render(messages=given, add_generation_prompt=True, **self._words)
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
            raise InputError(f"{self._where}: its chat template refuses the messages: {_line(error)}") from None


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _as_json(value: object, indent: int | None = None, ensure_ascii: bool = False) -> str:
    """Jinja's own filter would escape what HTML needs escaped."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())

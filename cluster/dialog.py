"""Prompts as users write them to tokens for experts, and answers as they come back to text on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from cluster.checkpoints.catalogue import Composition, NamedExpert, is_checkpoint, read_catalogue
from cluster.checkpoints.checkpoint import Checkpoint
from cluster.checkpoints.load import load_checkpoint
from cluster.checkpoints.tokenizer import Stream, Tokenizer
from cluster.content import Expert
from cluster.generate import Prompt
from cluster.routing.encoders import ENCODERS
from cluster.routing.router import fit
from node.errors import InputError
from node.events import Command, Kind
from node.models.checkpoint import Tensors

Write = Callable[[str], None]


def composition_of(path: Path) -> Composition:
    """A single checkpoint, or a folder or catalogue of them; raises ``InputError``."""
    if is_checkpoint(path):
        return Composition((NamedExpert(path.stem if path.is_file() else path.name, path),))
    if not path.exists():
        raise InputError(f"--experts {str(path)!r}: no such file or folder")
    return read_catalogue(path)


def prompts_of(text: str | None, file: Path | None) -> list[str]:
    """What is asked: ``--prompt``, or the lines of ``--prompts`` that are not empty; raises ``InputError``."""
    if (text is None) == (file is None):
        raise InputError("give either --prompt TEXT or --prompts FILE")
    if text is not None:
        return [text]
    assert file is not None
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"--prompts {str(file)!r}: cannot be read: {reason}") from None
    if not any(lines):
        raise InputError(f"--prompts {str(file)!r}: has no prompt: one in each line")
    return [line for line in lines if line]


def chosen(
    composition: Composition, expert: str | None, texts: Sequence[str], encoder: str = "ngrams"
) -> list[tuple[int, float | None]]:
    """For each text the expert, by number, and how sure the router is; ``expert``: the one that the user named.

    The only expert takes all; of several the router chooses by their example prompts, read by one of ``ENCODERS``.
    Raises ``InputError``.
    """
    names = [one.name for one in composition.experts]
    if expert is not None or len(names) == 1:
        if expert not in (None, *names):
            raise InputError(f"--expert {expert!r}: must be one of {', '.join(names)}")
        return [(0 if expert is None else names.index(expert), None)] * len(texts)
    general = None if composition.general is None else composition.general.name
    router = fit({one.name: one.examples for one in composition.experts}, general, ENCODERS[encoder])
    choices = [router.route(text) for text in texts]
    return [(names.index(choice.expert), choice.confidence) for choice in choices]


def tensors_of(path: Path) -> Tensors:
    """The tensors of a checkpoint, opened in the process that asks."""
    return load_checkpoint(path).tensor


def expert_of(named: NamedExpert, checkpoint: Checkpoint) -> Expert:
    """An expert as the sockets take it."""
    return Expert(named.name, checkpoint.shape, partial(tensors_of, named.path))


def prompt_of(text: str, expert: int, tokenizer: Tokenizer) -> Prompt:
    """A user's message in the model's chat template; plain text for a model that has none."""
    if tokenizer.template is None:
        return Prompt(expert, tuple(tokenizer.encode(text)))
    return Prompt(expert, tuple(tokenizer.encode_chat([{"role": "user", "content": text}])))


class Terminal:
    """What happens as it happens: a single answer as it comes; of several what the sockets are at."""

    def __init__(self, experts: Sequence[str], tokenizers: Sequence[Tokenizer], write: Write) -> None:
        self._experts, self._tokenizers, self._write = experts, tokenizers, write
        self._streams: dict[int, Stream] = {}
        self._resident: set[int] = set()
        self.evictions = 0

    def token(self, prompt: int, token: int) -> None:
        """A token of an answer; ``tokenizers`` are by prompt."""
        if len(self._tokenizers) == 1:
            stream = self._streams.setdefault(prompt, self._tokenizers[prompt].stream())
            self._write(stream.push(token))

    def command(self, command: Command) -> None:
        """A command that is about to be done."""
        if command.symbol >= len(self._experts):
            return
        several, name = len(self._experts) > 1, self._experts[command.symbol]
        if command.kind == Kind.COPY:
            self._resident.add(command.symbol)
            if several:
                self._write(f"activate {name}: DDR to HBM\n")
        elif command.kind == Kind.FREE and command.symbol in self._resident:
            self._resident.remove(command.symbol)
            self.evictions += 1
            self._write(f"evict {name}\n")
        elif command.kind == Kind.PREFILL and several:
            self._write(f"{name} answers {command.sequences}\n")

"""The tokenizer that a GGUF file's metadata describe: byte-level BPE ("gpt2") or SentencePiece's BPE ("llama")."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors
from tokenizers import pre_tokenizers as split

from cluster.checkpoints import tokenizer
from cluster.checkpoints.chat_template import ChatTemplate
from cluster.checkpoints.sentencepiece import merges_of
from node.errors import InputError

T = TypeVar("T")
Build = Callable[[Mapping[str, object], list[str], Path], Tokenizer]
KEY = "tokenizer.ggml"
UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4  # of token_type
WHOLE = (UNKNOWN, CONTROL, USER_DEFINED)  # never made by merges
ENDS = ("eos", "eot", "eom")
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT_2 = split.ByteLevel(add_prefix_space=False, use_regex=True)
_DIGITS = split.Sequence([split.Digits(individual_digits=True), _GPT_2])
_LLAMA_BPE = split.Sequence(
    [split.Split(Regex(_LLAMA_3), "isolated"), split.ByteLevel(add_prefix_space=False, use_regex=False)]
)
SPLITS = {"gpt-2": _GPT_2, "smollm": _DIGITS, "starcoder": _DIGITS, "llama-bpe": _LLAMA_BPE}  # by tokenizer.ggml.pre


def gguf_tokenizer(metadata: Mapping[str, object], path: Path) -> tokenizer.Tokenizer:
    """The tokenizer; raises ``InputError``."""
    words, kinds = _list(metadata, "tokens", str, path), _list(metadata, "token_type", int, path)
    if len(kinds) != len(words):
        raise InputError(f"{path}: {KEY}.token_type: has {len(kinds):,} entries, {KEY}.tokens {len(words):,}")
    kind = metadata.get(f"{KEY}.model")
    if kind not in MODELS:
        raise InputError(f"{path}: {KEY}.model = {kind!r}: must be one of {', '.join(MODELS)}")
    vocabulary = _vocabulary(MODELS[str(kind)], metadata, words, kinds, path)
    vocabulary.post_processor = _around(metadata, words, kind == "llama", path)
    marks = {name: _mark(metadata, name, words, path) for name in ("bos", "eos", *ENDS)}
    ends = {number for name, number in marks.items() if name in ENDS and number is not None}
    source = metadata.get("tokenizer.chat_template")
    called = {f"{name}_token": "" if marks[name] is None else words[marks[name] or 0] for name in ("bos", "eos")}
    template = ChatTemplate(str(path), source, called) if isinstance(source, str) else None
    return tokenizer.Tokenizer(str(path), vocabulary, frozenset(ends | tokenizer.end_words(vocabulary)), template)


def _vocabulary(
    build: Build, metadata: Mapping[str, object], words: list[str], kinds: list[int], path: Path
) -> Tokenizer:
    """The words and how a text becomes them; control tokens and the user's own are whole, whatever is beside them."""
    try:
        made = build(metadata, words, path)
        whole = [
            AddedToken(word, normalized=False, special=kind != USER_DEFINED)
            for word, kind in zip(words, kinds, strict=True)
            if kind in WHOLE
        ]
        made.add_tokens(whole)
    except InputError:
        raise
    except Exception as error:  # the package raises no other
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: {KEY}: is no vocabulary: {reason}") from None
    return made


def _byte_level(metadata: Mapping[str, object], words: list[str], path: Path) -> Tokenizer:
    """GPT-2's: bytes written as letters; texts are split as ``tokenizer.ggml.pre`` says before letters are merged."""
    pre = metadata.get(f"{KEY}.pre")
    if pre not in SPLITS:
        raise InputError(f"{path}: {KEY}.pre = {pre!r}: must be one of {', '.join(SPLITS)}")
    merges = [tuple(pair.split(" ", 1)) for pair in _list(metadata, "merges", str, path)]
    whole = pre == "llama-bpe"  # a text that is a word of the vocabulary is that word, whatever the merges make of it
    made = Tokenizer(models.BPE(vocab=_numbered(words), merges=merges, ignore_merges=whole))  # type: ignore[arg-type]
    made.pre_tokenizer, made.decoder = SPLITS[str(pre)], decoders.ByteLevel()
    return made


def _sentencepiece(metadata: Mapping[str, object], words: list[str], path: Path) -> Tokenizer:
    """SentencePiece's BPE, with bytes for characters that are not in the vocabulary."""
    scores = _list(metadata, "scores", float, path)
    unknown = _mark(metadata, "unknown", words, path)
    kinds = _list(metadata, "token_type", int, path)
    model = models.BPE(
        vocab=_numbered(words),
        merges=merges_of(words, scores, {word for word, kind in zip(words, kinds, strict=True) if kind in WHOLE}),
        unk_token=words[unknown or 0],
        fuse_unk=True,
        byte_fallback=True,
    )
    made = Tokenizer(model)
    spaced = bool(metadata.get(f"{KEY}.add_space_prefix", True))
    spaces = normalizers.Replace(" ", "▁")
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if spaced else spaces
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if spaced else parts)
    return made


MODELS: dict[str, Build] = {"gpt2": _byte_level, "llama": _sentencepiece}


def _numbered(words: list[str]) -> dict[str, int]:
    return {word: number for number, word in enumerate(words)}


def _around(
    metadata: Mapping[str, object], words: list[str], begins: bool, path: Path
) -> processors.TemplateProcessing:
    """Puts the tokens that begin and end a text around it; ``begins``: where the file does not say."""
    used, template = [], ["$A"]
    for name, default in (("bos", begins), ("eos", False)):
        number = _mark(metadata, name, words, path)
        if metadata.get(f"{KEY}.add_{name}_token", default) and number is not None:
            used.append((words[number], number))
            template.insert(0 if name == "bos" else len(template), words[number])
    return processors.TemplateProcessing(single=template, special_tokens=used)


def _mark(metadata: Mapping[str, object], name: str, words: list[str], path: Path) -> int | None:
    """The number of a special token, where the file names one."""
    number = metadata.get(f"{KEY}.{name}_token_id")
    if number is not None and (not isinstance(number, int) or not 0 <= number < len(words)):
        raise InputError(f"{path}: {KEY}.{name}_token_id = {number!r}: must be below {len(words):,}")
    return number


def _list(metadata: Mapping[str, object], name: str, kind: type[T], path: Path) -> list[T]:
    found = metadata.get(f"{KEY}.{name}")
    if not isinstance(found, list) or not all(isinstance(entry, kind) for entry in found):
        raise InputError(f"{path}: {KEY}.{name}: must be a list of {kind.__name__}")
    return found

"""Run by an interpreter that has sentencepiece: a small BPE as Llama 2's, and its tokens of texts.

usage: python sentencepiece_bpe.py FOLDER
FOLDER/asked.json has the ``corpus`` to learn from and ``texts``. Writes FOLDER/answers.json: ``tokens``, ``scores``
and ``token_type`` (as GGUF numbers them) of the vocabulary, ``ids`` of each text and what they are ``decoded``.
"""

import json
import sys
from pathlib import Path

import sentencepiece

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6

folder = Path(sys.argv[1])
asked = json.loads((folder / "asked.json").read_text())
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(asked["corpus"]),
    model_prefix=str(folder / "model"),
    model_type="bpe",
    vocab_size=1200,
    byte_fallback=True,
    split_digits=True,
    normalization_rule_name="identity",
    remove_extra_whitespaces=False,
    allow_whitespace_only_pieces=True,
    minloglevel=2,
)
model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "model.model"))
numbers = range(model.get_piece_size())
kinds = ((model.is_unknown, UNKNOWN), (model.is_control, CONTROL), (model.is_byte, BYTE))
answers = {
    "tokens": [model.id_to_piece(number) for number in numbers],
    "scores": [model.get_score(number) for number in numbers],
    "token_type": [next((kind for has, kind in kinds if has(number)), NORMAL) for number in numbers],
    "ids": [model.encode(text, add_bos=True) for text in asked["texts"]],
    "decoded": [model.decode(model.encode(text)) for text in asked["texts"]],
}
(folder / "answers.json").write_text(json.dumps(answers))

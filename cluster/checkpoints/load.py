"""A checkpoint by its path."""

from __future__ import annotations

from pathlib import Path

from cluster.checkpoints.checkpoint import Checkpoint
from cluster.checkpoints.gguf_file import read_gguf
from cluster.checkpoints.hugging_face_folder import read_folder
from node.errors import InputError


def load_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint of a GGUF file or a Hugging Face folder; raises ``InputError``."""
    if path.is_dir():
        return read_folder(path)
    if path.is_file():
        return read_gguf(path)
    raise InputError(f"{path}: no such file or folder; give a GGUF file or a Hugging Face folder")

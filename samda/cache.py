"""Embeddings on disk, so that a frozen encoder sees each image once.

``folder/ENCODER/KEY``: 16 digits of the encoder's hash, and the hash of a key, which says which image it is and how it
was augmented. A file names the pixels that it was made of and carries a checksum: what was made of other pixels, is cut
off or altered is no hit, and is made anew. Files get their names when they are whole, so processes that share a folder
do each other no harm. To clear it, remove the folder, at any time.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from node.errors import InputError
from samda.encoder import Encoder

MOST_BYTES = 4 * 10**9
DIGEST = hashlib.sha256().digest_size


def cached(encoder: Encoder, folder: Path, most_bytes: int = MOST_BYTES) -> DiskCache:
    """The encoder, with its embeddings kept in a folder that is made where it is not there.

    Once ``most_bytes`` lie there (what other processes write meanwhile is not counted), nothing is added.
    ``InputError`` where the folder cannot be made.
    """
    try:
        own = folder / encoder.hash[:16]
        own.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from None
    return DiskCache(encoder, own, most_bytes - sum(_size(file) for file in folder.glob("*/*")))


class DiskCache:
    """``samda.encoder.Cached``. ``hits`` and ``misses`` count images; ``room``: bytes that may still be added."""

    def __init__(self, encoder: Encoder, folder: Path, room: int) -> None:
        self.encoder = encoder
        self.hits = self.misses = 0
        self.room = room
        self._folder = folder

    def encode(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """As ``Encoder.encode``, bit for bit; one key for each image. ``InputError`` where the folder has no room."""
        found = [self._read(image, key) for image, key in zip(images, keys, strict=True)]
        missing = [index for index, embedding in enumerate(found) if embedding is None]
        self.misses += len(missing)
        self.hits += len(found) - len(missing)
        if missing:
            for index, embedding in zip(missing, self.encoder.encode(images[missing]), strict=True):
                found[index] = embedding
                self._write(images[index], keys[index], embedding)
        return torch.stack([embedding for embedding in found if embedding is not None])

    def _path(self, key: str) -> Path:
        return self._folder / hashlib.sha256(key.encode()).hexdigest()

    def _read(self, image: Tensor, key: str) -> Tensor | None:
        try:
            stored = self._path(key).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unusable(self._folder, error) from None
        checksum, body = stored[:DIGEST], stored[DIGEST:]
        if hashlib.sha256(body).digest() != checksum or body[:DIGEST] != _digest(image):
            return None
        return torch.from_numpy(np.load(io.BytesIO(body[DIGEST:]), allow_pickle=False))

    def _write(self, image: Tensor, key: str, embedding: Tensor) -> None:
        array = io.BytesIO()
        np.save(array, embedding.numpy(), allow_pickle=False)
        body = _digest(image) + array.getvalue()
        path = self._path(key)
        added = 0 if path.exists() else DIGEST + len(body)  # one that is made anew takes the other's place
        if added > self.room:
            return
        self.room -= added
        try:
            _put(path, hashlib.sha256(body).digest() + body)
        except FileNotFoundError:
            return  # the folder was cleared meanwhile
        except OSError as error:
            raise _unusable(self._folder, error) from None


def _size(path: Path) -> int:
    """Bytes; none of a file that somebody has removed meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)  # where it was cleared meanwhile
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        try:
            file.write(content)
            file.close()
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _digest(image: Tensor) -> bytes:
    """Of an image's pixels and shape."""
    shape = ",".join(map(str, image.shape)).encode()
    return hashlib.sha256(shape + b":" + image.contiguous().numpy().tobytes()).digest()


def _unusable(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"cache of embeddings {str(folder)!r}: {error.strerror}: name a folder that can be written and has room"
    )

"""The generic component: what turns an image into an embedding that no data set of ours has shaped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Encoder(Protocol):
    """A frozen image encoder.

    ``hash`` is a sha256 over weights and what else defines it: equal hashes, equal embeddings. An embedding has
    ``channels`` channels and one place for every ``stride`` x ``stride`` pixels.
    """

    @property
    def name(self) -> str:
        """As the user names it: hed, random, sam-vit-b."""

    @property
    def hash(self) -> str:
        """Hexadecimal."""

    @property
    def channels(self) -> int:
        """Of an embedding."""

    @property
    def stride(self) -> int:
        """Pixels, along either side, to a place of the embedding."""

    @property
    def note(self) -> str | None:
        """What of it is not as it was trained, where something is not."""

    def encode(self, images: Tensor) -> Tensor:
        """Embeddings (N, channels, ceil(H / stride), ceil(W / stride)), no gradient, of images (N, 1, H, W) in [0, 1].

        Both are float32.
        """


class Cached(Protocol):
    """An encoder whose embeddings are kept."""

    @property
    def encoder(self) -> Encoder:
        """What makes them."""

    def encode(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """As ``Encoder.encode``; each key says which image it is and how it was augmented."""

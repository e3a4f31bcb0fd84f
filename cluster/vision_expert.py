"""A trained vision expert on emulated sockets: patches in, logits out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cluster.checkpoints.safetensors_file import read_safetensors
from cluster.content import PassExpert, Start, local_members
from cluster.images import PassGroup, pass_group
from node.dataflow.meaning.operands import Array
from node.errors import InputError
from node.models.checkpoint import Tensors
from node.models.unet import EMBEDDING, IMAGE
from node.models.unet_shape import UNetShape
from node.models.vision_expert import load_vision_expert
from node.options import RuntimeOptions
from node.spec import Machine
from node.units import Picoseconds

WEIGHTS = "expert.safetensors"


def open_expert(folder: Path) -> PassExpert:
    """The expert of a folder; raises ``InputError``. Its weights are read by whoever has sockets."""
    return PassExpert(load_vision_expert(str(folder)), partial(_tensors, folder / WEIGHTS))


def _tensors(path: Path) -> Tensors:
    stored = read_safetensors(path)
    return lambda name: stored[name].read()


@dataclass(frozen=True)
class EmulatedExpert:
    """An expert of a ``shape`` whose weights lie in the HBM of the sockets of ``group``."""

    shape: UNetShape
    group: PassGroup

    @property
    def now(self) -> Picoseconds:
        """The emulated time that copying it and all passes took."""
        return self.group.now

    def logits(self, images: Array, embedding: Array | None = None) -> Array:
        """(N, classes, H, W) of images (N, channels, H, W) of the expert's patch; of a composed one, with an embedding.

        An ``embedding`` is (N, C, h, w), a place for each of the bottleneck's. Raises ``InputError`` for other sizes.
        """
        shape = self.shape
        given = {IMAGE: self._flat(images, (shape.input_channels, *shape.patch), "images")}
        if embedding is not None:
            given[EMBEDDING] = self._flat(embedding, (shape.composition.channels, *shape.embedding), "embeddings")
        made = self.group.through(0, given)
        return made.reshape(len(made), shape.classes, *shape.patch)

    def _flat(self, array: Array, shape: tuple[int, ...], what: str) -> Array:
        if array.shape[1:] != shape:
            raise InputError(f"expert {self.shape.name}: {what} are {array.shape[1:]}: must be {shape}")
        return array.reshape(len(array), -1)


@contextlib.contextmanager
def emulated_expert(
    folder: Path, machine: Machine, options: RuntimeOptions | None = None, start: Start = local_members
) -> Iterator[EmulatedExpert]:
    """The expert of a folder on all sockets of ``machine``, which share each image; raises ``InputError``."""
    expert = open_expert(folder)
    shape = load_vision_expert(str(folder)).shape
    with pass_group(machine, [expert], options, start) as group:
        yield EmulatedExpert(shape, group)

"""An expert on emulated sockets, to those who segment with it what its network is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cluster.vision_expert import EmulatedExpert, emulated_expert
from node.spec import Machine


@dataclass(frozen=True)
class Emulated:
    """See ``samda.composition.Composed``; of the logits it has the finest alone, as the others serve training."""

    expert: EmulatedExpert

    def eval(self) -> None:
        """It does nothing else than infer."""

    def __call__(self, images: Tensor, embedding: Tensor | None = None) -> list[Tensor]:
        """Logits (N, classes, H, W) of images (N, channels, H, W) and, of a composed expert, their embedding."""
        around = None if embedding is None else embedding.numpy()
        return [torch.from_numpy(self.expert.logits(images.numpy(), around))]


@contextlib.contextmanager
def on_sockets(folder: Path, machine: Machine) -> Iterator[Emulated]:
    """The expert of a folder on all sockets of ``machine``, in this process; raises ``InputError``."""
    with emulated_expert(folder, machine) as expert:
        yield Emulated(expert)

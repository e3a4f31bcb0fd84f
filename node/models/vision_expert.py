"""An expert of SAMDA as a model of one pass."""

from __future__ import annotations

from dataclasses import dataclass

from node.dataflow.graph import Graph, Operator
from node.models.checkpoint import Tensors
from node.models.unet import unet
from node.models.unet_shape import UNetShape, load_expert
from node.models.unet_weights import shard_of, weights_of
from node.models.weights import Array


@dataclass(frozen=True, slots=True)
class VisionExpert:
    """A U-Net of a ``shape``, composed or not; see ``node.models.one_pass.Learned`` and, of ``worth``, ``unet``."""

    shape: UNetShape
    together: bool = True
    worth: float = 0.0

    @property
    def name(self) -> str:
        """The shape's."""
        return self.shape.name

    def graph(self, degree: int = 1, rank: int = 0) -> Graph:
        """What ``rank`` of ``degree`` sockets runs."""
        return unet(self.shape, degree, rank, worth=self.worth) if self.together else unet(self.shape)

    def weights(self, operator: str, layer: int, tensors: Tensors) -> Array:
        """The whole weights of an operator, by the names of PyTorch's state dict; raises ``InputError``."""
        return weights_of(operator, self.shape, tensors)

    def shard(self, op: Operator, whole: Array, degree: int, rank: int) -> Array:
        """The columns of the socket's channels."""
        return shard_of(op, whole, degree, rank)


def load_vision_expert(name: str) -> VisionExpert:
    """A built-in expert by name, or that of a folder or of its ``expert.json``; raises ``InputError``."""
    return VisionExpert(load_expert(name))

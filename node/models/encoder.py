"""SAM's image encoder as a model of one pass, and its weights from a checkpoint by segment-anything's names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from node.dataflow.graph import Graph, Operator, share
from node.errors import InputError
from node.models.checkpoint import Tensors
from node.models.encoder_shape import ENCODERS, EncoderShape, encoder_names, read_encoder
from node.models.sam import sam_encoder
from node.models.weights import Array, columns_of, rows_of
from node.spec_file import read_toml

QKV = ("q_proj", "k_proj", "v_proj")
# operator -> the checkpoint's module, {i} the number of the layer
NAMES = {
    "patch_embedding": "patch_embed.proj",
    "attention_norm": "blocks.{i}.norm1",
    **dict.fromkeys(QKV, "blocks.{i}.attn.qkv"),
    "o_proj": "blocks.{i}.attn.proj",
    "ffn_norm": "blocks.{i}.norm2",
    "up_proj": "blocks.{i}.mlp.lin1",
    "down_proj": "blocks.{i}.mlp.lin2",
    "neck_conv_1": "neck.0",
    "neck_norm_1": "neck.1",
    "neck_conv_2": "neck.2",
    "neck_norm_2": "neck.3",
}
WITHOUT_BIAS = ("neck_conv_1", "neck_conv_2")


@dataclass(frozen=True, slots=True)
class Encoder:
    """An image encoder of a ``shape``; see ``node.models.one_pass.Learned``."""

    shape: EncoderShape

    @property
    def name(self) -> str:
        """The shape's."""
        return self.shape.name

    @property
    def together(self) -> bool:
        """The sockets of a group share every image."""
        return True

    def graph(self, degree: int = 1, rank: int = 0) -> Graph:
        """What ``rank`` of ``degree`` sockets runs."""
        return sam_encoder(self.shape, degree, rank)

    def weights(self, operator: str, layer: int, tensors: Tensors) -> Array:
        """The whole weights of an operator of a layer, counted over all layers of the model, float32.

        Raises ``InputError`` for a tensor that is missing. One of another size is refused by whoever wants the weights:
        tables of positions have to be those of the shape's image size.
        """

        def tensor(name: str) -> Array:
            try:
                return np.asarray(tensors(name), dtype=np.float32)
            except KeyError:
                raise InputError(f"model {self.name}: its checkpoint has no tensor {name}") from None

        if operator == "positions":
            table = tensor("pos_embed")
            return table.reshape(-1, table.shape[-1])
        if operator == "relative_positions":
            parts = [tensor(f"blocks.{layer}.attn.rel_pos_{axis}") for axis in "hw"]
            return np.concatenate(parts)
        module = NAMES[operator].format(i=layer)
        weight = tensor(f"{module}.weight")
        whole = weight.reshape(len(weight), -1).T if weight.ndim > 1 else weight[None]
        if operator not in WITHOUT_BIAS:
            whole = np.vstack([whole, tensor(f"{module}.bias")])
        return np.split(whole, len(QKV), axis=1)[QKV.index(operator)] if operator in QKV else whole

    def shard(self, op: Operator, whole: Array, degree: int, rank: int) -> Array:
        """What ``rank`` of ``degree`` sockets holds of them."""
        shape = self.shape
        held, ffn = share(shape.heads, degree, rank), share(shape.ffn, degree, rank)
        heads = range(held.start * shape.head_dim, held.stop * shape.head_dim)
        if op.name in (*QKV, "up_proj"):
            return columns_of(whole, heads if op.name in QKV else ffn)
        if op.name in ("o_proj", "down_proj"):
            return rows_of(op, whole, heads if op.name == "o_proj" else ffn, rank)
        return whole


def is_encoder(name: str) -> bool:
    """Whether ``name`` is a built-in encoder or a ``.toml`` file of one; raises ``InputError`` if unreadable."""
    return name in encoder_names() or (name.endswith(".toml") and "global_layers" in read_toml(Path(name)))


def load_encoder(name: str) -> Encoder:
    """A built-in encoder by name, or that of a ``.toml`` file; raises ``InputError``."""
    return Encoder(read_encoder(Path(name) if name.endswith(".toml") else ENCODERS / f"{name}.toml"))

"""Where a checkpoint of a SAMDA expert, PyTorch's state dict, has the weights of each operator of ``unet``.

Convolutions are stored (out, in, lines, columns), transposed ones (in, out, lines, columns); ours are (rows, columns)
with columns the channels made and a bias as one row more. Rows of a convolution go by channel, line and column, those
of a transposed one by line, column and channel.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from node.dataflow.graph import Operator, share
from node.errors import InputError
from node.models.checkpoint import Tensors
from node.models.unet_shape import UNetShape
from node.models.weights import Array

_STAGES = {"down": "unet.encoder.stages.{stage}.0.convs.{number}", "up": "unet.decoder.stages.{stage}.convs.{number}"}
_LAYER = re.compile(r"(?P<way>down|up)(?P<stage>\d+)_(?P<part>conv|norm)(?P<number>\d+)")
_UP = re.compile(r"up(?P<stage>\d+)")


def module_of(operator: str, shape: UNetShape) -> str:
    """The module of PyTorch's that holds the weights of an operator."""
    if layer := _LAYER.fullmatch(operator):
        return f"{_STAGES[layer['way']].format(**layer.groupdict())}.{layer['part']}"
    if up := _UP.fullmatch(operator):
        return f"unet.decoder.transpconvs.{up['stage']}"
    if operator == "head":
        return f"unet.decoder.seg_layers.{len(shape.features) - 2}"
    return operator.replace("adapter_", "adapter.")


def weights_of(operator: str, shape: UNetShape, tensors: Tensors) -> Array:
    """The whole weights of an operator, (rows, columns) float32; raises ``InputError`` for a tensor that is missing."""
    if operator == "adapter_standardise":
        return np.stack([_tensor(f"adapter.{name}", shape, tensors) for name in ("mean", "deviation")])
    module = module_of(operator, shape)
    weight, bias = (_tensor(f"{module}.{name}", shape, tensors) for name in ("weight", "bias"))
    if "_norm" in operator:
        return np.stack([weight, bias])
    laid: Callable[[Array], Array] = _transposed if _UP.fullmatch(operator) else _convolution
    return np.vstack([laid(weight), bias])


def _tensor(name: str, shape: UNetShape, tensors: Tensors) -> Array:
    try:
        return np.asarray(tensors(name), dtype=np.float32)
    except KeyError:
        raise InputError(f"expert {shape.name}: its checkpoint has no tensor {name}") from None


def _convolution(weight: Array) -> Array:
    """(out, in, lines, columns) -> (in x lines x columns, out)."""
    return weight.reshape(len(weight), -1).T


def _transposed(weight: Array) -> Array:
    """(in, out, lines, columns) -> (lines x columns x in, out)."""
    return weight.transpose(2, 3, 0, 1).reshape(-1, weight.shape[1])


def shard_of(op: Operator, whole: Array, degree: int, rank: int) -> Array:
    """What ``rank`` holds of the ``whole`` weights of ``op``: columns of its channels, or all, as its graph says."""
    assert op.matrix is not None
    if op.matrix.columns == whole.shape[1]:
        return whole
    held = share(whole.shape[1], degree, rank)
    return whole[:, held.start : held.stop]

"""Which encoder it is: a hash over all that its embeddings depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def identity(definition: str, weights: Mapping[str, Tensor]) -> str:
    """The sha256, hexadecimal, of a definition in words and of weights: their names, types, shapes and bytes."""
    digest = hashlib.sha256(definition.encode())
    for name in sorted(weights):
        tensor = weights[name].detach().contiguous()
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()

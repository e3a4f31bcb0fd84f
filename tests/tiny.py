"""Small random Llamas, and a node that holds some of them, for tests of functional mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial

import numpy as np
import numpy.typing as npt

from cluster.content import Expert
from cluster.generate import Asked, Prompt
from node.functional.serve import Sampling
from node.models.checkpoint import Tensors
from node.models.decoder import decoder
from node.models.shape import Shape
from node.options import RuntimeOptions
from node.spec import Machine
from node.spec_file import load_machine

Array = npt.NDArray[np.float32]
SHAPE = Shape("tiny", 2, 24, 3, 1, 8, 40, 50, 128)
RESERVE = 64 * 1024  # bytes of a socket for KV cache and workspace


def expert(number: int, shape: Shape = SHAPE) -> Expert:
    """An expert with random weights of its own."""
    return Expert(f"expert {number}", shape, partial(tensors, number, shape))


@cache
def tensors(number: int, shape: Shape) -> Tensors:
    """By the names of a Hugging Face checkpoint."""
    random = np.random.default_rng(number)
    linear = {
        "self_attn.q_proj": (shape.heads * shape.head_dim, shape.hidden),
        "self_attn.k_proj": (shape.kv_heads * shape.head_dim, shape.hidden),
        "self_attn.v_proj": (shape.kv_heads * shape.head_dim, shape.hidden),
        "self_attn.o_proj": (shape.hidden, shape.heads * shape.head_dim),
        "mlp.gate_proj": (shape.ffn, shape.hidden),
        "mlp.up_proj": (shape.ffn, shape.hidden),
        "mlp.down_proj": (shape.hidden, shape.ffn),
    }
    sizes: dict[str, tuple[int, ...]] = {"model.embed_tokens": (shape.vocabulary, shape.hidden)}
    for layer in range(shape.layers):
        sizes |= {f"model.layers.{layer}.{name}": size for name, size in linear.items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            sizes[f"model.layers.{layer}.{norm}"] = (shape.hidden,)
    sizes |= {"model.norm": (shape.hidden,), "lm_head": (shape.vocabulary, shape.hidden)}
    made = {
        f"{name}.weight": (random.normal(size=size) * 0.3 + ("norm" in name)).astype(np.float32)
        for name, size in sizes.items()
    }
    return made.__getitem__


def node(sockets: int, experts: int, in_hbm: int, shape: Shape = SHAPE) -> Machine:
    """SN40L sockets with room for all ``experts`` in DDR and for so many in HBM."""
    largest = max(decoder(shape, sockets, rank).weight_bytes for rank in range(sockets))
    capacities = {"ddr.capacity": largest * experts, "hbm.capacity": RESERVE + largest * in_hbm}
    machine = load_machine("sn40l-node", {key: f"{value} B" for key, value in capacities.items()})
    return replace(machine, sockets=sockets)


def prompts(count: int, experts: int, longest: int = 20) -> list[Prompt]:
    """Random tokens for random experts."""
    random = np.random.default_rng(0)
    lengths, chosen = random.integers(1, longest, count), random.integers(0, experts, count)
    return [
        Prompt(int(which), tuple(int(token) for token in random.integers(0, SHAPE.vocabulary, length)))
        for which, length in zip(chosen, lengths, strict=True)
    ]


def asked(sockets: int, experts: int, in_hbm: int, given: Sequence[Prompt], most: int = 12, **options: object) -> Asked:
    """A composition of random experts that answers ``given`` prompts."""
    chosen = {"kv_reserve": RESERVE, "batch": 4, **options}
    return Asked(
        node(sockets, experts, in_hbm),
        [expert(number) for number in range(experts)],
        given,
        most,
        Sampling(ends=frozenset({7, 8})),
        RuntimeOptions(**chosen),  # type: ignore[arg-type]
    )


def alone(prompt: Prompt, most: int = 12) -> Asked:
    """The prompt's expert by itself on one socket."""
    one = asked(1, 1, 1, [Prompt(0, prompt.tokens)], most)
    return replace(one, experts=[expert(prompt.expert)])

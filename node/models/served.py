"""What a catalogue serves: models that work on tokens, and models of one pass over an image each."""

from __future__ import annotations

from node.dataflow.graph import Graph
from node.dataflow.operators import ELEMENT_BYTES
from node.errors import InputError
from node.models.decoder import decoder
from node.models.hugging_face import load_shape
from node.models.one_pass import OnePass, one_pass
from node.models.shape import Shape
from node.models.shard import Shard

Model = Shape | OnePass


def load_model(name: str) -> Model:
    """The built-in model that is called so, or that of a file; ``InputError`` where it cannot be served."""
    found = one_pass(name)
    if found is None:
        return load_shape(name)
    if not found.together:
        raise InputError(
            f"{name}: every socket takes signals of its own, and a group of the CoE runtime shares what it serves; "
            "take a model on tokens, or one of images"
        )
    return found


def graph_of(model: Model, degree: int, rank: int, weight_bytes: float) -> Graph:
    """What ``rank`` of ``degree`` sockets runs; ``InputError`` where the model has weights of another size."""
    if isinstance(model, Shape):
        return decoder(model, degree, rank, weight_bytes)
    if weight_bytes != ELEMENT_BYTES:
        raise InputError(f"experts: {model.name} has weights in bf16 alone; set dtype to 'bf16'")
    return model.graph(degree, rank)


def part_of(model: Model, degree: int, rank: int) -> Shard | Graph:
    """What tells the part of one rank from that of another."""
    return Shard.of(model, degree, rank) if isinstance(model, Shape) else model.graph(degree, rank)

"""An expert on disk: ``expert.json``, what it is, and ``expert.safetensors``, its weights.

The emulator reads both, without PyTorch. The weights have PyTorch's names, ``unet.encoder.stages.0...`` and
``adapter.reduce.weight``, each once (the U-Net's library has several names for the same), all float32.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cluster.checkpoints.safetensors_file import read_safetensors
from cluster.output import write_json
from node.errors import InputError
from samda.composition import KINDS, Composed, Composition, EncoderFacts, composed
from samda.fingerprint import SCHEMES, Normalisation
from samda.plan import Plan, UNetShape
from samda.record import FORMAT, read_record

KIND = "samda-expert"
JSON, WEIGHTS = "expert.json", "expert.safetensors"


@dataclass
class Expert:
    """A network with all that is needed to use it. ``trained``: how it came to be, for people."""

    plan: Plan
    composition: Composition
    model: Composed
    trained: dict[str, Any] = field(default_factory=dict)


def save_expert(folder: Path, expert: Expert) -> None:
    """Write both files into a folder that is there."""
    _write_safetensors(folder / WEIGHTS, named_weights(expert.model))
    write_json(folder / JSON, _record(expert))


def load_expert(folder: Path) -> Expert:
    """Read both; raises ``InputError``."""
    path = folder / JSON
    record = read_record(path, KIND, "an expert", "train one with coe samda train")
    try:
        expert = _expert(record)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: describes no expert that can be made: {error!r}") from None
    _take_weights(folder / WEIGHTS, expert.model)
    return expert


def named_weights(model: Composed) -> dict[str, Tensor]:
    """Weights and buffers, each under one name."""
    return {name: value.detach() for name, value in (*model.named_parameters(), *model.named_buffers())}


def _record(expert: Expert) -> dict[str, object]:
    shape, composition = expert.plan.unet, expert.composition
    return {
        "format": FORMAT,
        "kind": KIND,
        "unet": asdict(shape),
        "composition": {
            "kind": composition.kind,
            "encoder": None if composition.encoder is None else asdict(composition.encoder),
            "adapter": None if composition.kind == "plain" else {"hidden": composition.hidden},
        },
        "normalisation": asdict(expert.plan.normalisation),
        "patch": list(expert.plan.patch),
        "batch": expert.plan.batch,
        "trained": expert.trained,
    }


def _expert(record: Mapping[str, Any]) -> Expert:
    unet: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in record["unet"].items()
    }
    shape, joined = UNetShape(**unet), record["composition"]
    if joined["kind"] not in KINDS or record["normalisation"]["scheme"] not in SCHEMES:
        raise ValueError(f"composition.kind and normalisation.scheme must be of {KINDS} and {SCHEMES}")
    composition = Composition()
    if joined["kind"] != "plain":
        composition = Composition(joined["kind"], EncoderFacts(**joined["encoder"]), joined["adapter"]["hidden"])
    height, width = record["patch"]
    if height % shape.stride or width % shape.stride or min(height, width) <= 0:
        raise ValueError(f"patch {height} x {width} must be of multiples of {shape.stride}")
    plan = Plan(shape, (height, width), record["batch"], Normalisation(**record["normalisation"]))
    return Expert(plan, composition, composed(shape, composition, seed=0), record["trained"])


def _take_weights(path: Path, model: Composed) -> None:
    stored = read_safetensors(path)
    for name, value in named_weights(model).items():
        if name not in stored:
            raise InputError(f"{path}: lacks the tensor {name}, which {JSON} beside it asks for")
        if stored[name].shape != tuple(value.shape):
            raise InputError(
                f"{path}: tensor {name} is {stored[name].shape}, but {JSON} beside it asks for {tuple(value.shape)}"
            )
        value.copy_(torch.from_numpy(np.array(stored[name].read())))


def _write_safetensors(path: Path, weights: Mapping[str, Tensor]) -> None:
    """As safetensors: a length, a table in JSON, the numbers; to a temporary name, then renamed."""
    table, start = {}, 0
    for name, value in weights.items():
        end = start + 4 * value.numel()
        table[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [start, end]}
        start = end
    head = json.dumps(table).encode()
    head += b" " * (-len(head) % 8)
    temporary = path.with_name(f".{path.name}")
    try:
        with temporary.open("wb") as file:
            file.write(struct.pack("<Q", len(head)) + head)
            for value in weights.values():
                file.write(value.contiguous().numpy().astype("<f4").tobytes())
        temporary.rename(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None

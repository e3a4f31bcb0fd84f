"""Do sockets make of images what the model does, however many there are and however the images are shared out?"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from cluster.content import PassExpert
from cluster.images import pass_group
from node.dataflow.fusion import LEVELS
from node.errors import HardwareError, InputError, OutOfMemoryError
from node.models.checkpoint import Tensors
from node.options import RuntimeOptions
from node.spec import Machine
from node.spec_file import load_machine
from tests.one_pass import FFN, LAYERS, ROWS, WIDTH, expert, tensors
from tests.tiny import Array

IMAGES = 11


def machine(sockets: int, **numbers: object) -> Machine:
    return replace(
        load_machine("sn40l-node", {name.replace("__", "."): n for name, n in numbers.items()}), sockets=sockets
    )


def given(seed: int = 0) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    return {name: random.normal(size=(IMAGES, ROWS * WIDTH)).astype(np.float32) for name in ("image", "other")}


def expected(seed: int, of: dict[str, Array]) -> Array:
    """By hand."""
    x, weights = of["image"].reshape(-1, WIDTH), tensors(seed)
    for layer in range(LAYERS):
        up, down = weights(f"up_{layer}"), weights(f"down_{layer}")
        hidden = x @ up[:-1] + up[-1]
        hidden = hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2))) / 2
        x = hidden @ down[:-1] + down[-1]
    return x.reshape(IMAGES, -1) + of["other"]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("sockets", [1, 2, 8, 16])
def test_sockets_make_what_the_model_does(sockets: int, together: bool, level: str) -> None:
    """Two models, each in turn, three images at once: with 16 sockets some have no column, or no image."""
    options = RuntimeOptions(batch=3, fusion=level)
    with pass_group(machine(sockets), [expert(seed, together=together) for seed in (1, 2)], options) as group:
        for model, seed in ((0, 1), (1, 2), (0, 1)):
            of = given(seed + model)
            np.testing.assert_allclose(group.through(model, of), expected(seed, of), rtol=1e-4, atol=1e-4)


def test_a_pass_takes_as_long_as_an_estimate_of_it() -> None:
    """Each call its overhead, and the weights of both models copied before: nothing else."""
    with pass_group(machine(2), [expert(1, together=True)], RuntimeOptions(batch=4)) as group:
        deployment, copied = group.deployment, group.now
        assert copied == deployment.activation_ps(0) > 0
        group.through(0, given())
        calls = [deployment.call_ps(0, rows) for rows in (4, 4, 3)]
        assert group.now == copied + sum(calls)


def test_bf16_is_near_and_not_the_same() -> None:
    with pass_group(machine(2), [expert(1, together=True)], RuntimeOptions(precision="bf16")) as group:
        error = np.abs(group.through(0, given()) - expected(1, given())).max()
    assert 1e-3 < error / np.abs(expected(1, given())).max() < 0.03


def wrong(lost: str) -> Tensors:
    """A checkpoint whose tensor is missing, or too small."""
    whole = tensors(1)

    def tensor(name: str) -> Array:
        if name == lost:
            raise KeyError(name)
        return whole(name)[:, 1:] if f"short {name}" == lost else whole(name)

    return tensor


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("up_1", "model ffn 1: its checkpoint has no tensor up_1"),
        ("short down_1", r"expert 0: down_1 of layer 1 has shape \(11, 5\), not \(11, 6\)"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(lost: str, message: str) -> None:
    one = PassExpert(expert(1, together=True).model, partial(wrong, lost))
    with pytest.raises(InputError, match=message), pass_group(machine(1), [one]):
        pass


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"other": None}, "model ffn 1: takes image, other; given image"),
        ({"other": (IMAGES, 5)}, rf"model ffn 1: other has shape \({IMAGES}, 5\), not \({IMAGES}, {ROWS * WIDTH}\)"),
        ({"other": (IMAGES - 1, 24)}, f"images: rows of image {IMAGES}, other {IMAGES - 1}: must be as many of each"),
        ({"other": None, "image": None}, "images: rows of nothing: must be as many of each, and one at least"),
    ],
)
def test_what_a_model_does_not_take_is_refused(change: dict[str, tuple[int, int] | None], message: str) -> None:
    arrays = {name: array for name, array in given().items() if change.get(name, array) is not None}
    arrays |= {name: np.zeros(shape, np.float32) for name, shape in change.items() if shape is not None}
    with (
        pass_group(machine(2), [expert(1, together=True)], RuntimeOptions(batch=IMAGES)) as group,
        pytest.raises(InputError, match=message),
    ):
        group.through(0, arrays)


def test_what_does_not_fit_is_refused() -> None:
    weights = LAYERS * ((WIDTH + 1) * FFN + (FFN + 1) * WIDTH) * 2
    with (
        pytest.raises(OutOfMemoryError, match=r"HBM.*the weights of all models of one pass"),
        pass_group(machine(1, hbm__capacity=f"{weights - 2} B"), [expert(1, together=True)]),
    ):
        pass
    small = machine(1, hbm__capacity=f"{weights + 1024} B")
    with (
        pass_group(small, [expert(1, together=True)]) as group,
        pytest.raises(InputError, match=r"lie between the kernels of a pass of ffn 1 over 8 images, but HBM has 992 B"),
    ):
        group.through(0, given())


def test_weights_that_are_not_there_are_not_read() -> None:
    """A pass with the weights of another address than they were copied to."""
    with pass_group(machine(2), [expert(1, together=True)]) as group:
        group.deployment.__dict__["addresses"] = (64, group.deployment.addresses[1])
        with pytest.raises(HardwareError, match=r"HBM of socket 0: .* is read, but some of it was never written"):
            group.through(0, given())

"""Do sockets make of images what the model does, however many there are and however the images are shared out?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from cluster.content import LocalMembers, PassExpert
from cluster.images import pass_group
from node.dataflow.fusion import LEVELS
from node.dataflow.meaning import exchange as exchanges
from node.dataflow.meaning.rounding import to_bf16
from node.errors import HardwareError, InputError, InvariantError, OutOfMemoryError
from node.estimate import Call, estimate_one_pass
from node.functional.one_pass import Pass
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


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(("sockets", "level"), [*((2, level) for level in LEVELS), *((n, "fused") for n in (1, 8, 16))])
def test_sockets_make_what_the_model_does(sockets: int, together: bool, level: str) -> None:
    """Two models, each in turn, three images at once: with 16 sockets some have no column, or no image.

    One of them has its sockets share images, the other has them work on images of their own.
    """
    options = RuntimeOptions(batch=3, fusion=level)
    models = [expert(seed, together=of) for seed, of in ((1, together), (2, not together))]
    with pass_group(machine(sockets), models, options) as group:
        for model, seed in ((0, 1), (1, 2), (0, 1)):
            of = given(seed + model)
            np.testing.assert_allclose(group.through(model, of), expected(seed, of), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("together", "rows"), [(True, (4, 4, 3)), (False, (8, 3))])
def test_a_pass_takes_as_long_as_an_estimate_of_it(together: bool, rows: tuple[int, ...]) -> None:
    """Each call its overhead, and the weights copied before: nothing else. Four images at once, or four a socket."""
    with pass_group(machine(2), [expert(1, together=together)], RuntimeOptions(batch=4)) as group:
        deployment, copied = group.deployment, group.now
        assert copied == deployment.activation_ps(0) > 0
        group.through(0, given())
        calls = [deployment.call_ps(0, count) for count in rows]
        assert group.now == copied + sum(calls)
        estimated = estimate_one_pass(machine(2), expert(1, together=together).model, Call(1, 1, rows[0])).total_s
        assert calls[0] / 1e12 == pytest.approx(estimated, rel=1e-6)


def test_bf16_is_near_and_not_the_same() -> None:
    with pass_group(machine(2), [expert(1, together=True)], RuntimeOptions(precision="bf16")) as group:
        error = np.abs(group.through(0, given()) - expected(1, given())).max()
    assert 1e-3 < error / np.abs(expected(1, given())).max() < 0.03


def test_in_bf16_images_are_rounded_before_a_pass() -> None:
    """What comes of images is what comes of them as BF16 has them."""
    rounded = {name: to_bf16(array) for name, array in given().items()}
    assert any((rounded[name] != array).any() for name, array in given().items())
    with pass_group(machine(1), [expert(1, together=True)], RuntimeOptions(precision="bf16")) as group:
        np.testing.assert_array_equal(group.through(0, given()), group.through(0, rounded))


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


def test_an_all_reduce_that_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes out is wrong, or the sockets differ."""

    def dropped(brought: exchanges.Brought) -> list[Array]:
        return [array for _, array in brought]

    monkeypatch.setitem(exchanges.EXCHANGES, "all_reduce", dropped)
    with pass_group(machine(2), [expert(1, together=True)]) as group:
        try:
            found = group.through(0, given())
        except InvariantError as error:
            assert "made something else" in str(error)
        else:
            assert not np.allclose(found, expected(1, given()), atol=1e-2)


@pytest.mark.parametrize(("by", "agrees"), [(1e-6, True), (1e-3, False)])
def test_a_socket_that_makes_something_else_is_found(by: float, agrees: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a thousandth of the largest element, in one of them; not by what another order of sums makes of it."""
    honest = LocalMembers.through

    def altered(self: LocalMembers, works: Sequence[Pass | None]) -> list[Array]:
        made = honest(self, works)
        made[1] = made[1].copy()
        made[1].flat[7] += by * np.abs(made[1]).max()
        return made

    monkeypatch.setattr(LocalMembers, "through", altered)
    with pass_group(machine(2), [expert(1, together=True)]) as group:
        if agrees:
            assert group.through(0, given()).shape == (IMAGES, ROWS * WIDTH)
        else:
            with pytest.raises(InvariantError, match="socket 1 made something else of the images than socket 0"):
                group.through(0, given())


def test_weights_that_are_not_there_are_not_read() -> None:
    """A pass with the weights of another address than they were copied to."""
    with pass_group(machine(2), [expert(1, together=True)]) as group:
        group.deployment.__dict__["addresses"] = (64, group.deployment.addresses[1])
        with pytest.raises(HardwareError, match=r"HBM of socket 0: .* is read, but some of it was never written"):
            group.through(0, given())

"""Do image, mask and embedding of a patch show the same place, and is every draw its step's own?"""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="no PyTorch here: make samda installs it")

import torch

from samda.images import Case
from samda.patches import TURNS, Drawing, _turned_place, changed, gamma, turned, window
from samda.plan import Width
from tests.samda.drawn import Blurred, Kept, disc_cases, tiny_plan

GRID = torch.arange(48 * 64, dtype=torch.float32).reshape(1, 48, 64)


@pytest.mark.parametrize("turn", range(TURNS))
def test_a_pixel_is_found_again_after_each_turn(turn):
    after = turned(GRID, turn)
    for place in ((0, 0), (0, 63), (47, 5), (13, 40)):
        row, column = _turned_place(place, GRID.shape[1:], turn)
        assert after[0, row, column] == GRID[0, place[0], place[1]]


def test_the_eight_turns_differ():
    square = GRID[:, :48, :48]
    assert len({turned(square, turn).numpy().tobytes() for turn in range(TURNS)}) == TURNS


def test_a_window_of_whole_pixels_is_what_is_there():
    assert torch.allclose(window(GRID, (8, 16, 32, 24), (32, 24), "bilinear"), GRID[:, 8:40, 16:40], atol=0.02)
    assert torch.equal(window(GRID, (8, 16, 32, 24), (32, 24), "nearest"), GRID[:, 8:40, 16:40])


def test_beyond_its_edge_an_image_is_mirrored():
    found = window(GRID, (-4, -2, 8, 8), (8, 8), "nearest")
    assert torch.equal(found[:, 4:, 2:], GRID[:, :4, :6])
    assert torch.equal(found[:, :4, 2:], GRID[:, :4, :6].flip(1)) and torch.equal(
        found[:, 4:, :2], GRID[:, :4, :2].flip(2)
    )


def test_a_window_of_an_embedding_is_that_of_the_pixels_it_is_of():
    means = torch.nn.functional.avg_pool2d(GRID, 8)
    found = window(means, (8, 16, 32, 32), (4, 4), "bilinear", stride=8)
    assert torch.allclose(found, means[:, 1:5, 2:6], atol=0.02)


@pytest.mark.parametrize("scales", [(1.0, 1.0), (1.4, 1.4), (0.7, 0.7)])
def test_image_mask_and_embedding_of_a_patch_are_of_one_place(monkeypatch, scales):
    monkeypatch.setattr("samda.patches.SCALED", 1.0)
    monkeypatch.setattr("samda.patches.SCALES", scales)
    monkeypatch.setattr("samda.patches.changed", lambda image, random: image)
    smooth = np.add.outer(np.linspace(0, 0.4, 96), np.linspace(0, 0.6, 80) ** 2).astype(np.float32)
    case = Case("ramp", smooth, smooth > 0.4, smooth > 0.2)
    plan = replace(make_plan_of(case), patch=(48, 32), batch=2)
    plan = replace(plan, normalisation=replace(plan.normalisation, low=0.0, high=1.0))
    drawing = Drawing([case], plan, Kept(Blurred()), seed=1)
    for step in range(6):
        batch = drawing.batch(step)
        pixels = batch.images[:, 0] * plan.normalisation.deviation + plan.normalisation.mean
        firmly = (pixels - 0.4).abs() > 0.02
        assert torch.equal(batch.masks[firmly], (pixels > 0.4).long()[firmly])
        firmly = (pixels - 0.2).abs() > 0.02
        assert torch.equal(batch.certain[firmly], (pixels > 0.2).float()[firmly])
        cells = torch.nn.functional.adaptive_avg_pool2d(pixels[:, None], batch.embedding.shape[2:])
        assert batch.embedding.shape[2:] == (48 // plan.unet.stride, 32 // plan.unet.stride)
        assert (batch.embedding[:, :1] - cells).abs().max() < 0.06


def make_plan_of(case):
    return tiny_plan([case], Width(4, 8, 8, 1_000_000))


def test_a_step_draws_the_same_whatever_was_drawn_before_it():
    cases = disc_cases(3)
    one, other = (Drawing(cases, tiny_plan(cases), None, seed=5) for _ in range(2))
    for step in (0, 1):
        one.batch(step)
    assert torch.equal(one.batch(2).images, other.batch(2).images)
    assert not torch.equal(one.batch(2).images, one.batch(3).images)
    assert not torch.equal(one.batch(2).images, Drawing(cases, tiny_plan(cases), None, seed=6).batch(2).images)


def test_the_last_third_of_a_batch_is_on_foreground():
    mask = np.zeros((128, 128), bool)
    mask[3:5, 5:7] = True
    case = Case("dot", np.random.default_rng(0).random((128, 128), np.float32), mask)
    plan = replace(make_plan_of(case), patch=(16, 16), batch=6)
    found = [Drawing([case], plan, None, seed=1).batch(step).masks.flatten(1).any(1) for step in range(8)]
    held = torch.stack(found)
    assert held[:, 4:].float().mean() > 0.9 and held[:, :4].float().mean() < 0.3


def test_an_image_has_an_embedding_of_each_turn_and_no_more():
    cases = disc_cases(2)
    kept = Kept(Blurred())
    drawing = Drawing(cases, tiny_plan(cases), kept, seed=1)
    for step in range(60):
        drawing.batch(step)
    assert len(kept.asked) == 2 * TURNS == len(set(kept.asked))


def test_brightness_contrast_noise_and_gamma_come_now_and_then():
    image = torch.linspace(-2, 2, 256).reshape(16, 16)
    found = [changed(image, np.random.default_rng(seed)) for seed in range(200)]
    unchanged = sum(torch.equal(image, one) for one in found)
    assert unchanged == pytest.approx(200 * 0.9 * 0.85 * 0.85 * 0.9 * 0.7, abs=25)
    bent = gamma(image, 1.5)
    assert (bent.mean(), bent.std()) == (
        pytest.approx(float(image.mean()), abs=1e-5),
        pytest.approx(float(image.std())),
    )
    assert not torch.allclose(bent, image, atol=0.1) and torch.equal(
        bent.flatten().argsort(), image.flatten().argsort()
    )


class Scripted:
    """Draws what a test says: ``random`` from a list, ``uniform`` by a share of its range, ``normal`` of seed 0."""

    def __init__(self, draws, share):
        self.draws, self.share = list(draws), share

    def random(self):
        return self.draws.pop(0)

    def uniform(self, low, high):
        return low + self.share * (high - low)

    def normal(self, mean, deviation, shape):
        return np.random.default_rng(0).normal(mean, deviation, shape)


IMAGE = torch.linspace(-1, 3, 64 * 64).reshape(64, 64)
NOISE, BRIGHTNESS, CONTRAST, INVERTED, GAMMA = range(5)


def changed_by(kind, share):
    return changed(IMAGE, Scripted([0.0 if place == kind else 0.99 for place in range(5)], share))


def test_each_change_is_what_its_name_says():
    assert torch.equal(changed_by(None, 0.5), IMAGE)
    assert float((changed_by(NOISE, 1.0) - IMAGE).std()) == pytest.approx(0.1**0.5, rel=0.05)
    assert torch.allclose(changed_by(BRIGHTNESS, 1.0), IMAGE * 1.25)
    assert torch.allclose(changed_by(CONTRAST, 0.0), (IMAGE - 1) * 0.75 + 1, atol=1e-5)
    more = changed_by(CONTRAST, 1.0)
    assert torch.allclose(more, ((IMAGE - 1) * 1.25 + 1).clamp(-1, 3), atol=1e-5)
    assert torch.allclose(changed_by(GAMMA, 1.0), gamma(IMAGE, 1.5))
    assert torch.allclose(changed_by(INVERTED, 1.0), -gamma(-IMAGE, 1.5))
    assert not torch.allclose(changed_by(INVERTED, 1.0), changed_by(GAMMA, 1.0), atol=0.1)


def test_no_patch_is_centred_on_foreground_that_is_not_certain():
    mask, certain = np.zeros((128, 128), bool), np.ones((128, 128), bool)
    mask[20:22, 20:22] = mask[100:102, 100:102] = True
    certain[:64] = False
    case = Case("two", np.random.default_rng(0).random((128, 128), np.float32), mask, certain)
    drawing = Drawing([case], replace(make_plan_of(case), patch=(16, 16), batch=2), None, seed=1)
    forced = [drawing.batch(step).certain[1] for step in range(12)]
    assert torch.stack(forced).mean() > 0.99

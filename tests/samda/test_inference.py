"""Is a whole image what its patches say, are losses and scores what they are by hand?"""

import math
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("torch", reason="no PyTorch here: make samda installs it")

import torch

from samda.composition import Composition, composed
from samda.inference import gaussian, logits, probabilities, segment, starts
from samda.loss import segmentation_loss, stage_weights
from samda.plan import Width
from samda.scores import Score, mean_score, score
from tests.samda.drawn import Blurred, Kept, disc_case, tiny_plan

PLAN = tiny_plan([disc_case(0)])
MODEL = composed(PLAN.unet, Composition(), seed=1)


@pytest.mark.parametrize(
    ("side", "expected"), [(64, [0]), (65, [0, 1]), (96, [0, 32]), (100, [0, 18, 36]), (40, [-12])]
)
def test_patches_overlap_by_half_at_least_and_reach_both_ends(side, expected):
    found = starts(side, 64)
    assert found == expected
    assert all(later - earlier <= 32 for earlier, later in pairwise(found))


def test_an_image_as_large_as_a_patch_is_one_pass():
    case = disc_case(3)
    image = torch.from_numpy(PLAN.normalisation.apply(case.pixels))[None, None]
    with torch.no_grad():
        expected = MODEL(image)[0][0]
    assert PLAN.patch == (64, 64) and torch.allclose(logits(MODEL, PLAN, case, None), expected, atol=1e-6)
    assert probabilities(MODEL, PLAN, case, None) == pytest.approx(expected.softmax(0)[1].numpy(), abs=1e-6)
    assert (segment(MODEL, PLAN, case, None) == (expected[1] > expected[0]).numpy()).all()


def test_patches_are_averaged_by_their_weights():
    case, (first, second) = disc_case(3, 64, 90), (0, 26)
    image = torch.from_numpy(PLAN.normalisation.apply(case.pixels))[None, None]
    weight, total, sums = gaussian((64, 64)), torch.zeros(2, 64, 90), torch.zeros(64, 90)
    for left in (first, second):
        with torch.no_grad():
            total[:, :, left : left + 64] += weight * MODEL(image[..., left : left + 64])[0][0]
        sums[:, left : left + 64] += weight
    assert torch.allclose(logits(MODEL, PLAN, case, None), total / sums, atol=1e-5)
    along = [math.exp(-0.5 * ((place - 31.5) / 8) ** 2) for place in range(64)]
    assert weight[10, 50] / weight[31, 31] == pytest.approx(along[10] * along[50] / along[31] ** 2, rel=1e-4)


@pytest.mark.parametrize(("height", "width"), [(40, 50), (64, 40), (40, 130)])
def test_an_image_smaller_than_a_patch_is_mirrored_beyond_its_edges(height, width):
    case = disc_case(3, height, width)
    found = logits(MODEL, PLAN, case, None)
    assert found.shape == (2, height, width)
    if width <= 64:
        above, left = (64 - height) // 2, (64 - width) // 2
        wide = np.pad(case.pixels, ((above, 64 - height - above), (left, 64 - width - left)), "symmetric")
        with torch.no_grad():
            whole = MODEL(torch.from_numpy(PLAN.normalisation.apply(wide))[None, None])[0][0]
        assert torch.allclose(found, whole[:, above : above + height, left : left + width], atol=1e-2)


def test_each_patch_gets_its_part_of_the_embedding_which_is_made_once():
    kept, seen, case = Kept(Blurred()), [], disc_case(3, 64, 128)

    class Network:
        def eval(self):
            pass

        def __call__(self, images, embedding):
            seen.extend(embedding)
            return [torch.zeros(len(images), 2, 64, 64)]

    plan = tiny_plan([disc_case(0)], Width(4, 8, 8, 2_000_000))
    assert plan.patch == (64, 64) and plan.unet.stride == Blurred.stride
    logits(Network(), plan, case, kept)
    assert len(kept.asked) == 1
    whole = Blurred().encode(torch.from_numpy(case.pixels)[None, None])[0]
    for left, embedding in zip((0, 32, 64), seen, strict=True):
        assert torch.allclose(embedding, whole[:, :, left // 8 : left // 8 + 8], atol=1e-4)


def test_stages_weigh_half_as_much_as_the_finer_one_and_the_coarsest_nothing():
    assert stage_weights(1) == [1.0]
    assert stage_weights(4) == pytest.approx([4 / 7, 2 / 7, 1 / 7, 0])


def test_the_loss_is_cross_entropy_less_dice_of_what_is_certain():
    odds = torch.tensor([[0.0, math.log(3)], [math.log(9), 0.0]])  # of foreground: 1/2, 3/4, 9/10, 1/2
    found = torch.stack((torch.zeros(2, 2), odds))[None]
    masks, certain = torch.tensor([[[0, 1], [1, 0]]]), torch.tensor([[[1.0, 1.0], [1.0, 0.0]]])
    entropy = -(math.log(1 / 2) + math.log(3 / 4) + math.log(9 / 10)) / 3
    dice = 2 * (3 / 4 + 9 / 10) / (1 / 2 + 3 / 4 + 9 / 10 + 2)
    assert float(segmentation_loss([found], masks, certain)) == pytest.approx(entropy - dice, abs=1e-5)
    coarse = found[..., :1, :1]
    both = float(segmentation_loss([found, coarse, coarse], masks, certain))
    half = -math.log(1 / 2)  # its truth is background, so its Dice is about 0
    assert both == pytest.approx(2 / 3 * (entropy - dice) + 1 / 3 * half, abs=1e-3)


def test_dice_and_iou_by_hand():
    one, other, none = np.array([[1, 1, 0, 0]], bool), np.array([[0, 1, 1, 1]], bool), np.zeros((1, 4), bool)
    assert score(one, other) == Score(2 / 5, 1 / 4)
    assert (score(one, none), score(none, none), score(one, one)) == (Score(0, 0), Score(1, 1), Score(1, 1))
    assert mean_score([Score(1, 1), Score(0, 0.5)]) == Score(0.5, 0.75)

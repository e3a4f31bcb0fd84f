"""Is a network made for its data set as nnU-Net makes it, and normalised so?"""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="no PyTorch here: make samda installs it")

from node.errors import InputError
from samda.fingerprint import Fingerprint, fingerprint, normalisation
from samda.images import Case
from samda.plan import WIDTHS, Width, make_plan, unet_shape
from samda.unet import parameters, unet
from tests.samda.drawn import disc_cases

SET = Fingerprint(images=24, shape=(384, 512), mean=0.4, deviation=0.1, low=0.2, high=0.6)


def test_the_expert_of_small_data_sets_is_that_of_the_prototype():
    shape = unet_shape((256, 256), WIDTHS["small"])
    assert shape.features == (16, 32, 64, 128, 256)
    assert (shape.strides, shape.stride) == ((1, 2, 2, 2, 2), 16)
    assert parameters(unet(shape)) == 1_944_232  # by hand: tests/samda/test_composition.py


def test_nnunets_width_is_nnunets():  # what its planner says of 2D images of 512 x 512
    plan = make_plan(replace(SET, shape=(512, 512), images=400), WIDTHS["nnunet"])
    assert plan.unet.features == (32, 64, 128, 256, 512, 512, 512, 512)
    assert (plan.patch, plan.batch) == ((512, 512), 12)


@pytest.mark.parametrize("patch", [(64, 64), (224, 288)])
def test_feature_maps_are_counted_as_nnunet_counts_them(patch):
    shape = unet_shape(patch, WIDTHS["small"])
    assert shape.feature_map_elements(*patch) == unet(shape).compute_conv_feature_map_size(patch)


def test_a_patch_shrinks_on_its_longer_side_until_two_fit_and_keeps_about_the_images_form():
    plan = make_plan(SET, WIDTHS["small"])
    used = 2 * 4 * plan.unet.feature_map_elements(*plan.patch)
    assert used <= WIDTHS["small"].budget < used * 1.1
    assert plan.batch == 2 and plan.patch == (224, 288)
    assert all(side % plan.unet.stride == 0 for side in plan.patch)


def test_what_is_left_of_the_budget_makes_batches_larger_but_not_beyond_a_share_of_the_data():
    wide = replace(WIDTHS["small"], budget=20 * WIDTHS["small"].budget)
    small = replace(SET, shape=(256, 256), images=100)
    assert make_plan(small, wide).batch == 5  # 5 % of 100 images
    assert make_plan(replace(small, images=1000), wide).batch == 12
    assert make_plan(replace(small, images=1), wide).batch == 2


def test_no_patch_that_fits_is_one_line():
    with pytest.raises(InputError, match=r"no patch of 24 pixels a side fits: images have 512 x 384, and 9.8 KiB"):
        make_plan(SET, Width(16, 256, 12, 10_000))


def test_the_fingerprint_is_of_the_foreground():
    cases = disc_cases(3)
    found = fingerprint([*cases, Case("wide", np.ones((64, 200), np.float32), np.zeros((64, 200), bool))])
    inside = np.concatenate([case.pixels[case.truth] for case in cases])
    assert (found.images, found.shape) == (4, (64, 64))
    assert found.mean == pytest.approx(inside.mean()) and found.deviation == pytest.approx(inside.std(), rel=1e-5)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(inside, (0.5, 99.5))))


def test_normalisation_clips_to_the_foreground_or_takes_each_image_by_itself():
    pixels = np.array([[0.1, 0.3, 0.4, 0.9]], np.float32)
    assert normalisation(SET, "foreground").apply(pixels)[0] == pytest.approx([-2, -1, 0, 2], abs=1e-5)
    by_itself = normalisation(SET, "image").apply(pixels)
    assert (by_itself.mean(), by_itself.std()) == pytest.approx((0, 1), abs=1e-6)
    assert normalisation(SET, "image").apply(2 * pixels + 1) == pytest.approx(by_itself, abs=1e-5)

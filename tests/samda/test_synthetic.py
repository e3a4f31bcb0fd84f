"""Is the synthetic set one that can be learned from, and are its domains two?"""

import json
from functools import cache

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image", reason="no pillow here: make samda installs it")

from node.errors import InputError
from samda.synthetic.domains import DOMAINS, domain_names, domain_of
from samda.synthetic.fields import blurred, grain, smooth
from samda.synthetic.files import micrograph, synthesise
from samda.synthetic.tissue import grow

NUMBERS = range(4)
micrograph = cache(micrograph)


def shaken(mask, reach):
    """A mask made wider by ``reach`` pixels along rows and columns."""
    wide = mask.copy()
    for step in range(-reach, reach + 1):
        wide |= np.roll(mask, step, 0) | np.roll(mask, step, 1)
    return wide


@pytest.mark.parametrize("domain", [0, 1, 7])
def test_equal_seeds_give_equal_images_and_any_other_gives_another(domain):
    image, mask = micrograph(domain, 128, 3, 0)
    again = micrograph.__wrapped__(domain, 128, 3, 0)
    assert (image == again[0]).all() and (mask == again[1]).all()
    for other in ((domain, 128, 4, 0), (domain, 128, 3, 1), (domain + 1, 128, 3, 0)):
        assert (micrograph(*other)[1] != mask).any()


@pytest.mark.parametrize("domain", [0, 1, 7])
@pytest.mark.parametrize("number", NUMBERS)
def test_mitochondria_are_there_dark_and_within_their_cells(domain, number):
    image, mask = micrograph(domain, 128, 0, number)
    assert image.shape == mask.shape == (128, 128)
    assert 0 <= image.min() < 0.3 and 0.6 < image.max() <= 1
    assert 0.03 < mask.mean() < 0.25
    around = shaken(mask, 4) & ~shaken(mask, 1)
    assert image[mask].mean() < image[around].mean() - 0.08
    tissue = grow(np.random.default_rng([0, domain, number]), 128, domain_of(domain, 0).anatomy)
    assert (tissue.mask == mask).all() and tissue.depth[mask].min() >= 3.5
    for one in tissue.mitochondria:
        assert len(np.unique(tissue.cell[one.window][one.inside >= 0])) == 1
    assert sum((one.inside >= 0).sum() for one in tissue.mitochondria) == mask.sum()  # none over another


@pytest.mark.parametrize("domain", [0, 1, 7])
def test_grey_alone_does_not_find_them(domain):
    """The best range of greys, chosen knowing the truth: membranes, glia, dense bodies and vesicles are as dark."""
    dice = []
    for number in NUMBERS:
        image, mask = micrograph(domain, 128, 0, number)
        ranges = [(low, low + width) for low in np.linspace(0, 0.6, 13) for width in np.linspace(0.05, 0.5, 10)]
        found = [(image > low) & (image < high) for low, high in ranges]
        dice.append(max(2 * (one & mask).sum() / (one.sum() + mask.sum()) for one in found))
    assert np.mean(dice) < 0.65


def test_the_domains_differ_in_contrast_noise_and_build():
    def measured(domain, number):
        image = micrograph(domain, 128, 0, number)[0]
        light = image > np.median(image)
        near, far = (np.roll(image, step, 1) - image for step in (1, 2))
        return np.quantile(image, 0.02), far[light].std() / near[light].std()

    first, second = ([measured(domain, number) for number in NUMBERS] for domain in (0, 1))
    for one, other in zip(zip(*first, strict=True), zip(*second, strict=True), strict=True):
        assert max(one) < min(other) or max(other) < min(one)
    widths = [
        [one.width for seed in NUMBERS for one in grow(np.random.default_rng(seed), 256, row.anatomy).mitochondria]
        for row in DOMAINS.values()
    ]
    assert np.mean(widths[1]) > 1.1 * np.mean(widths[0])


def test_more_domains_are_drawn_around_the_two_each_its_own(tmp_path):
    assert domain_names(4) == ["fibsem", "sstem", "domain02", "domain03"]
    one, other = domain_of(2, 0), domain_of(3, 0)
    assert (
        one == domain_of(2, 0)
        and len({one.microscope.blur, other.microscope.blur, domain_of(2, 1).microscope.blur}) == 3
    )
    first, second = (domain.microscope for domain in DOMAINS.values())
    greys = [domain_of(index, 0).microscope.membrane_grey for index in range(2, 40)]
    reach = 0.2 * (first.membrane_grey - second.membrane_grey)
    assert second.membrane_grey - reach <= min(greys) < second.membrane_grey
    assert first.membrane_grey < max(greys) <= first.membrane_grey + reach
    lengths = {domain_of(index, 0).microscope.noise_length for index in range(2, 40)}
    assert 0 in lengths and min(lengths - {0}) > 0.8
    synthesise(tmp_path / "set", images=1, size=96, seed=0, domains=4)
    assert sorted(path.name for path in (tmp_path / "set").iterdir() if path.is_dir()) == sorted(domain_names(4))


def test_fields_have_the_scale_that_they_are_asked_for():
    rng = np.random.default_rng(0)
    for field in (smooth(rng, (96, 128), 12), grain(rng, (96, 128), 3)):
        assert field.shape == (96, 128) and abs(field.mean()) < 1e-9 and abs(field.std() - 1) < 1e-9
    smooth_field, grains = smooth(rng, (128, 128), 12), grain(rng, (128, 128), 3)
    assert (smooth_field * np.roll(smooth_field, 6, 0)).mean() > 0.6
    assert abs((grains * np.roll(grains, 6, 0)).mean()) < 0.3
    point = np.zeros((65, 65))
    point[32, 32] = 1
    seen = blurred(point, 2.0)
    assert abs(seen.sum() - 1) < 1e-9 and abs((seen * (np.arange(65) - 32) ** 2).sum() - 4) < 1e-6


def test_files_are_images_and_masks_beside_each_other(tmp_path):
    synthesise(tmp_path / "set", images=2, size=96, seed=5)
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["fibsem", "manifest.json", "sstem"]
    assert json.loads((tmp_path / "set" / "manifest.json").read_text())["seed"] == 5
    for domain, name in enumerate(DOMAINS):
        folder = tmp_path / "set" / name
        names = sorted(path.name for path in folder.iterdir())
        assert names == ["000.png", "000_mask.png", "001.png", "001_mask.png"]
        stored, mask = Image.open(folder / "001.png"), Image.open(folder / "001_mask.png")
        assert (stored.mode, mask.mode, stored.size) == ("L", "1", (96, 96))
        image, truth = micrograph(domain, 96, 5, 1)
        assert np.abs(np.asarray(stored) / 255 - image).max() <= 0.5 / 255 + 1e-9
        assert (np.asarray(mask) == truth).all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"images": 0}, "--images 0: 1 to 999 are allowed"),
        ({"size": 95}, "--size 95: 96 to 4096 are allowed"),
        ({"seed": -1}, "--seed -1: 0 to "),
        ({"domains": 1}, "--domains 1: 2 to 99 are allowed"),
    ],
)
def test_numbers_out_of_range_are_one_line_and_leave_nothing(tmp_path, given, said):
    with pytest.raises(InputError, match=said):
        synthesise(tmp_path / "set", **{"images": 1, "size": 96, "seed": 0, **given})
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_or_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file: exists already"):
        synthesise(tmp_path / "file", 1, 96, 0)
    with pytest.raises(InputError, match=r"file/set: cannot be made: (Not a directory|File exists)"):
        synthesise(tmp_path / "file" / "set", 1, 96, 0)
    assert (tmp_path / "file").read_text() == "mine"


def test_what_cannot_be_finished_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(InputError, match="set: cannot be written: No space left on device"):
        synthesise(tmp_path / "set", 1, 96, 0)
    assert not list(tmp_path.iterdir())

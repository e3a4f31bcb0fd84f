"""What is read from folders of images and masks, and what is said of those that cannot be used?"""

import numpy as np
import pytest

pytest.importorskip("torch", reason="no PyTorch here: make samda installs it")

from PIL import Image

from node.errors import InputError
from samda.images import read_images, read_labelled
from tests.samda.drawn import disc_cases, write_folder


def test_both_layouts_and_both_kinds_of_files_hold_the_same(tmp_path):
    beside, below = write_folder(tmp_path / "beside", disc_cases(2)), tmp_path / "below"
    for name in ("images", "masks"):
        (below / name).mkdir(parents=True)
    for path in beside.glob("00?.png"):
        Image.open(path).save(below / "images" / f"{path.stem}.tif")
        mask = np.asarray(Image.open(beside / f"{path.stem}_mask.png")) > 0
        Image.fromarray(mask).save(below / "masks" / path.name)  # of one bit
    one, other = read_labelled(beside), read_labelled(below)
    assert [case.name for case in one] == [case.name for case in other] == ["000", "001"]
    for left, right, made in zip(one, other, disc_cases(2), strict=True):
        assert np.array_equal(left.pixels, right.pixels) and np.array_equal(left.truth, right.truth)
        assert np.array_equal(left.truth, made.truth)
        assert np.abs(left.pixels - made.pixels).max() <= 0.5 / 255 + 1e-6
        assert left.hash == right.hash
    assert one[0].hash != one[1].hash


def test_sixteen_bits_are_read_to_the_last_one(tmp_path):
    values = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    for suffix in ("png", "tiff"):
        Image.fromarray(values).save(tmp_path / f"{suffix}.{suffix}")
    for case in read_images(tmp_path):
        assert case.mask is None
        assert np.array_equal(np.round(case.pixels * 65535).astype(np.uint16), values)


def _without(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def _instead(name, image, **options):
    def save(folder):
        (folder / "000.png").unlink()
        image.save(folder / name, **options)

    return save


def _empty_masks(folder):
    for number in (0, 1):
        Image.new("1", (64, 64)).save(folder / f"00{number}_mask.png")


BREAKS = {
    "empty": _without("000.png", "000_mask.png", "001.png", "001_mask.png"),
    "no masks": _without("000_mask.png", "001_mask.png"),
    "a mask less": _without("001_mask.png"),
    "an image less": _without("001.png"),
    "sizes differ": lambda folder: Image.new("L", (64, 60), 255).save(folder / "001_mask.png"),
    "three channels": _instead("000.tif", Image.new("RGB", (64, 64))),
    "two pages": _instead("000.tif", Image.new("L", (64, 64)), save_all=True, append_images=[Image.new("L", (64, 64))]),
    "cut off": lambda folder: (folder / "000.png").write_bytes((folder / "000.png").read_bytes()[:200]),
    "no image at all": lambda folder: (folder / "000.png").write_bytes(b"text"),
    "no foreground": _empty_masks,
    "small": lambda folder: Image.new("L", (64, 31)).save(folder / "000.png"),
    "twice": lambda folder: Image.new("L", (64, 64)).save(folder / "000.tif"),
    "floats": _instead("000.tif", Image.fromarray(np.zeros((64, 64), np.float32))),
}


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("empty", "no images: expected .png, .tif, .tiff"),
        ("no masks", r"no masks: expected NAME_mask\.png"),
        ("a mask less", r"001\.png: has no mask \(1 of 2\)"),
        ("an image less", r"001_mask\.png: has no image"),
        ("sizes differ", r"001_mask\.png: 64 x 60 pixels, but its image 001\.png has 64 x 64"),
        ("three channels", r"000\.tif: has 3 channels: must be grey"),
        ("two pages", r"000\.tif: has 2 pages"),
        ("cut off", r"000\.png: cannot be read as an image"),
        ("no image at all", r"000\.png: cannot be read as an image"),
        ("no foreground", "none of its 2 masks has a pixel of foreground"),
        ("small", r"000\.png: 64 x 31 pixels: each side must have at least 32"),
        ("twice", r"000\.tif: 000\.png has the same name"),
        ("floats", r"000\.tif: has values of mode F"),
    ],
)
def test_what_cannot_be_learned_from_is_one_line(tmp_path, how, said):
    BREAKS[how](write_folder(tmp_path / "data", disc_cases(2)))
    with pytest.raises(InputError, match=said) as told:
        read_labelled(tmp_path / "data")
    assert "\n" not in str(told.value)


def test_a_folder_that_is_none_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for name, said in (("file", "is no folder"), ("nothing", "there is no such folder")):
        with pytest.raises(InputError, match=said):
            read_images(tmp_path / name)

"""Is what comes from the cache what the encoder says, whatever happened to the files?"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="no PyTorch here: make samda installs it")

from node.errors import InputError
from samda.cache import cached
from samda.encoders import make_encoder

KEYS = ["vnc/000", "vnc/001", "vnc/001 flipped"]


class Counting:
    """An encoder that says how many images it was asked for."""

    def __init__(self, inner):
        self.inner, self.asked = inner, 0
        self.name, self.hash, self.channels, self.stride = inner.name, inner.hash, inner.channels, inner.stride

    def encode(self, images):
        self.asked += len(images)
        return self.inner.encode(images)


@pytest.fixture(scope="module")
def inner():
    return make_encoder("random", seed=0)


@pytest.fixture
def encoder(inner):
    return Counting(inner)


@pytest.fixture
def images():
    return torch.rand(3, 1, 40, 33, generator=torch.Generator().manual_seed(0))


def files(folder):
    return sorted(path for path in folder.glob("*/*"))


def test_cached_embeddings_equal_fresh_ones_and_are_computed_once(encoder, images, tmp_path):
    fresh, cache = encoder.inner.encode(images), cached(encoder, tmp_path)
    assert torch.equal(cache.encode(images[1:2], KEYS[1:2]), fresh[1:2])
    assert torch.equal(cache.encode(images, KEYS), fresh) and encoder.asked == 3
    again = cached(encoder, tmp_path)
    assert torch.equal(again.encode(images.flip(0), KEYS[::-1]), fresh.flip(0)) and encoder.asked == 3
    assert (again.hits, again.misses) == (3, 0) and (cache.hits, cache.misses) == (1, 3)
    assert len(files(tmp_path)) == 3 and again.encoder is encoder


def test_a_key_of_another_image_is_no_hit(encoder, images, tmp_path):
    cache = cached(encoder, tmp_path)
    cache.encode(images[:1], ["same"])
    assert torch.equal(cache.encode(images[1:2], ["same"]), encoder.inner.encode(images[1:2]))
    assert cache.misses == 2 and len(files(tmp_path)) == 1


def test_encoders_share_a_folder(encoder, images, tmp_path):
    other = make_encoder("random", seed=1)
    cached(encoder, tmp_path).encode(images, KEYS)
    assert torch.equal(cached(other, tmp_path).encode(images, KEYS), other.encode(images))
    assert len(files(tmp_path)) == 6


@pytest.mark.parametrize("damage", ["cut", "empty", "a bit of the values", "a bit of the shape"])
def test_a_damaged_file_is_made_anew(encoder, images, tmp_path, damage):
    cache = cached(encoder, tmp_path)
    fresh = cache.encode(images, KEYS)
    for path in files(tmp_path):
        stored = bytearray(path.read_bytes())
        stored[-5 if damage == "a bit of the values" else 130] ^= 1
        path.write_bytes({"cut": stored[:-1000], "empty": b""}.get(damage, stored))
    assert torch.equal(cache.encode(images, KEYS), fresh) and encoder.asked == 6
    assert torch.equal(cache.encode(images, KEYS), fresh) and encoder.asked == 6


def test_a_write_that_fails_leaves_nothing_and_is_one_line(encoder, images, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    cache = cached(encoder, tmp_path)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InputError, match=r"cache of embeddings '.*': No space left on device: name a folder"):
        cache.encode(images, KEYS)
    assert not files(tmp_path)


def test_a_folder_that_is_none_is_one_line(encoder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cache of embeddings '.*file': "):
        cached(encoder, tmp_path / "file")


def test_no_more_is_kept_than_is_allowed(encoder, images, tmp_path):
    one = cached(encoder, tmp_path).encode(images[:1], KEYS[:1])
    size = files(tmp_path)[0].stat().st_size
    assert size > 4 * one.numel()
    for _ in range(2):  # the second finds it full
        cache = cached(encoder, tmp_path, most_bytes=2 * size)
        assert torch.equal(cache.encode(images, KEYS), encoder.inner.encode(images))
        assert len(files(tmp_path)) == 2 and cache.room == 0


def test_a_key_for_each_image(encoder, images, tmp_path):
    with pytest.raises(ValueError, match="zip"):
        cached(encoder, tmp_path).encode(images, KEYS[:2])


SHARING = """
import sys, torch
from pathlib import Path
from samda.cache import cached

class Slope:
    name, hash, channels, stride = "slope", "f" * 64, 8, 1
    def encode(self, images):
        return images.expand(-1, 8, -1, -1) * torch.arange(8.0)[:, None, None]

images = torch.arange(40 * 24 * 24.0).reshape(40, 1, 24, 24)
print("here", flush=True)
for time in range(10):
    cache = cached(Slope(), Path(sys.argv[1]))
    order = torch.randperm(40, generator=torch.Generator().manual_seed(time))
    found = cache.encode(images[order], [str(int(index)) for index in order])
    assert torch.equal(found, Slope().encode(images[order]))
    for path in list(Path(sys.argv[1]).glob("*/*"))[::3]:
        path.unlink(missing_ok=True)
"""


def test_processes_that_share_a_folder_do_each_other_no_harm(tmp_path, monkeypatch):
    command, environment = [sys.executable, "-c", SHARING, str(tmp_path)], {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"here\n"
        monkeypatch.setattr(sys, "argv", ["", str(tmp_path)])
        exec(SHARING, {})
    assert other.returncode == 0
    assert not [path for path in files(tmp_path) if path.name.startswith(".")]


def test_a_cache_that_is_cleared_while_it_is_used_goes_on(encoder, images, tmp_path):
    cache = cached(encoder, tmp_path / "cache")
    fresh = cache.encode(images, KEYS)
    shutil.rmtree(tmp_path / "cache")
    assert torch.equal(cache.encode(images, KEYS), fresh) and len(files(tmp_path / "cache")) == 3

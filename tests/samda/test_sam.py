"""SAM's encoders from checkpoints of random weights: what SAM's own code makes of them, and nobody else's weights.

SAM's trained weights are in no package registry: nothing here has seen them.
"""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="no PyTorch here: make samda installs it")

from torch.nn import Identity
from torch.nn.functional import interpolate

from cluster.cli_options import OUT
from node.errors import InputError
from samda.cli_options import embeddings_of, tell_encoder
from samda.encoders import make_encoder, sam_code
from samda.encoders.sam import read
from samda.encoders.sam_code import VARIANTS, Variant, image_encoder

SMALL = Variant(width=24, depth=3, heads=2, global_blocks=(1,), pixels=128, patch=16, window=3, channels=8)
PARAMETERS = {"sam-vit-b": 89_670_912, "sam-vit-l": 308_278_272, "sam-vit-h": 637_026_048}


def with_random_weights(variant, seed=0):
    """SAM's own module; every weight matters, those that start at zero, too."""
    model = image_encoder(variant).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + 0.1)
    return model


@pytest.fixture(scope="module")
def model():
    return with_random_weights(SMALL)


@pytest.fixture(scope="module")
def full(model, tmp_path_factory):
    """A checkpoint as SAM's are: of the whole of it, with a decoder."""
    path = tmp_path_factory.mktemp("sam") / "full.pth"
    weights = {f"image_encoder.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({**weights, "mask_decoder.iou_token.weight": torch.ones(1, 8)}, path)
    return path


@pytest.fixture
def images():
    return torch.rand(2, 1, 100, 70, generator=torch.Generator().manual_seed(1))


def prepared(images, model):
    """As SAM's own ``preprocess`` has them, of images in colour from 0 to 255."""
    image_encoder(SMALL, "meta")  # so its package can be imported
    from segment_anything.modeling.sam import Sam  # noqa: PLC0415

    whole = Sam(image_encoder=model, prompt_encoder=Identity(), mask_decoder=Identity())
    return whole.preprocess(255 * images.expand(-1, 3, -1, -1))


def test_embeddings_are_those_of_segment_anything(model, full, images):
    found = read("small", SMALL, full).encode(images)
    assert found.shape == (2, 8, 7, 5) and found.dtype == torch.float32 and not found.requires_grad
    expected = model(prepared(images, model))[:, :, :7, :5]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_bare_state_dict_is_the_same_encoder(model, full, images, tmp_path):
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    whole, bare = read("small", SMALL, full), read("small", SMALL, tmp_path / "bare.pth")
    assert whole.hash == bare.hash and torch.equal(whole.encode(images), bare.encode(images))
    torch.save(with_random_weights(SMALL, seed=1).state_dict(), tmp_path / "other.pth")
    assert read("small", SMALL, tmp_path / "other.pth").hash != whole.hash


@pytest.mark.parametrize("pixels", [64, 192])
def test_at_another_size_positions_are_resized_and_that_is_said(model, full, pixels):
    places = pixels // 16
    encoder = read("small", SMALL, full, pixels)
    at_size = image_encoder(Variant(**{**vars(SMALL), "pixels": pixels})).eval().requires_grad_(False)
    weights = dict(model.state_dict())
    for name in ("blocks.1.attn.rel_pos_h", "blocks.1.attn.rel_pos_w"):
        weights[name] = interpolate(weights[name].T[None], 2 * places - 1, mode="linear")[0].T
    weights["pos_embed"] = encoder._model.pos_embed
    at_size.load_state_dict(weights)
    images = torch.rand(1, 1, pixels, pixels, generator=torch.Generator().manual_seed(2))
    normalised = (255 * images - torch.tensor([123.675, 116.28, 103.53]).reshape(1, 3, 1, 1)) / torch.tensor(
        [58.395, 57.12, 57.375]
    ).reshape(1, 3, 1, 1)
    torch.testing.assert_close(encoder.encode(images), at_size(normalised), rtol=1e-4, atol=1e-4)
    assert f"from 8 x 8 to {places} x {places} places" in encoder.note
    assert f"from 15 to {2 * places - 1}" in encoder.note
    assert encoder.hash != read("small", SMALL, full).hash and read("small", SMALL, full).note is None


@pytest.mark.parametrize("pixels", [64, 192])
def test_resized_positions_keep_their_place(model, pixels, tmp_path):
    ramp = torch.arange(8.0)
    weights = dict(model.state_dict())
    weights["pos_embed"] = (ramp[:, None] + 10 * ramp)[None, ..., None].expand(1, 8, 8, 24)
    torch.save(weights, tmp_path / "ramp.pth")
    found = read("small", SMALL, tmp_path / "ramp.pth", pixels)._model.pos_embed[0, ..., 0]
    places = pixels // 16
    expected = (torch.arange(places) + 0.5) * 8 / places - 0.5  # where their middles lie in the grid that was there
    inside = slice(places // 4, -(places // 4))  # a cubic of a straight line is within a twentieth of it
    both = expected[inside, None] + 10 * expected[None, inside]
    torch.testing.assert_close(found[inside, inside], both, rtol=0, atol=0.05 * 11)


def test_too_large_an_image_and_a_size_of_no_whole_patches_are_one_line(full):
    with pytest.raises(InputError, match="images of 64 x 129 pixels; at most 128 x 128 are allowed"):
        read("small", SMALL, full).encode(torch.zeros(1, 1, 64, 129))
    for pixels in (0, -16, 100):
        with pytest.raises(InputError, match=f"size {pixels}: a multiple of 16 pixels"):
            read("small", SMALL, full, pixels)


def as_checkpoint(variant, path):
    """Of its names and shapes, with next to nothing in the file."""
    shapes = {name: tensor.shape for name, tensor in image_encoder(variant, "meta").state_dict().items()}
    torch.save({f"image_encoder.{name}": torch.zeros(1).expand(shape) for name, shape in shapes.items()}, path)
    return path


def test_another_variant_s_checkpoint_is_told_by_name(tmp_path):
    large = as_checkpoint(VARIANTS["sam-vit-l"], tmp_path / "large.pth")
    said = (
        r"encoder 'sam-vit-b': checkpoint '.*large.pth' is not of this variant, but has the width and depth of "
        r"sam-vit-l: patch_embed.proj.bias is \(1024,\), expected \(768,\)$"
    )
    with pytest.raises(InputError, match=said):
        make_encoder("sam-vit-b", checkpoint=large)
    cut = torch.load(large)
    del cut["image_encoder.blocks.3.norm1.weight"]
    torch.save(cut, large)
    with pytest.raises(InputError, match=r"blocks.3.norm1.weight is missing, expected \(1024,\)$"):
        make_encoder("sam-vit-l", checkpoint=large)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", {"model": {}}, [1], {1: torch.zeros(1)}])
def test_a_file_that_is_no_checkpoint_is_one_line(content, tmp_path):
    path = tmp_path / "sam.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=r"checkpoint '.*sam.pth' is no file of weights by name"):
        make_encoder("sam-vit-b", checkpoint=path)


def test_a_checkpoint_that_is_not_there_or_foreign_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"checkpoint '/nowhere/sam.pth': No such file"):
        make_encoder("sam-vit-h", checkpoint=Path("/nowhere/sam.pth"))
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "foreign.pth")
    with pytest.raises(InputError, match="is not of this variant, nor of another: sam-vit-b, sam-vit-l, sam-vit-h"):
        make_encoder("sam-vit-h", checkpoint=tmp_path / "foreign.pth")


def test_code_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setattr(sam_code, "PACKAGE", "segment_anything_elsewhere")
    with pytest.raises(InputError, match=r"segment-anything==1.0 is not installed; pip install --no-deps"):
        image_encoder(SMALL)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_variants_have_the_sizes_that_they_are_known_by(name):
    assert sum(weight.numel() for weight in image_encoder(VARIANTS[name], "meta").parameters()) == PARAMETERS[name]


def test_vit_b_runs_from_a_checkpoint_of_its_full_size(tmp_path):
    model = image_encoder(VARIANTS["sam-vit-b"]).eval().requires_grad_(False)
    torch.save(model.state_dict(), tmp_path / "b.pth")
    encoder = make_encoder("sam-vit-b", checkpoint=tmp_path / "b.pth", pixels=64)
    image = torch.rand(1, 1, 50, 64, generator=torch.Generator().manual_seed(3))
    found = encoder.encode(image)
    assert found.shape == (1, 256, 4, 4) and torch.equal(found, encoder.encode(image))
    assert not torch.equal(found, encoder.encode(1 - image))
    assert (encoder.name, encoder.channels, encoder.stride) == ("sam-vit-b", 256, 16)


def test_positions_that_change_from_place_to_place_are_averaged_where_there_are_fewer(model, tmp_path):
    weights = dict(model.state_dict())
    stripes = torch.tensor([1.0, -1.0]).repeat(4)
    weights["pos_embed"] = stripes[None, None, :, None].expand(1, 8, 8, 24).half()
    torch.save(weights, tmp_path / "stripes.pth")
    encoder = read("small", SMALL, tmp_path / "stripes.pth", 80)
    assert encoder._model.pos_embed.dtype == torch.float32
    assert encoder._model.pos_embed.abs().max() < 0.6


def test_the_option_names_file_and_size_and_says_what_differs(full, tmp_path, monkeypatch):
    monkeypatch.setitem(VARIANTS, "sam-vit-b", SMALL)
    small, own = (embeddings_of(f"sam-vit-b:{full}{size}", tmp_path).encoder for size in ("@64", ""))
    assert small.hash == read("sam-vit-b", SMALL, full, 64).hash and own.hash == read("sam-vit-b", SMALL, full).hash
    at = tmp_path / "at@home"
    at.write_bytes(full.read_bytes())
    assert embeddings_of(f"sam-vit-b:{at}", tmp_path).encoder.hash == own.hash
    said = []
    monkeypatch.setattr(OUT, "print", lambda text, **_: said.append(text))
    tell_encoder("encoder", own)
    tell_encoder("generic", small)
    assert said[:2] == [
        f"{what}: sam-vit-b, hash {one.hash[:16]}" for what, one in (("encoder", own), ("generic", small))
    ]
    assert said[2] == f"note: sam-vit-b: {small.note}" and len(said) == 3
    with pytest.raises(InputError, match=r"--encoder 'sam-vit-b:.*@20': encoder 'sam-vit-b': size 20: a mult"):
        embeddings_of(f"sam-vit-b:{full}@20", tmp_path)

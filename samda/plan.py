"""From a data set's fingerprint to a network: patch, stages, features, batch.

After nnU-Net's planner (Isensee et al. 2021, ``default_experiment_planner``): the patch begins as the median shape,
each stage halves it for as long as no side falls below an edge, features double from stage to stage up to a bound, two
convolutions a stage; while a batch of two does not fit the budget the side that is longest beside the median shape gets
shorter; what is left of the budget makes the batch larger, up to 5 % of the data set's pixels. Ours: both sides are
halved together, the budget counts bytes of feature maps rather than those of a GPU, and the width "small", which makes
1.9 million parameters of an image of 256 pixels, for data sets of some dozen images; "nnunet" has nnU-Net's numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from node.errors import InputError
from node.units import show_bytes
from samda.fingerprint import Fingerprint, Normalisation, normalisation

FLOAT = 4  # bytes
LEAST_BATCH, MOST_BATCH = 2, 12
SHARE = 0.05  # of the data set's pixels that a batch may hold


@dataclass(frozen=True)
class Width:
    """``base``: features of the first stage; ``most``: of any; ``edge``: the least side of the last one's, in pixels.

    ``budget``: bytes of the feature maps of a batch.
    """

    base: int
    most: int
    edge: int
    budget: int


WIDTHS = {
    "small": Width(16, 256, 12, 82_000_000),  # 2 patches of 256 x 256
    "nnunet": Width(32, 512, 4, 12 * 85_000_000 * FLOAT),  # its elements for 8 GB, at a batch of 12
}


@dataclass(frozen=True)
class UNetShape:
    """A U-Net of ``PlainConvUNet``; strides and numbers of convolutions by stage, the decoder's from the bottom up."""

    features: tuple[int, ...]
    strides: tuple[int, ...]
    convs_encoder: tuple[int, ...]
    convs_decoder: tuple[int, ...]
    input_channels: int = 1
    classes: int = 2
    kernel: int = 3
    norm_epsilon: float = 1e-5
    leaky_slope: float = 0.01

    @property
    def stride(self) -> int:
        """Pixels, along either side, to a place of the bottleneck."""
        return list(accumulate(self.strides, lambda one, other: one * other))[-1]

    def feature_map_elements(self, height: int, width: int) -> int:
        """Elements of all feature maps of an image, as nnU-Net counts them: of convolutions and of all heads."""
        areas, area = [], height * width
        for stride in self.strides:
            area //= stride * stride
            areas.append(area)
        down = sum(n * f * a for n, f, a in zip(self.convs_encoder, self.features, areas, strict=True))
        above = zip(self.convs_decoder, self.features[-2::-1], areas[-2::-1], strict=True)
        return down + sum(a * ((n + 1) * f + self.classes) for n, f, a in above)


@dataclass(frozen=True)
class Plan:
    """What a network is made and trained by. ``patch``: height and width; ``batch``: patches a step."""

    unet: UNetShape
    patch: tuple[int, int]
    batch: int
    normalisation: Normalisation


def unet_shape(patch: tuple[int, int], width: Width) -> UNetShape:
    """The U-Net of a patch: halved until a side would fall below the edge."""
    halvings = 0
    while min(patch) >> (halvings + 1) >= width.edge:
        halvings += 1
    features = tuple(min(width.base << stage, width.most) for stage in range(halvings + 1))
    return UNetShape(features, (1, *(2,) * halvings), (2,) * (halvings + 1), (2,) * halvings)


def make_plan(found: Fingerprint, width: Width, scheme: str = "foreground") -> Plan:
    """The plan of a data set; raises ``InputError`` where nothing fits the budget."""
    patch, budget = found.shape, width.budget
    while True:
        shape = unet_shape(patch, width)
        if len(shape.features) == 1:
            least = 2 * width.edge
            raise InputError(
                f"no patch of {least} pixels a side fits: images have {found.shape[1]} x {found.shape[0]}, "
                f"and {show_bytes(budget)} are allowed for feature maps; allow more (--budget), or take larger images"
            )
        patch = _rounded_up(patch, shape.stride)
        sample = FLOAT * shape.feature_map_elements(*patch)
        if LEAST_BATCH * sample <= budget:
            break
        patch = _shorter(patch, found.shape, shape.stride)
    pixels = found.images * found.shape[0] * found.shape[1]
    most = min(MOST_BATCH, int(SHARE * pixels / (patch[0] * patch[1])))
    batch = max(LEAST_BATCH, min(budget // sample, most))
    return Plan(shape, patch, batch, normalisation(found, scheme))


def _rounded_up(patch: tuple[int, int], stride: int) -> tuple[int, int]:
    height, width = (-(-side // stride) * stride for side in patch)
    return height, width


def _shorter(patch: tuple[int, int], median: tuple[int, int], stride: int) -> tuple[int, int]:
    """By one step on the side that is longest beside the median shape; of two, the wider."""
    height, width = patch
    if height / median[0] > width / median[1]:
        return height - stride, width
    return height, width - stride

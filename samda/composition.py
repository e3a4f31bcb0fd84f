"""An expert: a U-Net, and what joins a generic embedding to it at the bottleneck.

Published (SAMDA, arXiv 2403.07951; nnSAM, arXiv 2309.16967): the image goes through a frozen generic encoder and the
expert's own, and both embeddings are concatenated before the decoder ("concat"). Ours: that a 1 x 1 convolution brings
the concatenation back to the bottleneck's features, so that the U-Net is the same in every composition; and "adapter",
which adds to the bottleneck what two convolutions make of the embedding, the last of which begins at zero, so that an
adaptation starts exactly at the plain expert. Ours, too: channels of an embedding are standardised by their mean and
deviation over the images of the first training with it, which stay with the expert.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from samda.encoder import Encoder
from samda.plan import UNetShape
from samda.unet import unet

KINDS = ("plain", "concat", "adapter")
PARTS = ("encoder", "decoder", "adapter")  # what can be trained or frozen; encoder: the U-Net's own
HIDDEN = 64  # channels to which an embedding is reduced
LEAST = 1e-6  # a deviation to divide by: a channel that is silent on all images stays so


@dataclass(frozen=True)
class EncoderFacts:
    """Of the generic encoder that an expert was made with: another one does not go with it."""

    name: str
    hash: str
    channels: int
    stride: int

    @classmethod
    def of(cls, encoder: Encoder) -> EncoderFacts:
        """Without the encoder."""
        return cls(encoder.name, encoder.hash, encoder.channels, encoder.stride)


@dataclass(frozen=True)
class Composition:
    """``kind``: of ``KINDS``; ``hidden``: channels between an embedding and the bottleneck."""

    kind: str = "plain"
    encoder: EncoderFacts | None = None
    hidden: int = HIDDEN


class Adapter(nn.Module):
    """Joins an embedding (N, C, h, w) to a bottleneck (N, F, H, W), which keeps its shape."""

    def __init__(self, composition: Composition, features: int) -> None:
        super().__init__()
        assert composition.encoder is not None
        channels, hidden = composition.encoder.channels, composition.hidden
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.added = composition.kind == "adapter"
        if self.added:
            self.output = nn.Conv2d(hidden, features, 3, padding=1)
            nn.init.zeros_(self.output.weight)
            nn.init.zeros_(self.output.bias)
        else:
            self.output = nn.Conv2d(features + hidden, features, 1)

    def standardise_by(self, embeddings: Sequence[Tensor]) -> None:
        """Set mean and deviation to those of each channel over all places of the embeddings, (C, h, w) each."""
        places = torch.cat([embedding.flatten(1) for embedding in embeddings], 1).double()
        self.mean.copy_(places.mean(1))
        self.deviation.copy_(places.std(1, correction=0).clamp(min=LEAST))

    def forward(self, bottleneck: Tensor, embedding: Tensor) -> Tensor:
        """The bottleneck that the decoder gets."""
        embedding = (embedding - self.mean[:, None, None]) / self.deviation[:, None, None]
        if embedding.shape[2:] != bottleneck.shape[2:]:
            embedding = functional.interpolate(embedding, bottleneck.shape[2:], mode="bilinear", align_corners=False)
        reduced = self.reduce(embedding)
        if self.added:
            return bottleneck + self.output(functional.leaky_relu(reduced, 0.01))
        return self.output(torch.cat((bottleneck, reduced), 1))


class Composed(nn.Module):
    """An expert as a network."""

    def __init__(self, shape: UNetShape, composition: Composition) -> None:
        super().__init__()
        self.unet = unet(shape)
        self.adapter = None if composition.kind == "plain" else Adapter(composition, shape.features[-1])

    def forward(self, images: Tensor, embedding: Tensor | None = None) -> list[Tensor]:
        """Logits, the finest first, of images (N, 1, H, W); a plain expert takes no embedding, any other needs one."""
        skips = self.unet.encoder(images)
        if self.adapter is not None:
            skips = [*skips[:-1], self.adapter(skips[-1], embedding)]
        return self.unet.decoder(skips)

    def train_only(self, parts: Sequence[str]) -> list[nn.Parameter]:
        """Freeze what is not among ``parts`` (of ``PARTS``), and give what is left to train."""
        found = {"encoder": self.unet.encoder, "decoder": self.unet.decoder, "adapter": self.adapter}
        self.requires_grad_(False)
        for part in parts:
            if (module := found[part]) is not None:
                module.requires_grad_(True)
        if "decoder" in parts:  # PlainConvUNet's decoder holds its encoder, too
            self.unet.encoder.requires_grad_("encoder" in parts)
        return [weight for weight in self.parameters() if weight.requires_grad]


def composed(shape: UNetShape, composition: Composition, seed: int) -> Composed:
    """A network whose weights are drawn from a seed: the U-Net's are the same in every composition."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Composed(shape, composition)


def with_adapter(plain: Composed, shape: UNetShape, composition: Composition, seed: int) -> Composed:
    """A plain expert's network with an adapter beside it, which as yet adds nothing."""
    made = composed(shape, composition, seed)
    made.unet.load_state_dict(plain.unet.state_dict())
    return made

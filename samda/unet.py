"""The U-Net of nnU-Net, from its own library."""

from __future__ import annotations

from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from samda.plan import UNetShape


def unet(shape: UNetShape) -> PlainConvUNet:
    """A U-Net with fresh weights (He), which gives logits of every stage of its decoder, the finest first.

    Images (N, 1, H, W) to logits (N, classes, H, W), then of halves and quarters of it. Convolutions have biases,
    instance norm is affine, strided convolutions go down and transposed ones up: what nnU-Net configures.
    """
    made = PlainConvUNet(
        shape.input_channels,
        len(shape.features),
        list(shape.features),
        nn.Conv2d,
        shape.kernel,
        list(shape.strides),
        list(shape.convs_encoder),
        shape.classes,
        list(shape.convs_decoder),
        conv_bias=True,
        norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"eps": shape.norm_epsilon, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"negative_slope": shape.leaky_slope, "inplace": True},
        deep_supervision=True,
    )
    made.apply(made.initialize)
    return made


def parameters(module: nn.Module) -> int:
    """How many numbers a module learns."""
    return sum(weight.numel() for weight in module.parameters())

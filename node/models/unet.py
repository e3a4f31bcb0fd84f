"""The U-Net of nnU-Net (``PlainConvUNet``) as an operator graph, and what joins a generic embedding to its bottleneck.

Each stage down is so many convolutions, the first with the stage's stride, each followed by an instance norm and a
leaky ReLU; each stage up a transposed convolution, whose result and what the stage down of its size made are
concatenated, and again convolutions. Sizes are per sequence, each with one image.

Tensor parallelism: the channels that a convolution makes are split over the sockets, unevenly where they do not
divide; norm and leaky ReLU work on a socket's own, and then all are gathered, as the next convolution needs every
channel. What a skip connection carries was gathered already by the stage that made it. A layer whose FLOPs are not
``worth`` the bytes that gathering takes is done whole by every socket: split, each byte that a socket sends saves it as
many FLOPs as the layer's inner dimension has elements.
"""

from __future__ import annotations

from dataclasses import dataclass

from node.dataflow.attributes import Planes, Resize, Window
from node.dataflow.graph import Block, Graph, Operator, Tensor, share
from node.dataflow.image_operators import (
    bilinear,
    concatenation,
    convolution,
    instance_norm,
    leaky_relu,
    planes,
    standardise,
    transposed_convolution,
)
from node.dataflow.operators import ELEMENT_BYTES, collective, elementwise
from node.models.unet_shape import ADAPTER_SLOPE, UNetShape

IMAGE, EMBEDDING, LOGITS = "image", "embedding", "logits"


def unet(
    shape: UNetShape, degree: int = 1, rank: int = 0, *, worth: float = 0.0, weight_bytes: float = ELEMENT_BYTES
) -> Graph:
    """The graph of one socket's shard, from ``IMAGE`` (and an ``EMBEDDING``) to ``LOGITS`` of each class.

    ``worth``: FLOPs that a byte over the link is worth, the machine's peak over its link's bandwidth; 0: all is split.
    """
    build = _Builder(shape, degree, rank, worth, weight_bytes)
    now, skips, blocks = build.image(), [], []
    for stage in range(len(shape.features)):
        operators, now = build.down(stage, now)
        blocks.append(Block(f"down{stage}", operators))
        skips.append(now)
    skips.pop()
    if shape.composition.kind != "plain":
        operators, now = build.join(now)
        blocks.append(Block("adapter", operators))
    for stage in range(len(skips)):
        operators, now = build.up(stage, now, skips.pop())
        blocks.append(Block(f"up{stage}", operators))
    blocks.append(Block("head", build.head(now)))
    return Graph(shape.name, tuple(blocks))


@dataclass(frozen=True, slots=True)
class _Image:
    """An image between layers, all of its channels."""

    tensor: Tensor
    of: Planes


Made = tuple[tuple[Operator, ...], _Image]


@dataclass(frozen=True, slots=True)
class _Builder:
    shape: UNetShape
    degree: int
    rank: int
    worth: float
    weight_bytes: float

    def image(self) -> _Image:
        """What enters."""
        of = Planes(self.shape.input_channels, *self.shape.patch)
        return _Image(planes(IMAGE, of, given=True), of)

    def down(self, stage: int, source: _Image) -> Made:
        """A stage of the encoder, which all but the last hand on to the decoder too."""
        shape, last = self.shape, len(self.shape.features) - 1
        strides = (shape.strides[stage], *(1,) * (shape.convs_encoder[stage] - 1))
        return self._layers(f"down{stage}", source, shape.features[stage], strides, kept=stage < last)

    def up(self, stage: int, below: _Image, skip: _Image) -> Made:
        """A stage of the decoder, from the bottom up."""
        shape, name = self.shape, f"up{stage}"
        channels, factor = shape.features[-2 - stage], shape.strides[-1 - stage]
        split, height, width = self._split(below.of.channels), below.of.height * factor, below.of.width * factor
        held = self._held(channels, split)
        drawn = planes(f"{name}_drawn", Planes(held, height, width))
        draw = transposed_convolution(name, below.tensor, drawn, below.of, held, factor, self.weight_bytes)
        gathered, whole = self._gathered(name, drawn, Planes(channels, height, width), split)
        both = Planes(2 * channels, height, width)
        joined = _Image(planes(f"{name}_joined", both), both)
        join = concatenation(f"{name}_concatenation", (whole.tensor, skip.tensor), joined.tensor)
        layers, made = self._layers(name, joined, channels, (1,) * shape.convs_decoder[stage])
        return (draw, *gathered, join, *layers), made

    def head(self, source: _Image) -> tuple[Operator, ...]:
        """Logits, of the finest stage alone: the others serve training."""
        layer, _ = self._convolution("head", source, self.shape.classes, 1, LOGITS)
        return layer

    def join(self, bottleneck: _Image) -> Made:
        """The generic embedding, standardised, drawn on the bottleneck's places and reduced; added or concatenated."""
        shape, composition = self.shape, self.shape.composition
        of = Planes(composition.channels, *shape.embedding)
        embedding, even = planes(EMBEDDING, of, given=True), _Image(planes("adapter_even", of), of)
        operators = [standardise("adapter_standardise", embedding, even.tensor, of, self.weight_bytes)]
        if shape.embedding != shape.bottleneck:
            drawn = Planes(of.channels, *shape.bottleneck)
            resized = _Image(planes("adapter_resized", drawn), drawn)
            operators.append(bilinear("adapter_resize", even.tensor, resized.tensor, Resize(of, drawn)))
            even = resized
        reduce, reduced = self._convolution("adapter_reduce", even, composition.hidden, 1)
        operators += reduce
        if composition.kind == "adapter":
            return self._added(operators, reduced, bottleneck)
        both = Planes(bottleneck.of.channels + composition.hidden, *shape.bottleneck)
        joined = _Image(planes("adapter_joined", both), both)
        join = concatenation("adapter_concatenation", (bottleneck.tensor, reduced.tensor), joined.tensor)
        layer, made = self._convolution("adapter_output", joined, bottleneck.of.channels, 1)
        return (*operators, join, *layer), made

    def _added(self, operators: list[Operator], reduced: _Image, bottleneck: _Image) -> Made:
        activated = _Image(planes("adapter_activated", reduced.of), reduced.of)
        activate = leaky_relu("adapter_relu", reduced.tensor, activated.tensor, ADAPTER_SLOPE)
        layer, added = self._convolution("adapter_output", activated, bottleneck.of.channels, 3)
        total = planes("adapter_sum", bottleneck.of)
        add = elementwise(
            "adapter_add", (bottleneck.tensor, added.tensor), (total,), flops=bottleneck.of.elements, function="add"
        )
        return (*operators, activate, *layer, add), _Image(total, bottleneck.of)

    def _layers(
        self, name: str, source: _Image, channels: int, strides: tuple[int, ...], *, kept: bool = False
    ) -> Made:
        """Convolutions, each with its norm and leaky ReLU; ``kept``: another block takes what the last one makes."""
        operators: list[Operator] = []
        for number, stride in enumerate(strides):
            last = number == len(strides) - 1
            layer, source = self._layer(f"{name}_{{}}{number}", source, channels, stride, kept=kept and last)
            operators += layer
        return tuple(operators), source

    def _layer(self, name: str, source: _Image, channels: int, stride: int, *, kept: bool) -> Made:
        """``name`` with a place for what the operator is."""
        kernel, convolve = self.shape.kernel, name.format("conv")
        split = self._split(kernel**2 * source.of.channels)
        over, held = Window(source.of, kernel, stride, (kernel - 1) // 2), self._held(channels, split)
        of = over.made(held)
        convolved, normed = planes(f"{convolve}_result", of), planes(name.format("normed"), of)
        activated = planes(name.format("activated"), of, kept=kept and not split)
        operators = (
            convolution(convolve, source.tensor, convolved, over, held, self.weight_bytes),
            *instance_norm(name.format("norm"), convolved, normed, of, self.shape.norm_epsilon, self.weight_bytes),
            leaky_relu(name.format("relu"), normed, activated, self.shape.leaky_slope),
        )
        gathered, whole = self._gathered(convolve, activated, over.made(channels), split, kept=kept)
        return (*operators, *gathered), whole

    def _convolution(self, name: str, source: _Image, channels: int, kernel: int, result: str = "") -> Made:
        """A convolution alone."""
        split = self._split(kernel**2 * source.of.channels)
        over, held = Window(source.of, kernel, padding=(kernel - 1) // 2), self._held(channels, split)
        made = planes(f"{name}_result" if split or not result else result, over.made(held))
        convolve = convolution(name, source.tensor, made, over, held, self.weight_bytes)
        gathered, whole = self._gathered(name, made, over.made(channels), split, result)
        return (convolve, *gathered), whole

    def _split(self, inner: int) -> bool:
        """Whether the channels that a layer of an inner dimension makes are split."""
        return self.degree > 1 and inner >= self.worth

    def _held(self, channels: int, split: bool) -> int:
        """How many of the channels that a layer makes this socket does."""
        return len(share(channels, self.degree, self.rank)) if split else channels

    def _gathered(
        self, name: str, held: Tensor, of: Planes, split: bool, result: str = "", *, kept: bool = False
    ) -> Made:
        """An image with all its channels, of which a socket ``held`` its share if they are ``split``."""
        if not split:
            return (), _Image(held, of)
        whole = planes(result or f"{name}_whole", of, kept=kept)
        return (collective(f"{name}_all_gather", "all_gather", held, whole),), _Image(whole, of)

"""What the numpy meaning of an operator needs beyond shapes: constants of the model, and which part a socket holds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Norm:
    """A norm over ``width`` elements, with ``epsilon`` added to the variance (RMS norm: to the mean square)."""

    width: int
    epsilon: float


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embeddings: angles are position x ``theta``^(-2i / head_dim), slowed down as ``kind`` says.

    ``default``: not at all; ``linear``: by ``factor``; ``llama3``: wavelengths above ``original`` / ``low`` tokens by
    ``factor``, those below ``original`` / ``high`` not at all, between them in between (Llama 3.1).
    """

    theta: float = 10_000.0
    kind: str = "default"
    factor: float = 1.0
    low: float = 1.0
    high: float = 4.0
    original: int = 8192


@dataclass(frozen=True, slots=True)
class Rotary:
    """Rotation of the heads of queries and keys, ``dim`` elements each."""

    dim: int
    rope: Rope


@dataclass(frozen=True, slots=True)
class Heads:
    """A socket's query heads of ``dim`` elements: for each which of the socket's KV heads it reads (``kv``).

    ``slopes``: of each head, how much a score falls with every token of distance (ALiBi).
    """

    kv: tuple[int, ...]
    dim: int
    slopes: tuple[float, ...] = ()

    @property
    def kv_heads(self) -> int:
        """KV heads on the socket."""
        return len(set(self.kv))


@dataclass(frozen=True, slots=True)
class Shared:
    """The KV ``heads`` of a socket, by number in the model, of ``dim`` elements; of each the ranks that hold it."""

    heads: tuple[int, ...]
    dim: int
    holders: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a table, or of the vocabulary, that a socket holds begin with row ``first``."""

    first: int


@dataclass(frozen=True, slots=True)
class Transpose:
    """A sequence's elements as a matrix of so many ``rows``, transposed."""

    rows: int


@dataclass(frozen=True, slots=True)
class Adam:
    """Adam (Kingma and Ba 2015) in one of its steps; ``rate`` has both bias corrections in it."""

    rate: float = 1e-3
    first: float = 0.9
    second: float = 0.999
    epsilon: float = 1e-8


@dataclass(frozen=True, slots=True)
class Patches:
    """A square image in ``side`` x ``side`` patches, each of ``patch`` x ``patch`` pixels."""

    side: int
    patch: int


@dataclass(frozen=True, slots=True)
class Grid:
    """``side`` x ``side`` patches in windows of ``window`` x ``window``, those at the edges filled up."""

    side: int
    window: int

    @property
    def across(self) -> int:
        """Windows beside one another."""
        return -(-self.side // self.window)

    @property
    def windows(self) -> int:
        """Windows."""
        return self.across**2

    @property
    def rows(self) -> int:
        """Rows of all windows, those that fill them among them."""
        return self.windows * self.window**2


@dataclass(frozen=True, slots=True)
class GridHeads:
    """Attention of a socket's ``heads`` of ``dim`` elements within the windows of a ``grid``."""

    heads: int
    dim: int
    grid: Grid


@dataclass(frozen=True, slots=True)
class Planes:
    """An image: so many ``channels``, each a plane of ``height`` x ``width`` elements, one plane after another."""

    channels: int
    height: int
    width: int

    @property
    def pixels(self) -> int:
        """Elements of a plane."""
        return self.height * self.width

    @property
    def elements(self) -> int:
        """Elements of the image."""
        return self.channels * self.pixels


@dataclass(frozen=True, slots=True)
class Window:
    """A square of ``size`` x ``size`` elements that goes over the planes ``of`` an image in steps of ``stride``.

    It begins ``padding`` elements before the first line and column, where there are zeros, and ends as far behind.
    """

    of: Planes
    size: int
    stride: int = 1
    padding: int = 0

    def made(self, channels: int) -> Planes:
        """An element for each place of the window, in so many ``channels``."""
        height, width = (
            (edge + 2 * self.padding - self.size) // self.stride + 1 for edge in (self.of.height, self.of.width)
        )
        return Planes(channels, height, width)


@dataclass(frozen=True, slots=True)
class Resize:
    """Planes that are drawn on others of another size."""

    source: Planes
    target: Planes


@dataclass(frozen=True, slots=True)
class Slope:
    """What elements below zero are multiplied with."""

    below: float


Attributes = (
    Norm | Rotary | Heads | Shared | Rows | Transpose | Adam
    | Planes | Window | Resize | Slope | Patches | Grid | GridHeads
)  # fmt: skip

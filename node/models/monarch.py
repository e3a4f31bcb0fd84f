"""FFTs in Monarch decomposition (Dao et al. 2022, FlashFFTConv: Fu et al. 2023): GEMMs, twiddles and transposes.

A transform of n1 x n2 x ... points is a GEMM with the DFT matrix of each factor; between two of them a multiplication
by twiddle factors and a transpose. Signals are real BF16, and so are the results; DFT matrices, twiddles and filters
are complex BF16, what lies between operators is complex FP32 (frameworks' complex64). A socket
works on whole sequences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from node.dataflow.attributes import Transpose
from node.dataflow.form import Form
from node.dataflow.graph import Block, Graph, Operator, Tensor
from node.dataflow.operators import ELEMENT_BYTES, ONE
from node.errors import InputError
from node.spec_file import SPECS, read_toml

TRANSFORMS = SPECS / "transforms"
MOST_POINTS = 2**30
KINDS = ("transform", "convolution")


@dataclass(frozen=True, slots=True)
class Transform:
    """``kind``: ``transform`` (one way) or ``convolution`` (there, times a filter's spectrum, and back)."""

    name: str
    kind: str
    factors: tuple[int, ...]

    @property
    def points(self) -> int:
        """Points of a sequence."""
        return math.prod(self.factors)

    @property
    def together(self) -> bool:
        """A socket has whole sequences (``node.models.one_pass.OnePass``)."""
        return False

    def graph(self, degree: int = 1, rank: int = 0) -> Graph:
        """Every socket's."""
        return monarch(self)


def transform_names() -> list[str]:
    """The built-in transforms."""
    return sorted(path.stem for path in TRANSFORMS.glob("*.toml"))


def load_transform(name: str) -> Transform:
    """A built-in transform by name, or that of a ``.toml`` file; raises ``InputError``."""
    return read_transform(Path(name) if name.endswith(".toml") else TRANSFORMS / f"{name}.toml")


def is_transform(name: str) -> bool:
    """Whether ``name`` is a built-in transform or a ``.toml`` file of one; raises ``InputError`` if unreadable."""
    return name in transform_names() or (name.endswith(".toml") and "factors" in read_toml(Path(name)))


def read_transform(path: Path) -> Transform:
    """The transform of a TOML file with name, kind and factors; raises ``InputError``."""
    values = read_toml(path)
    if sorted(values) != ["factors", "kind", "name"]:
        raise InputError(f"{path}: has {', '.join(values)}: must have exactly name, kind, factors")
    name, kind, factors = values["name"], values["kind"], values["factors"]
    if not isinstance(name, str):
        raise InputError(f"{path}: name = {name!r}: must be a str")
    if kind not in KINDS:
        raise InputError(f"{path}: kind = {kind!r}: must be one of {', '.join(KINDS)}")
    sizes = [size for size in factors if type(size) is int and size > 1] if isinstance(factors, list) else []
    if not sizes or sizes != factors or math.prod(sizes) > MOST_POINTS:
        raise InputError(f"{path}: factors = {factors!r}: must be whole numbers above 1, their product at most 2^30")
    return Transform(name, str(kind), tuple(sizes))


def monarch(transform: Transform) -> Graph:
    """The operator graph; a sequence is one signal of ``points``."""
    build = _Builder(transform.points)
    build.there(transform.factors, transform.factors[1:], real_in=True, real_out=transform.kind == "transform")
    if transform.kind == "convolution":
        build.multiply("filter")
        back = transform.factors[::-1]
        rows = [transform.points // factor for factor in back[:-1]]
        build.there(back, rows, real_in=False, real_out=True, name="inverse_")
    return Graph(transform.name, (Block("transform", tuple(build.operators), in_decode=False),))


class _Builder:
    """Operators in a row, each on what the one before made."""

    def __init__(self, points: int) -> None:
        self._points = points
        self.operators: list[Operator] = []
        self._last = Tensor("signal", "sequences", (points,))

    def there(
        self, factors: Sequence[int], rows: Sequence[int], *, real_in: bool, real_out: bool, name: str = ""
    ) -> None:
        """A transform: a GEMM per factor, twiddles and a transpose of a matrix of so many ``rows`` between two."""
        for index, factor in enumerate(factors):
            last = index == len(factors) - 1
            self._gemm(f"{name}gemm{index}", factor, real_in and index == 0, real_out and last)
            if not last:
                self.multiply(f"{name}twiddle{index}")
                self._transpose(f"{name}transpose{index}", rows[index])

    def _gemm(self, name: str, factor: int, real_in: bool, real_out: bool) -> None:
        """Rows of ``factor`` points times its DFT matrix: a complex product is four real ones."""
        rows, depth, columns = self._points // factor, factor * (2 - real_in), factor * (2 - real_out)
        matrix = factor * factor * 2 * ELEMENT_BYTES
        result = Tensor(name, "sequences", (self._points,)) if real_out else self._complex(name)
        self._add(
            Operator(
                name,
                "gemm",
                (self._last,),
                (result,),
                function="dft",
                flops=Form(sequences=2 * rows * depth * columns),
                mode="systolic",
                rows=Form(sequences=rows),
                columns=ONE * columns,
                groups=ONE,
                weights=matrix,
                weight_read=Form(constant=matrix),
            )
        )

    def multiply(self, name: str) -> None:
        """Each point times a complex factor: 6 FLOPs."""
        size = self._points * 2 * ELEMENT_BYTES
        flops, read = Form(sequences=6 * self._points), Form(constant=size)
        made = (self._complex(name),)
        self._add(
            Operator(
                name,
                "elementwise",
                (self._last,),
                made,
                flops=flops,
                weights=size,
                weight_read=read,
                function="complex_multiply",
            )
        )

    def _transpose(self, name: str, rows: int) -> None:
        """Written in stripes and read the other way by the PMUs' access patterns, once a sequence is complete."""
        made = (self._complex(name),)
        self._add(
            Operator(
                name,
                "layout",
                (self._last,),
                made,
                mode="memory",
                whole=True,
                function="transpose",
                attributes=Transpose(rows),
            )
        )

    def _complex(self, name: str) -> Tensor:
        return Tensor(name, "sequences", (self._points, 2), "fp32")

    def _add(self, operator: Operator) -> None:
        self.operators.append(operator)
        self._last = operator.outputs[0]

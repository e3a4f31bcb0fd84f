"""What is served: a catalogue of experts in groups, each group of one model."""

from __future__ import annotations

from dataclasses import dataclass

from node.errors import InputError

DTYPE_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5}


@dataclass(frozen=True, slots=True)
class ExpertGroup:
    """``count`` experts of one ``model`` (name or path), asked for in proportion to ``weight`` each."""

    model: str = "llama-2-7b"
    count: int = 150
    weight: float = 1.0
    dtype: str = "bf16"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"experts.group.count = {self.count}: must be at least 1")
        if not 0 < self.weight < float("inf"):
            raise InputError(f"experts.group.weight = {self.weight}: must be a number above zero")
        if self.dtype not in DTYPE_BYTES:
            raise InputError(f"experts.group.dtype = {self.dtype!r}: must be one of {', '.join(DTYPE_BYTES)}")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Experts are numbered through the groups in order; ``router`` is a model name, or None where none runs."""

    groups: tuple[ExpertGroup, ...]
    router: str | None

    @property
    def count(self) -> int:
        """Experts in all."""
        return sum(group.count for group in self.groups)

    def kinds(self) -> tuple[tuple[str, str], ...]:
        """The distinct (model, dtype) pairs, experts' first, then the router's: one program each."""
        pairs = [(group.model, group.dtype) for group in self.groups]
        if self.router is not None:
            pairs.append((self.router, "bf16"))
        return tuple(dict.fromkeys(pairs))

    def programs(self) -> tuple[int, ...]:
        """Of each expert, the index of its kind in ``kinds``."""
        kinds = self.kinds()
        return tuple(kinds.index((g.model, g.dtype)) for g in self.groups for _ in range(g.count))

    def weights(self) -> tuple[float, ...]:
        """Of each expert, its weight in popularity."""
        return tuple(group.weight for group in self.groups for _ in range(group.count))

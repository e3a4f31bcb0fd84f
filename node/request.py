"""What flows through the node: the requests of a workload, one by one and as columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import overload

import numpy as np
import numpy.typing as npt

from node.units import Picoseconds

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt that arrives at ``arrival`` (ps), ``input_tokens`` long, and is answered with ``output_tokens``.

    ``expert`` is the router's choice, drawn beforehand from the workload; the runtime may look at it only once
    the router has run. ``service``: the number of its class of service.
    """

    id: int
    arrival: Picoseconds
    input_tokens: int
    output_tokens: int
    expert: int
    service: int = 0


@dataclass(frozen=True)
class Requests(Sequence[Request]):
    """Many requests in order of arrival: a sequence of ``Request``, held as one int64 column of each field."""

    id: Ints
    arrival: Ints
    input_tokens: Ints
    output_tokens: Ints
    expert: Ints
    service: Ints

    @classmethod
    def of(cls, requests: Sequence[Request]) -> Requests:
        """The columns of ``requests``; columns as they are."""
        if isinstance(requests, Requests):
            return requests
        names = [field.name for field in fields(cls)]
        return cls(*(np.array([getattr(one, name) for one in requests], dtype=np.int64) for name in names))

    @classmethod
    def joined(cls, parts: Sequence[Requests]) -> Requests:
        """All of ``parts``, at least one, one after another."""
        return cls(*map(np.concatenate, zip(*(part.columns() for part in parts), strict=True)))

    def where(self, chosen: npt.NDArray[np.bool_] | Ints) -> Requests:
        """Those that are chosen, by a mask or by their places, which are in order; nothing is copied where all are."""
        if len(chosen) == len(self) and (chosen.dtype != np.bool_ or chosen.all()):
            return self
        return Requests(*(column[chosen] for column in self.columns()))

    def __len__(self) -> int:
        return len(self.id)

    @overload
    def __getitem__(self, index: int) -> Request: ...
    @overload
    def __getitem__(self, index: slice) -> Requests: ...
    def __getitem__(self, index: int | slice) -> Request | Requests:
        if isinstance(index, slice):
            return Requests(*(column[index] for column in self.columns()))
        return Request(*(int(column[index]) for column in self.columns()))

    def __iter__(self) -> Iterator[Request]:
        return map(Request, *(column.tolist() for column in self.columns()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def columns(self) -> tuple[Ints, ...]:
        """The columns, in the order of the fields."""
        return self.id, self.arrival, self.input_tokens, self.output_tokens, self.expert, self.service

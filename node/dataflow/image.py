"""Compiled programs as bytes: what configures the units on which a program's kernels are placed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from node.dataflow.form import Step
from node.dataflow.program import Key, Program
from node.units import Bytes


class Image(NamedTuple):
    """A ``program`` (by number) made for one bucket of shapes, on each kind of socket: ``size`` bytes on every one."""

    program: int
    keys: tuple[Key, ...]
    size: Bytes


class Images:
    """The images of a group: ``kinds`` are the programs of each kind of its sockets, ``unit`` bytes configure a unit.

    A program's image is ``unit`` x the PCUs and PMUs that each of its kernels is placed on; a kernel that is launched
    several times is there once. Of sockets whose shards differ, the largest image counts for all.
    """

    def __init__(self, kinds: Sequence[Sequence[Program]], unit: Bytes) -> None:
        self._kinds, self._unit = kinds, unit
        self._sizes: dict[tuple[int, tuple[Key, ...]], Bytes] = {}

    def prefill(self, program: int, step: tuple[int, ...]) -> Image:
        """Of a pass (``step``: tokens, pairs, context, sequences and more)."""
        return self._image(program, tuple(of[program].prefill_key(Step(*step[:4])) for of in self._kinds))

    def decode(self, program: int, step: tuple[int, ...]) -> Image:
        """Of the first of decode steps (``step``: tokens, pairs, context, sequences, growth, steps)."""
        return self._image(program, tuple(of[program].decode_key(step[3], step[2]) for of in self._kinds))

    def steps(self, program: int, step: tuple[int, ...]) -> int:
        """How many of decode steps have the image of the first: until their context leaves its bucket."""
        context, sequences, growth, steps = step[2:]
        most = min(of[program].most_context(sequences, context) for of in self._kinds)
        return min(steps, (most - context) // growth + 1) if growth else steps

    def _image(self, program: int, keys: tuple[Key, ...]) -> Image:
        size = self._sizes.get((program, keys))
        if size is None:
            units = (of[program].units(key) for of, key in zip(self._kinds, keys, strict=True))
            size = self._sizes[program, keys] = self._unit * max(units)
        return Image(program, keys, size)

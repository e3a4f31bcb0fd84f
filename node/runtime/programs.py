"""Compiled programs that are switched, too: a run begins when the image of its program is in HBM.

Images live in a region of HBM of their own, and who was used longest ago leaves it. Each has a home in DDR from
deployment on, of which the sockets hear when it is first wanted.
"""

from __future__ import annotations

from typing import NamedTuple

from node.allocator import Allocator
from node.dataflow.image import Image, Images
from node.errors import InputError, OutOfMemoryError
from node.events import Kind, Tier
from node.runtime.group import Group
from node.runtime.queues import Known
from node.runtime.settings import Settings
from node.runtime.sharding import Layout
from node.runtime.steps import Step
from node.runtime.task import DECODE, PREFILL, ROUTER_DECODE, ROUTER_PREFILL, Task
from node.stream import Stream
from node.units import Bytes, Picoseconds

FIRST_SYMBOL = 2**40  # KV ranges, which are counted up from the number of experts, never come so far


class Home(NamedTuple):
    """Where an image is in DDR, and by what ``symbol`` sockets know it there and in HBM."""

    symbol: int
    address: int


class ProgramCache:
    """The images of one group in HBM; ``loads`` so far, ``loaded`` bytes a socket, ``loading_ps`` in all."""

    def __init__(self, layout: Layout, stream: Stream) -> None:
        self._group, self._stream = layout.group, stream
        self._hbm = Allocator(layout.programs.start, layout.programs.size)
        self._ddr = Allocator(layout.swap.start, layout.swap.size)
        self._homes: dict[Image, Home] = {}
        self._here: dict[Image, int] = {}  # addresses; used longest ago first
        self.loads, self.loaded = 0, 0
        self.loading_ps: Picoseconds = 0

    @property
    def used(self) -> Bytes:
        """Bytes of the images in HBM."""
        return self._hbm.size - self._hbm.free

    @property
    def homes(self) -> Bytes:
        """Bytes of those that sockets have in DDR."""
        return self._ddr.size - self._ddr.free

    def use(self, image: Image) -> int | None:
        """The symbol of an image that a run is about to use; None where it is not in HBM."""
        address = self._here.pop(image, None)
        if address is None:
            return None
        self._here[image] = address
        return self._homes[image].symbol

    def make_room(self, image: Image, now: Picoseconds) -> None:
        """Have the images leave that were used longest ago, until there is room; ``InputError`` if there never is."""
        if image.size > self._hbm.size:
            raise InputError(
                f"runtime.program_reserve: leaves {self._hbm.size:,} bytes on each socket, but a compiled program has "
                f"{image.size:,}; raise runtime.program_reserve, or set runtime.switching to 'expert'"
            )
        home = self._home(image, now)
        while (address := self._hbm.allocate(image.size)) is None:
            victim = next(iter(self._here))
            left = self._here.pop(victim)
            self._hbm.release(left)
            self._stream.memory(Kind.FREE, now, Tier.HBM, self._homes[victim].symbol, left, victim.size)
        self._here[image] = address
        self._stream.memory(Kind.ALLOCATE, now, Tier.HBM, home.symbol, address, image.size)

    def load(self, image: Image, start: Picoseconds, end: Picoseconds) -> None:
        """An image that was given room comes from DDR from ``start`` to ``end``."""
        home = self._homes[image]
        self._stream.image(start, home.symbol, (self._here[image], image.size, home.address), end)
        self.loads += 1
        self.loaded += image.size
        self.loading_ps += end - start

    def _home(self, image: Image, now: Picoseconds) -> Home:
        known = self._homes.get(image)
        if known is not None:
            return known
        address = self._ddr.allocate(image.size)
        if address is None:
            raise OutOfMemoryError(
                "DDR",
                f"each socket of group {self._group}",
                asked=image.size,
                free=self._ddr.free,
                largest_hole=self._ddr.largest_hole,
                hint="for a compiled program beside experts' home copies; set runtime.switching to 'expert', lower "
                "experts.count or take a machine with more DDR",
            )
        known = self._homes[image] = Home(FIRST_SYMBOL + len(self._homes), address)
        self._stream.memory(Kind.LOAD, now, Tier.DDR, known.symbol, address, image.size)
        return known


class ProgramGroup(Group):
    """See ``Group``. A decode run ends where the next step is another program's."""

    def __init__(self, layout: Layout, settings: Settings, known: Known, images: Images) -> None:
        super().__init__(layout, settings, known)
        self.programs = ProgramCache(layout, self.stream)
        self._images = images

    def wanted(self, stage: int, task: Task) -> Image | None:
        """The program of the run that is next, where it is not in HBM; else ``image`` is its symbol from now on."""
        program = self.settings.programs[task.expert]
        if stage in (PREFILL, ROUTER_PREFILL):
            image = self._images.prefill(program, self.prefill_step(task))
        else:
            assert stage in (DECODE, ROUTER_DECODE)
            image = self._images.decode(program, self.decode_step(task) if stage == DECODE else self.router_step(task))
        symbol = self.programs.use(image)
        if symbol is None:
            return image
        self.image = symbol
        return None

    def decode_step(self, task: Task) -> Step:
        """See ``Group``."""
        return self._cut(task, super().decode_step(task))

    def router_step(self, task: Task) -> Step:
        """See ``Group``."""
        return self._cut(task, super().router_step(task))

    def _cut(self, task: Task, step: Step) -> Step:
        return (*step[:5], self._images.steps(self.settings.programs[task.expert], step))

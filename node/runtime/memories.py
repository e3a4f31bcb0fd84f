"""What eviction policies remember between two decisions; integers and exact fractions, so the same on every machine."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from node.units import Bytes

HALVING = 2  # uses count half after so many references for each expert of the catalogue; docs/design.md has others
_ONE = 1 << 20  # what a use counts at first: halved 20 times it is forgotten
_LONGEST = 512  # bits of a denominator that is kept exact


@dataclass(frozen=True, slots=True)
class Known:
    """What a policy may know of its group.

    ``sizes``: bytes by expert; ``room``: bytes of HBM for experts; ``waiting``: how many requests wait for an expert
    now. ``future``: by expert the keys of the requests that no group has begun to serve, in order; nobody but
    ``belady`` may look, and it drops those that are served.
    """

    sizes: Sequence[Bytes]
    room: Bytes
    waiting: Callable[[int], int]
    future: Sequence[deque[int]] = ()


class Memory:
    """What a policy is told. This one remembers nothing, for what is known of residents is enough.

    On an activation: ``wanted``, then ``left`` for each that is evicted, then ``came``; later on ``used``, each time it
    serves ``requests`` more.
    """

    def __init__(self, known: Known) -> None:
        self.known = known

    def wanted(self, expert: int) -> None:
        """``expert`` is not in HBM, and room will be made for it."""

    def left(self, expert: int) -> None:
        """``expert`` is evicted."""

    def came(self, expert: int) -> None:
        """``expert`` has its room, and its copy begins."""

    def used(self, expert: int, requests: int) -> None:
        """``expert``, in HBM, serves ``requests`` more."""


class Lists(Memory):
    """The lists of ARC, least recently used first, each with its experts' bytes.

    In HBM: ``once``, used once lately (T1), and ``again``, more often (T2). Evicted from there: ``once_gone`` (B1) and
    ``again_gone`` (B2).
    ``target``: bytes that ``once`` should have (p). ``from_again``: the one that is wanted was in ``again_gone``.
    """

    def __init__(self, known: Known) -> None:
        super().__init__(known)
        self.once: dict[int, Bytes] = {}
        self.again: dict[int, Bytes] = {}
        self.once_gone: dict[int, Bytes] = {}
        self.again_gone: dict[int, Bytes] = {}
        self.target = Fraction(0)
        self.from_again = False
        self._into = self.once
        self._unused: set[int] = set()

    def wanted(self, expert: int) -> None:
        """A miss. One that is missed from B1 raises the target, one from B2 lowers it: cases II and III."""
        size, first, second = self.known.sizes[expert], sum(self.once_gone.values()), sum(self.again_gone.values())
        self.from_again = expert in self.again_gone
        self._into = self.again
        if self.once_gone.pop(expert, 0):
            self.target = min(self.target + size * max(Fraction(1), Fraction(second, first)), Fraction(self.known.room))
        elif self.again_gone.pop(expert, 0):
            self.target = max(self.target - size * max(Fraction(1), Fraction(first, second)), Fraction(0))
        else:
            self._into = self.once
        if self.target.denominator.bit_length() > _LONGEST:  # with equal sizes, only for 350 or more in HBM
            self.target = Fraction(int(self.target))

    def left(self, expert: int) -> None:
        """The evicted is remembered by the list that it was in."""
        if expert in self.once:
            self.once_gone[expert] = self.once.pop(expert)
        else:
            self.again_gone[expert] = self.again.pop(expert)

    def came(self, expert: int) -> None:
        """Those longest gone are forgotten: T1 and B1 have as many bytes as HBM, all four twice as many. Case IV."""
        self._into[expert] = self.known.sizes[expert]
        self._unused.add(expert)
        first = sum(self.once.values()) + sum(self.once_gone.values())
        while first > self.known.room and self.once_gone:
            first -= self.once_gone.pop(next(iter(self.once_gone)))
        both = first + sum(self.again.values()) + sum(self.again_gone.values())
        while both > 2 * self.known.room and self.again_gone:
            both -= self.again_gone.pop(next(iter(self.again_gone)))

    def used(self, expert: int, requests: int) -> None:
        """Each request is a reference. The first one after the copy was the miss itself, others are hits: case I."""
        hits = requests - (expert in self._unused)
        self._unused.discard(expert)
        if expert in self.once and not hits:
            self.once[expert] = self.once.pop(expert)
        else:
            self.again[expert] = self.once.pop(expert, 0) or self.again.pop(expert)


class Rates(Memory):
    """How often each expert was used lately: uses, each counted half after every ``HALVING`` x experts references."""

    def __init__(self, known: Known) -> None:
        super().__init__(known)
        self._period = HALVING * len(known.sizes)
        self._references = 0
        self._counts: dict[int | None, tuple[int, int]] = {}  # by expert, and by None of all: halvings so far, count

    def used(self, expert: int, requests: int) -> None:
        """``requests`` more uses, of this one and of all."""
        self._references += requests
        for whose in (expert, None):
            self._counts[whose] = (self._halvings, self._count(whose) + requests * _ONE)

    def cost(self, expert: int) -> float:
        """Bytes that evicting ``expert`` costs on the average: its size x the chance that it is asked for again.

        1 where requests wait for it. Otherwise that it is before the horizon has passed: r / (r + h), where it is asked
        for at a rate r (its share of the counted uses, per reference) and the horizon passes at a rate h = 1 / (halving
        period). One division of whole numbers, which Python rounds correctly.
        """
        size, mine = self.known.sizes[expert], self._count(expert) * self._period
        return float(size) if self.known.waiting(expert) else size * mine / (mine + self._count(None) or 1)

    @property
    def _halvings(self) -> int:
        return self._references // self._period

    def _count(self, whose: int | None) -> int:
        halvings, count = self._counts.get(whose, (0, 0))
        return count >> (self._halvings - halvings)


NO_MORE = 2**128  # above every key


class Future(Memory):
    """Which request of each expert is next; groups that share its queue share its future."""

    def used(self, expert: int, requests: int) -> None:
        """The oldest requests of an expert are served first."""
        for _ in range(requests):
            self.known.future[expert].popleft()

    def next(self, expert: int) -> int:
        """The key of the next request for ``expert``, waiting or yet to come; ``NO_MORE`` where there is none."""
        numbers = self.known.future[expert]
        return numbers[0] if numbers else NO_MORE

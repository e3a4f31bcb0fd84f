"""Do the heaps of who waits say what a search through all queues would say?"""

from __future__ import annotations

from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st

from node.runtime.waiting import Waiting

BATCH, EXPERTS = 3, 4


class Searched:
    """The same, kept as plainly as can be."""

    def __init__(self) -> None:
        self.queues: dict[int, list[int]] = {}
        self.resident: set[int] = set()

    def oldest(self, without: set[int]) -> int | None:
        firsts = [(queue[0], expert) for expert, queue in self.queues.items() if expert not in without]
        return min(firsts)[1] if firsts else None

    def most_wanted(self, without: set[int]) -> int | None:
        wishes = [
            (-min(len(queue), BATCH), expert not in self.resident, queue[0], expert)
            for expert, queue in self.queues.items()
            if expert not in without
        ]
        return min(wishes)[-1] if wishes else None


@settings(max_examples=300, deadline=None)
@given(data=st.data(), late=st.lists(st.integers(0, 200), unique=True, max_size=60))
def test_the_heaps_find_what_a_search_finds(data: st.DataObject, late: list[int]) -> None:
    waiting, searched = Waiting(BATCH, ()), Searched()
    numbers = iter(late)
    for _ in range(data.draw(st.integers(1, 50))):
        what = data.draw(st.sampled_from(["add", "add", "add", "take", "change"]))
        expert = data.draw(st.integers(0, EXPERTS - 1))
        if what == "add":
            came = [(data.draw(st.integers(0, EXPERTS - 1)), number) for number in islice(numbers, 3)]
            waiting.extend(came)
            for one, number in came:
                searched.queues[one] = sorted([*searched.queues.get(one, []), number])
        elif what == "take" and expert in searched.queues:
            count = data.draw(st.integers(1, len(searched.queues[expert])))
            waiting.take(expert, count)
            searched.queues[expert] = searched.queues[expert][count:]
            if not searched.queues[expert]:
                del searched.queues[expert]
        elif what == "change":
            resident = data.draw(st.booleans())
            waiting.changed(expert, resident=resident)
            (searched.resident.add if resident else searched.resident.discard)(expert)
        if data.draw(st.booleans()):
            continue  # nobody looks for a while
        without = data.draw(st.sets(st.integers(0, EXPERTS - 1), max_size=2))
        assert {one: list(queue) for one, queue in waiting.queues.items()} == searched.queues
        assert waiting.count == sum(map(len, searched.queues.values()))
        assert waiting.of(expert) == len(searched.queues.get(expert, []))
        assert waiting.oldest(without) == searched.oldest(without)
        assert waiting.most_wanted(without) == searched.most_wanted(without)
        assert waiting.oldest() == searched.oldest(set())  # those left out before are there again
        assert waiting.most_wanted() == searched.most_wanted(set())

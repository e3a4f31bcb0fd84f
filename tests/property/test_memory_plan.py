"""Whatever the symbols: do no two that are alive together overlap, and is little wasted on programs as they are?"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.dataflow.memory_plan import ALIGNMENT, MemoryPlan, Symbol, plan_memory

AMPLE = 10**15
KERNELS, SIZES = st.integers(0, 12), st.integers(0, 20 * ALIGNMENT)
ROWS = st.lists(st.tuples(SIZES, KERNELS, KERNELS, st.integers(0, 5)), max_size=24)
SYMBOLS = ROWS.map(
    lambda rows: [Symbol(f"s{at}", size, min(a, b), max(a, b), moved) for at, (size, a, b, moved) in enumerate(rows)]
)
CAPACITIES = st.integers(0, 150 * ALIGNMENT)


def overlaps(symbols: list[Symbol], addresses: dict[str, int]) -> list[tuple[str, str]]:
    there = [symbol for symbol in symbols if symbol.name in addresses and symbol.size]
    return [
        (one.name, other.name)
        for one, other in combinations(there, 2)
        if max(one.first, other.first) <= min(one.last, other.last)
        and addresses[one.name] < addresses[other.name] + other.size
        and addresses[other.name] < addresses[one.name] + one.size
    ]


def aligned(size: int) -> int:
    return (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


@given(SYMBOLS, CAPACITIES)
def test_no_byte_has_two_owners_at_once_and_none_lies_outside(symbols: list[Symbol], capacity: int) -> None:
    plan = plan_memory(symbols, capacity, AMPLE)
    assert sorted([*plan.hbm, *plan.ddr]) == sorted(symbol.name for symbol in symbols)
    for addresses, used in ((plan.hbm, plan.hbm_bytes), (plan.ddr, plan.ddr_bytes)):
        assert not overlaps(symbols, addresses)
        assert all(address >= 0 and address % ALIGNMENT == 0 for address in addresses.values())
        ends = [addresses[symbol.name] + aligned(symbol.size) for symbol in symbols if symbol.name in addresses]
        assert max(ends, default=0) == used
    assert plan.hbm_bytes <= capacity


@given(SYMBOLS, CAPACITIES)
def test_the_figures_are_those_of_the_symbols_in_hbm(symbols: list[Symbol], capacity: int) -> None:
    plan = plan_memory(symbols, capacity, AMPLE)
    here = [symbol for symbol in symbols if symbol.name in plan.hbm]
    alive = [sum(aligned(s.size) for s in here if s.first <= kernel <= s.last) for kernel in range(13)]
    assert plan.lifetime_bound == max(alive)
    assert plan.unshared_bytes == sum(aligned(symbol.size) for symbol in here)
    assert plan.lifetime_bound <= plan.hbm_bytes <= plan.unshared_bytes
    assert plan.spilled_moved == sum(symbol.moved for symbol in symbols if symbol.name in plan.ddr)


@given(SYMBOLS, CAPACITIES)
def test_the_spilled_head_the_ranking_and_one_fewer_would_not_do(symbols: list[Symbol], capacity: int) -> None:
    plan = plan_memory(symbols, capacity, AMPLE)
    ranked = sorted((s for s in symbols if s.size), key=lambda s: (s.moved, -s.size, s.name))
    spilled = ranked[: len(plan.ddr)]
    assert plan.ddr.keys() == {symbol.name for symbol in spilled}
    if spilled:
        fewer = [symbol for symbol in symbols if symbol not in spilled[:-1]]
        assert plan_memory(fewer, AMPLE, AMPLE).hbm_bytes > capacity


@given(SYMBOLS, CAPACITIES, CAPACITIES)
def test_more_hbm_never_spills_more(symbols: list[Symbol], one: int, other: int) -> None:
    less, more = (plan_memory(symbols, capacity, AMPLE) for capacity in sorted((one, other)))
    assert more.ddr.keys() <= less.ddr.keys()
    assert more.spilled_moved <= less.spilled_moved


@given(st.data(), SYMBOLS, CAPACITIES)
def test_the_order_of_the_symbols_changes_nothing(data: st.DataObject, symbols: list[Symbol], capacity: int) -> None:
    shuffled = data.draw(st.permutations(symbols))
    assert plan_memory(shuffled, capacity, AMPLE) == plan_memory(symbols, capacity, AMPLE)


# Programs as they are: decoder layers of one kernel per operator. What each operator reads, and the size of what it
# writes in (tokens x hidden, tokens x key-value width, heads x tokens x tokens, tokens x ffn)

LAYER = {
    "norm1": (["in"], "hidden"),
    "q": (["norm1"], "hidden"),
    "k": (["norm1"], "kv"),
    "v": (["norm1"], "kv"),
    "scores": (["q", "k"], "scores"),
    "softmax": (["scores"], "scores"),
    "mixed": (["softmax", "v"], "hidden"),
    "o": (["mixed"], "hidden"),
    "add1": (["in", "o"], "hidden"),
    "norm2": (["add1"], "hidden"),
    "gate": (["norm2"], "ffn"),
    "up": (["norm2"], "ffn"),
    "product": (["gate", "up"], "ffn"),
    "down": (["product"], "hidden"),
    "out": (["add1", "down"], "hidden"),
}
WEIGHTED = {"q": "hidden", "k": "kv", "v": "kv", "o": "hidden", "gate": "ffn", "up": "ffn", "down": "ffn"}
SHAPES = {  # tokens, hidden, key-value width, heads, ffn
    "llama-2-7b prefill": (4096, 4096, 4096, 32, 11008),
    "llama-3-8b prefill": (1024, 4096, 1024, 32, 14336),
    "odd sizes": (513, 770, 193, 11, 3001),
    "decode": (1, 4096, 4096, 32, 11008),
}


class Lives:
    """Collects the kernels at which each tensor is touched; every touch moves it once."""

    def __init__(self) -> None:
        self.at: dict[str, list[int]] = {}
        self.size: dict[str, int] = {}

    def touch(self, name: str, size: int, *kernels: int) -> None:
        self.at.setdefault(name, []).extend(kernels)
        self.size[name] = size

    def symbols(self) -> list[Symbol]:
        return [Symbol(n, self.size[n], min(at), max(at), self.size[n] * len(at)) for n, at in self.at.items()]


def program(layers: int, shape: str, *, training: bool, weights: bool) -> list[Symbol]:
    """Bytes at two a number: forward kernels 0.. and, in training, backward ones mirrored, then one update."""
    tokens, hidden, kv, heads, ffn = SHAPES[shape]
    wide = {"hidden": hidden, "kv": kv, "scores": heads * tokens, "ffn": ffn}
    forward = layers * len(LAYER)
    end = 2 * forward if training else forward - 1
    lives = Lives()
    for layer in range(layers):
        for at, (name, (reads, kind)) in enumerate(LAYER.items(), start=layer * len(LAYER)):
            mirror = 2 * forward - 1 - at
            tensors = [
                (f"{layer - 1}.out" if r == "in" else f"{layer}.{r}", LAYER["out" if r == "in" else r][1])
                for r in reads
            ]
            for tensor, width in [*tensors, (f"{layer}.{name}", kind)]:
                size = 2 * tokens * wide[width]
                lives.touch(tensor, size, at)
                if training:
                    lives.touch(f"gradient of {tensor}", size, mirror)
            for tensor, width in tensors if training else []:
                lives.touch(tensor, 2 * tokens * wide[width], mirror)
            if name in WEIGHTED and training:
                lives.touch(f"gradient of weight {layer}.{name}", 2 * hidden * wide[WEIGHTED[name]], mirror, end)
            if name in WEIGHTED and weights:
                lives.touch(f"weight {layer}.{name}", 2 * hidden * wide[WEIGHTED[name]], 0, at, end)
                if training:
                    lives.touch(f"state {layer}.{name}", 12 * hidden * wide[WEIGHTED[name]], 0, end)
    return lives.symbols()


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layers", [1, 4, 32])
@pytest.mark.parametrize("shape", SHAPES)
def test_programs_take_at_most_a_tenth_more_than_the_bound(
    shape: str, layers: int, training: bool, weights: bool
) -> None:
    plan = plan_memory(program(layers, shape, training=training, weights=weights), AMPLE, AMPLE)
    assert plan.hbm_bytes <= 1.1 * plan.lifetime_bound
    assert plan.saved_bytes > 0


@pytest.mark.parametrize("training", [False, True])
def test_a_program_in_too_little_hbm_keeps_its_weights_and_fills_it(training: bool) -> None:
    symbols = program(8, "llama-2-7b prefill", training=training, weights=True)
    ample = plan_memory(symbols, AMPLE, AMPLE)
    short = plan_memory(symbols, ample.lifetime_bound * 9 // 10, AMPLE)
    assert 0.9 * ample.lifetime_bound >= short.hbm_bytes >= 0.8 * ample.lifetime_bound
    assert not overlaps(symbols, short.hbm)
    assert not overlaps(symbols, short.ddr)


def test_five_thousand_arbitrary_lifetimes_are_planned_within_a_tenth() -> None:
    random = np.random.default_rng(7)
    first = random.integers(0, 1000, 5000)
    last = first + random.exponential(10, 5000).astype(np.int64)
    columns = (random.integers(1, 10**6, 5000), first, last)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    plan: MemoryPlan = plan_memory([Symbol(f"s{at}", *row, 0) for at, row in enumerate(rows)], AMPLE, AMPLE)
    assert plan.hbm_bytes <= 1.1 * plan.lifetime_bound

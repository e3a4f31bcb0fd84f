"""Does a tier's content give back what was written, and nothing that was not?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.tiers import tiers_of
from node.errors import HardwareError, InputError
from node.functional.store import ELEMENT, Store
from node.spec_file import load_machine

SIZE = 24
DOINGS = st.lists(
    st.tuples(st.sampled_from(["write", "forget", "read"]), st.integers(0, SIZE - 1), st.integers(1, SIZE)), max_size=40
)


@given(DOINGS)
def test_a_store_is_a_list_of_what_was_written(doings: list[tuple[str, int, int]]) -> None:
    """Against a list with None where nothing may be read."""
    store, known = Store("HBM", np.full(SIZE, -1, np.float32)), list[Any]([None] * SIZE)
    for number, (what, first, count) in enumerate(doings):
        last = min(first + count, SIZE)
        address, size = first * ELEMENT, (last - first) * ELEMENT
        if what == "write":
            content = np.arange(first, last, dtype=np.float32) + 100 * number
            store.write(address, content)
            known[first:last] = content.tolist()
        elif what == "forget":
            store.forget(address, size)
            known[first:last] = [None] * (last - first)
        elif None in known[first:last]:
            with pytest.raises(HardwareError, match=r"HBM: .* was never written, or freed since"):
                store.read(address, size)
        else:
            assert store.read(address, size).tolist() == known[first:last]


@pytest.mark.parametrize(("address", "count"), [(-2, 1), (1, 1), (2 * SIZE, 1), (0, SIZE + 1), (2 * SIZE - 2, 2)])
def test_nothing_is_written_out_of_range(address: int, count: int) -> None:
    store = Store("HBM", np.zeros(SIZE, np.float32))
    with pytest.raises(HardwareError, match="cannot be written: 48 bytes"):
        store.write(address, np.ones(count, np.float32))
    with pytest.raises(HardwareError):
        store.read(0, 2)


def test_tiers_are_as_large_as_the_machines(tmp_path: Any) -> None:
    """1.5 TiB of DDR and 64 GiB of HBM, of which next to nothing is touched."""
    machine = load_machine("sn40l-node")
    ddr, hbm = tiers_of(machine, 0, tmp_path)
    assert (ddr.capacity, hbm.capacity) == (machine.ddr.capacity, machine.hbm.capacity)
    for store in (ddr, hbm):
        store.write(store.capacity - 8, np.arange(4, dtype=np.float32))
        assert store.read(store.capacity - 6, 4).tolist() == [1, 2]
    assert list(tmp_path.iterdir()) == []


def test_tiers_that_cannot_be_made_are_an_error_of_the_user(tmp_path: Any) -> None:
    machine = load_machine("sn40l-node")
    with pytest.raises(InputError, match="the tiers of socket 3 cannot be made: No such file"):
        tiers_of(machine, 3, tmp_path / "gone")
    with pytest.raises(InputError, match=r"lower machine\.ddr\.capacity or machine\.hbm\.capacity"):
        tiers_of(load_machine("sn40l-node", {"ddr.capacity": "900 PB"}), 0, tmp_path)

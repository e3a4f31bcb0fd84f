"""Do sockets in processes of their own compute what one process does, and is one that fails found and named?"""

from __future__ import annotations

import os
import re
import signal
import time

import numpy as np
import pytest

from tests.lockstep import lockstep
from tests.peers import prefill, processes, served, serving, without_end


@pytest.mark.parametrize("members", [2, 3, 5, 8])
def test_a_llama_over_links_is_the_one_in_lockstep_bit_for_bit(members: int) -> None:
    sockets = served(members)
    lockstep([prefill(sockets, rank) for rank in range(members)])
    expected = sockets.made("head.all_logits")
    with processes(members, serving) as ranks:
        logits = [pipe.recv() for _, pipe in ranks]
    assert not isinstance(logits[0], str), logits[0]
    assert all(np.array_equal(expected.view(np.int32), one.view(np.int32)) for one in logits)


@pytest.mark.parametrize(("how", "what"), [(signal.SIGKILL, ""), (signal.SIGSTOP, "nothing came within 2 s")])
def test_a_socket_that_dies_or_hangs_is_named_by_all(how: signal.Signals, what: str) -> None:
    with processes(4, without_end, limit_s=2.0) as ranks:
        pids = [pipe.recv() for _, pipe in ranks]
        started = time.monotonic()
        os.kill(pids[1], how)
        errors = [ranks[rank][1].recv() for rank in (0, 2, 3)]
        assert time.monotonic() - started < 4
    for error in errors:
        assert error.startswith("LinkError: ") and what in error, errors
        assert re.search(r" to socket (\d, )*1\b", error), errors

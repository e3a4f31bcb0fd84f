"""Are the addresses of a run's tiers free when it is over, whoever still knows of its sockets?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cluster.content import LocalMembers, local_members
from cluster.generate import generate
from node.functional.socket import ContentSocket
from tests.tiny import asked, prompts


@pytest.mark.parametrize("ends_well", [True, False])
def test_tiers_hold_nothing_once_a_run_is_over(*, ends_well: bool) -> None:
    known: list[ContentSocket] = []

    @contextmanager
    def start(*arguments: Any) -> Iterator[LocalMembers]:
        with local_members(*arguments) as members:
            assert isinstance(members, LocalMembers)
            known.extend(members.sockets)
            assert all(socket.hbm.capacity and socket.ddr.capacity for socket in known)
            yield members
            if not ends_well:
                raise KeyboardInterrupt

    if ends_well:
        generate(asked(3, 2, 2, prompts(2, 2)), start=start)
    else:
        with pytest.raises(KeyboardInterrupt):
            generate(asked(3, 2, 2, prompts(2, 2)), start=start)
    assert len(known) == 3 and not any(socket.hbm.capacity or socket.ddr.capacity for socket in known)

"""Must all sockets of a group have chosen the same tokens, in whatever process they are?"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cluster import content_actor
from cluster.content import agreed
from cluster.content_actor import RayMembers
from node.errors import InvariantError
from node.functional.serve import Work

ONE, OTHER = [[4, 5], [6, 7]], [[4, 5], [6, 8]]
SAID = r"socket 2 generated \[\[4, 5\], \[6, 8\]\], socket 0 \[\[4, 5\], \[6, 7\]\]"


def test_what_all_chose_is_what_came() -> None:
    assert agreed([ONE, ONE, ONE]) == ONE


def test_a_socket_that_chose_otherwise_is_named() -> None:
    with pytest.raises(InvariantError, match=SAID):
        agreed([ONE, ONE, OTHER])


def test_the_sockets_of_every_actor_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two actors with two sockets and one; what a Ray call returns is here what was passed to it."""
    actors = [SimpleNamespace(serve=SimpleNamespace(remote=lambda _, it=it: it)) for it in ([ONE, ONE], [OTHER])]
    monkeypatch.setattr(content_actor, "got", list)
    with pytest.raises(InvariantError, match=SAID):
        RayMembers(actors, [2, 1]).serve(Work(0, 0, ()))

"""Does who asks for sockets get no more than a Ray cluster offers?"""

from __future__ import annotations

import pytest

from cluster.offered_sockets import OfferedSockets
from node.errors import InputError


def test_a_cluster_without_sockets_is_asked_for_none() -> None:
    offered = OfferedSockets([0, 0])
    assert not offered
    assert [offered.ask(actor, 8) for actor in range(100)] == [{}] * 100


def test_there_is_room_on_each_machine_by_itself() -> None:
    offered = OfferedSockets([8, 0, 7, 15])
    assert offered
    assert [offered.places(sockets) for sockets in (1, 7, 8, 15, 16)] == [30, 4, 2, 1, 0]


def test_the_last_socket_is_given_and_no_more() -> None:
    offered = OfferedSockets([2, 1])
    assert [offered.ask(actor, 1) for actor in range(3)] == [{"socket": 1}] * 3
    with pytest.raises(
        InputError, match=r"^4 sockets or more are asked for, and .* 'socket' the Ray cluster offers 3; "
    ):
        offered.ask(3, 1)


def test_no_actor_is_on_two_machines() -> None:
    with pytest.raises(InputError, match=r"no place for an actor of 3 sockets: .* at most 2; "):
        OfferedSockets([2, 2]).ask(0, 3)
    offered = OfferedSockets([2, 2])
    assert [offered.ask(actor, 2) for actor in range(2)] == [{"socket": 2}] * 2
    with pytest.raises(InputError, match=r"^5 sockets or more are asked for"):
        offered.ask(2, 1)


def test_who_is_made_again_has_its_room() -> None:
    offered = OfferedSockets([1])
    assert [offered.ask(0, 1) for _ in range(3)] == [{"socket": 1}] * 3


def test_what_is_lost_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    resources: list[tuple[bool, dict[str, float]]] = [
        (True, {"CPU": 2.0, "node:__internal_head__": 1.0}), (True, {"socket": 2.0}), (False, {"socket": 8.0})
    ]  # fmt: skip
    told = [{"Alive": alive, "Resources": offered} for alive, offered in resources]
    monkeypatch.setattr("cluster.offered_sockets.ray.nodes", lambda: told)
    assert OfferedSockets.now().places(1) == 2

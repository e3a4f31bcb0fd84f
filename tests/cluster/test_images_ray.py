"""Do sockets in Ray actors, linked over TCP, make of images what those in one process make?"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import ray

from cluster.backends import SocketLostError
from cluster.content_actor import RayMembers, ray_members
from cluster.images import pass_group
from cluster.peer_links.connection import LinkError
from node.functional.one_pass import Pass
from node.options import RuntimeOptions
from tests.differential.test_images import expected, given, machine
from tests.one_pass import expert
from tests.tiny import Array

pytestmark = [pytest.mark.alone, pytest.mark.usefixtures("ray_cluster")]


@pytest.mark.parametrize(
    ("sockets", "per_actor", "together"), [(1, None, True), (2, 1, True), (8, None, True), (5, 2, False)]
)
def test_actors_make_what_the_model_does(sockets: int, per_actor: int | None, together: bool) -> None:
    start = partial(ray_members, sockets_per_actor=per_actor)
    with pass_group(machine(sockets), [expert(3, together=together)], RuntimeOptions(batch=4), start) as group:
        for seed in (0, 1):
            np.testing.assert_allclose(group.through(0, given(seed)), expected(3, given(seed)), rtol=1e-4, atol=1e-4)


def test_a_socket_that_dies_ends_the_pass_with_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    began = RayMembers.through

    def through(self: RayMembers, works: list[Pass | None]) -> list[Array]:
        ray.kill(self._actors[1])
        return began(self, works)

    monkeypatch.setattr(RayMembers, "through", through)
    start = partial(ray_members, sockets_per_actor=1)
    with (
        pytest.raises((SocketLostError, LinkError), match="socket"),
        pass_group(machine(2), [expert(3, together=True)], start=start) as group,
    ):
        group.through(0, given())

"""Where each socket actor serves its own metrics: are they what the coordinator would have said, each once?"""

from __future__ import annotations

import socket
import urllib.request
from functools import partial

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.content_actor import ray_members
from cluster.generate import generate
from cluster.metering import board_of, live_of
from cluster.metrics.of_sockets import MOST_PORTS, Served
from cluster.metrics.samples import OF_SOCKET
from cluster.nodes.node import State
from cluster.pace import Pace
from cluster.ray_backend import RayBackend
from cluster.runner import prepare, run
from node.errors import InputError
from tests.metered import Series, config, metered, series
from tests.tiny import asked, prompts

pytestmark = [pytest.mark.alone, pytest.mark.usefixtures("ray_cluster")]


def free_ports(count: int) -> int:
    """The first of so many ports on end that are free."""
    for first in range(20_000, 60_000, 97):
        try:
            held = [socket.create_server(("127.0.0.1", first + n)) for n in range(count)]
        except OSError:
            continue
        for one in held:
            one.close()
        return first
    raise AssertionError("no ports")


def scraped(port: int) -> dict[str, Series]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    found: dict[str, Series] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("run") == "tested"
            found.setdefault(sample.name, {})[tuple(sorted(labels.items()))] = sample.value
    return found


def test_each_actor_serves_its_own_sockets_and_the_coordinator_none_of_them() -> None:
    settings = config(cluster__backend="ray", cluster__sockets_per_actor=2, cluster__window="4 s")
    prepared, pace, first = prepare(settings), Pace(), free_ports(6)
    taken = socket.create_server(("127.0.0.1", first + 1))  # by somebody else: the next one is taken instead
    board = board_of(settings, prepared, "tested", 16, pace, sockets_apart=True)
    live, last = live_of(board, pace), dict[int, dict[str, Series]]()
    live.exporter = ("tested", "127.0.0.1", first)

    def watch(_state: State) -> None:
        last.update({port: scraped(first + port) for port in (0, 2, 3, 4)})

    live.watch = watch
    run(settings, RayBackend(), prepared, live)
    taken.close()
    _, local = metered(config(cluster__window="4 s"))
    expected, own = series(local), series(board)
    for name in OF_SOCKET:
        of_name = next(found for found in (name, f"{name}_total") if found in expected)
        assert of_name not in own
        together: Series = {}
        for found in last.values():
            assert len({dict(key)["socket"] for key in found[of_name]}) == 2
            together |= found[of_name]
        assert together == expected[of_name], name
    assert own["coe_socket_up"] == expected["coe_socket_up"]


def test_no_port_is_the_users_mistake() -> None:
    settings = config(cluster__backend="ray", cluster__sockets_per_actor=8)
    prepared, pace, first = prepare(settings), Pace(), free_ports(MOST_PORTS)
    held = [socket.create_server(("127.0.0.1", first + n)) for n in range(MOST_PORTS)]
    board = board_of(settings, prepared, "tested", 16, pace, sockets_apart=True)
    live = live_of(board, pace)
    live.exporter = ("tested", "127.0.0.1", first)
    with pytest.raises(InputError, match=f"--socket-metrics-port {first} on '127.0.0.1': neither it nor the 63 ports"):
        run(settings, RayBackend(), prepared, live)
    for one in held:
        one.close()


def test_links_count_what_they_send() -> None:
    """In functional mode, of three sockets with an actor each; asked at every token."""
    first, last = free_ports(3), dict[int, dict[str, Series]]()
    given = prompts(4, 3)

    def ask(_prompt: int, _token: int) -> None:
        last.update({port: scraped(first + port) for port in range(3)})

    exporter = Served("tested", "127.0.0.1", first)
    start = partial(ray_members, sockets_per_actor=1, exporter=exporter)
    found = generate(asked(3, 4, 2, given), ask, start)
    assert found.answers == generate(asked(3, 4, 2, given)).answers
    for name in ("coe_link_bytes_total", "coe_link_frames_total"):
        together: Series = {}
        for of_actor in last.values():
            assert len({dict(key)["socket"] for key in of_actor[name]}) == 1
            together |= of_actor[name]
        pairs = {(dict(key)["socket"], dict(key)["peer"]) for key in together}
        assert pairs == {(one, other) for one in "012" for other in "012" if one != other}
        assert min(together.values()) > 0

"""Is only a Ray joined, and whatever else an address leads to told in one line?"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cluster.ray_backend
from cluster.ray_backend import ray_session
from node.errors import InputError

Process = Callable[..., subprocess.CompletedProcess[str]]  # arguments, at: the folder to run it in


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", ""])
def test_a_cluster_that_is_not_there_is_a_mistake_too(process: Process, tmp_path: Path, address: str) -> None:
    said = process("run", "--set", "workload.requests=3", "--address", address, at=tmp_path)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.startswith(f"coe: error: --address {address!r}: ") and said.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (None, "nothing can be reached there: timed out"),
        (b"", "what listens there is no Ray"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what listens there is no Ray"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "what listens there is no Ray"),
    ],
)
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_what_listens_but_is_no_ray_is_not_joined(
    monkeypatch: pytest.MonkeyPatch, scheme: str, says: bytes | None, reason: str
) -> None:
    for name, instead in (
        ("is_initialized", lambda: False),
        ("init", lambda **_: pytest.fail("Ray was asked to join it")),
        ("shutdown", lambda: None),
    ):
        monkeypatch.setattr(f"cluster.ray_backend.ray.{name}", instead)
    monkeypatch.setattr("cluster.ray_backend.CONNECT_LIMIT_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"{scheme}127.0.0.1:{server.getsockname()[1]}"
        with answering(server, says), pytest.raises(InputError, match=f"{address}.*{reason}"), ray_session(address):
            pytest.fail("it was joined")


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What Ray was asked to join, which it does not do."""
    found: list[object] = []
    for name, instead in (
        ("is_initialized", lambda: False),
        ("init", lambda address, **_: found.append(address)),
        ("shutdown", lambda: None),
    ):
        monkeypatch.setattr(f"cluster.ray_backend.ray.{name}", instead)
    monkeypatch.setattr("cluster.ray_backend._check_reachable", lambda *_: None)
    return found


@pytest.mark.parametrize(
    ("given", "environment", "address"),
    [
        (None, None, "local"),
        (None, "", "local"),
        (None, "local", "local"),
        ("local", "10.0.0.1:6379", "local"),
        (None, "10.0.0.1:6379", "10.0.0.1:6379"),
        (None, "auto", "auto"),
        ("10.0.0.2:6379", "10.0.0.1:6379", "10.0.0.2:6379"),
    ],
)
def test_the_ray_of_the_environment_is_joined_where_no_other_is_named(
    given: str | None, environment: str | None, address: str, joined: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.ray_backend._is_on_loopback", lambda _: False)  # whether any Ray is there or not
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if environment is not None:
        monkeypatch.setenv("RAY_ADDRESS", environment)
    with ray_session(given):
        assert joined == [address]


def test_the_ray_that_is_local_is_on_loopback(joined: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.ray_backend.ray_constants.ENABLE_RAY_CLUSTER", True)
    seen: list[bool] = []
    monkeypatch.setattr(
        "cluster.ray_backend.ray.init", lambda **_: seen.append(cluster.ray_backend.ray_constants.ENABLE_RAY_CLUSTER)
    )
    with ray_session("local"):
        assert seen == [False]


@pytest.mark.parametrize(
    ("listens", "address", "outward"),
    [
        ("127.0.0.1", "127.0.0.1", False),
        ("127.0.0.1", "localhost", False),
        ("127.0.0.1", "auto", False),
        ("0.0.0.0", "127.0.0.1", True),
        ("0.0.0.0", "auto", True),
        ("127.0.0.1", "ray://127.0.0.1", True),
    ],
)
def test_a_ray_on_loopback_alone_is_joined_there(
    listens: str, address: str, outward: bool, joined: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    constants, services = (f"cluster.ray_backend.{name}" for name in ("ray_constants", "services"))
    monkeypatch.setattr(f"{constants}.ENABLE_RAY_CLUSTER", True)
    monkeypatch.setattr(f"{services}.get_node_ip_address", lambda: "127.0.0.2")  # for Ray, this machine's address
    seen: list[bool] = []
    monkeypatch.setattr(
        "cluster.ray_backend.ray.init", lambda **_: seen.append(cluster.ray_backend.ray_constants.ENABLE_RAY_CLUSTER)
    )
    with socket.create_server((listens, 0)) as server:
        there = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(f"{services}.get_ray_address_from_environment", lambda *_: there)
        with ray_session(address if address == "auto" else there.replace("127.0.0.1", address)):
            assert seen == [outward]


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:1", "nothing can be reached there: Connection refused"),
        ("http://127.0.0.1:8265", "is a dashboard's; allowed: host:port of the cluster itself"),
    ],
)
def test_a_wrong_address_of_the_environment_is_named(
    address: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.ray_backend.ray.is_initialized", lambda: False)
    monkeypatch.setattr("cluster.ray_backend.ray.shutdown", lambda: None)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match=f"^RAY_ADDRESS '{address}': {reason}"), ray_session(None):
        pytest.fail("it was joined")


def test_what_keeps_ray_from_joining_is_told_whole_in_one_line(
    joined: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise RuntimeError(
            "Version mismatch: The cluster was started with:\n    Python: 3.11.7\nThis process: 3.11.2\n"
        )

    monkeypatch.setattr("cluster.ray_backend.ray.init", refuse)
    said = "Version mismatch: The cluster was started with: Python: 3.11.7 This process: 3.11.2$"
    with pytest.raises(InputError, match=f"no Ray cluster can be joined there: {said}"), ray_session("10.0.0.1:6379"):
        pytest.fail("it was joined")


@contextlib.contextmanager
def answering(server: socket.socket, says: bytes | None) -> Iterator[None]:
    """Somebody who answers the first bytes of a client with ``says`` and hangs up; None: who says nothing."""

    def answer() -> None:
        client, _ = server.accept()
        with client:
            client.recv(1000)
            client.sendall(says or b"")

    thread = threading.Thread(target=answer)
    if says is not None:
        thread.start()
    yield
    if says is not None:
        thread.join()

"""Points are run: one after another in this process, or as Ray tasks; the backend inside a task is the local one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import lru_cache
from typing import Any

import ray
import ray.exceptions

from cluster.backends import LocalBackend, SocketLostError
from cluster.config import ClusterConfig, Config
from cluster.ray_backend import ray_session
from cluster.runner import notes, overloaded, prepare, run
from node.dataflow.program import Kernels
from node.deployment import Deployment
from node.errors import InputError

KEPT = 32  # programs whose kernels a process keeps
Found = dict[str, object]  # what came of a point, as JSON has it
Task = tuple[int, Config]  # the number of a point, and its config
Solver = Callable[[Iterable[Task]], Iterator[tuple[int, Found]]]


def solve(config: Config) -> Found:
    """What came of a point: ``cannot_run`` and why; or the machines' sockets and price, the summary and notes."""
    try:
        prepared = prepare(config)
        _share_kernels(prepared[0])
        result = run(config, LocalBackend(), prepared)
    except InputError as error:
        return cannot_run(error)
    machine, nodes = prepared[0].machine, config.routing.nodes
    return {
        "sockets": nodes * machine.sockets,
        "cost_per_hour": None if machine.cost_per_hour is None else nodes * machine.cost_per_hour,
        "overloaded": overloaded(result),
        "notes": list(notes(result, config.workload.over_context)),
        "summary": result.summary,
    }


def _share_kernels(deployment: Deployment) -> None:
    """Points on the same machine and models compile once in a process: it takes longer than serving 1,000 requests."""
    options, degree = deployment.options, deployment.degree
    for rank in sorted(set(deployment.rank_kinds)):
        for (model, dtype), program in zip(deployment.catalogue.kinds(), deployment.programs(rank), strict=True):
            made_for = (deployment.machine, deployment.models[model], degree, rank, dtype)
            program.kernels = _kernels(*made_for, options.fusion, options.orchestration)


@lru_cache(maxsize=KEPT)
def _kernels(*_made_for: Hashable) -> Kernels:
    return {}


def cannot_run(error: InputError) -> Found:
    """What came of a point that cannot run."""
    return {"cannot_run": " ".join(str(error).split())}


def solver(cluster: ClusterConfig, workers: int | None) -> Solver:
    """Runs tasks where ``cluster`` says, ``workers`` at once on Ray (None: as many as it has CPUs).

    Raises ``InputError`` for several workers in one process.
    """
    if cluster.backend == "ray":
        return lambda tasks: _over_ray(tasks, cluster.address, workers)
    if workers not in (None, 1):
        raise InputError(f"--workers {workers}: has no effect, because cluster.backend is local; remove one of the two")
    return lambda tasks: ((number, solve(config)) for number, config in tasks)


def _over_ray(tasks: Iterable[Task], address: str | None, workers: int | None) -> Iterator[tuple[int, Found]]:
    """As points end, which is no order. ``SocketLostError`` where Ray gives a task up."""
    with ray_session(address):
        remote = ray.remote(num_cpus=1)(solve)
        most = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))  # type: ignore[no-untyped-call]
        pending: dict[Any, int] = {}
        for number, config in tasks:
            pending[remote.remote(config)] = number
            if len(pending) >= most:
                yield _next(pending)
        while pending:
            yield _next(pending)


def _next(pending: dict[Any, int]) -> tuple[int, Found]:
    done, _ = ray.wait(list(pending), num_returns=1)
    number = pending.pop(done[0])
    try:
        return number, ray.get(done[0])
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError as error:
        raise SocketLostError(f"the worker of point {number} was lost: {type(error).__name__}") from error

"""How requests fared by what they were promised: attainment and goodput, in all and by class of service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from cluster.measured import measured, spread
from cluster.not_served import OUTCOMES, NotServed
from cluster.workload import Workload
from node.events import Ints
from node.runtime.service import Service
from node.units import exact_sum

Levels = dict[str, object]


def classes_by_id(workload: Workload) -> Ints:
    """Of each request by its id, served or refused, the number of its class."""
    found = np.zeros(len(workload.requests) + len(workload.refused), dtype=np.int64)
    for requests in (workload.requests, workload.refused):
        found[requests.id] = requests.service
    return found


def asked(services: Sequence[Service]) -> bool:
    """Whether anything was promised to anybody, or there are classes to tell apart."""
    return len(services) > 1 or any(one.ttft is not None or one.e2e is not None for one in services)


def service_levels(
    services: Sequence[Service],
    workload: Workload,
    columns: Mapping[str, Ints],
    others: NotServed,
    warmup: int,
    makespan_s: float,
) -> Levels:
    """What was kept of what was promised.

    A request attains its objectives where it is served and neither its TTFT nor its end-to-end time is over them; one
    that is refused or turned away does not. ``attainment``: their share of those ``counted``, which are all but the
    first ``warmup`` to arrive; ``goodput_requests_per_s``: all that attain them, over the makespan.
    """
    by_id = classes_by_id(workload)
    kept = attained(services, by_id[columns["request"]], columns)
    counted = np.zeros(len(kept), dtype=bool)
    counted[measured(workload, columns, warmup)] = True
    missed = others.requests.id >= (int(workload.requests.id[warmup]) if warmup else 0)
    classes = []
    for number, service in enumerate(services):
        mine, away = by_id[columns["request"]] == number, others.requests.service == number
        ttft, e2e = (columns[name][mine & counted] for name in ("ttft", "e2e"))
        classes.append(
            {
                "name": service.name,
                "requests": int((by_id == number).sum()),
                "completed": int(mine.sum()),
                **_outcomes(others, away),
                "counted": int((mine & counted).sum() + (away & missed).sum()),
                "attainment": _share(kept[mine & counted], int((away & missed).sum())),
                "goodput_requests_per_s": int(kept[mine].sum()) / makespan_s,
                "ttft_s": spread(ttft, exact_sum(ttft)),
                "e2e_s": spread(e2e, exact_sum(e2e)),
            }
        )
    return {
        "attainment": _share(kept[counted], int(missed.sum())),
        "goodput_requests_per_s": int(kept.sum()) / makespan_s,
        "classes": classes,
    }


def attained(services: Sequence[Service], service: Ints, columns: Mapping[str, Ints]) -> npt.NDArray[np.bool_]:
    """Of requests of these classes, whether each was served as promised."""
    kept = np.ones(len(service), dtype=bool)
    for what in ("ttft", "e2e"):
        promised = [getattr(one, what) for one in services]
        limit = np.array([np.iinfo(np.int64).max if one is None else one for one in promised])
        kept &= columns[what] <= limit[service]
    return kept


def _outcomes(others: NotServed, chosen: npt.NDArray[np.bool_]) -> dict[str, int]:
    outcome = np.array(others.outcome, dtype=object)[chosen]
    return {name: int((outcome == name).sum()) for name in OUTCOMES}


def _share(kept: npt.NDArray[np.bool_], others: int) -> float | None:
    count = len(kept) + others
    return int(kept.sum()) / count if count else None

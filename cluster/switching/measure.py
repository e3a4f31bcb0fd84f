"""Switching in runs of a machine: of a workload, and of an operator's measurement."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np

from cluster.backends import LocalBackend
from cluster.config import Config
from cluster.nodes.live import Live
from cluster.runner import Run, Watch, prepare, run
from cluster.summary import Summary
from cluster.switching.activation import Named
from cluster.switching.evictions import Evictions
from cluster.switching.served import TEMPERATURES, Columns, Estimated, estimated, spread, temperatures
from cluster.workload import Workload, WorkloadConfig
from node.deployment import Deployment
from node.errors import InputError
from node.estimate import Call
from node.request import Request, Requests
from node.units import PS_PER_S, exact_sum, seconds

PERCENTS = (10, 50, 90)
PAUSE = 10_000 * PS_PER_S  # between two batches of the measurement: the machine is idle again


@dataclass(frozen=True)
class Switching:
    """A workload on a machine. ``requests`` and ``ttft`` are by temperature; ages and times to the next copy in s.

    ``waited_s``: what all requests waited for copies; ``request_s``: their time in all. ``probed``: the operator's
    estimate from two batches on an idle machine, ``true_s``: what the activation between them took; ``met``: the
    estimate from the full batches of the workload.
    """

    machine: str
    summary: Summary
    requests: dict[str, int]
    ttft: dict[str, dict[str, float] | None]
    copies: int
    copy_in_bytes: int
    copy_in_s: float
    waited_s: float
    request_s: float
    evictions: int
    age_s: dict[str, float] | None
    copied_again: int
    again_s: dict[str, float] | None
    ages: tuple[float, ...]
    probed: Estimated | None
    true_s: float
    met: Estimated | None

    @property
    def total(self) -> int:
        """Completed requests."""
        return sum(self.requests.values())

    def as_json(self) -> dict[str, object]:
        """All but the single ages, with copy-out, which is nothing, and the estimates as differences too."""
        found = {key: value for key, value in asdict(self).items() if key != "ages"}
        for name, one in (("probed", self.probed), ("met", self.met)):
            found[name] = None if one is None else {**asdict(one), "switching_s": one.switching_s}
        return {**found, "copy_out_bytes": 0, "copy_out_s": 0.0}


def measure(config: Config, named: Named, call: Call, watch: Watch) -> Switching:
    """Run the config's workload on a machine, and the operator's measurement with ``call``; raises ``InputError``."""
    label, machine = named
    prepared = prepare(config, machine)
    evictions = Evictions(prepared[0].catalogue.count)
    result = run(config, LocalBackend(), prepared, Live(watch), observe=evictions.observe)
    return _switching(label, config, result, evictions, probe(config, prepared[0], call))


def probe(config: Config, deployment: Deployment, call: Call) -> Estimated | None:
    """Two full batches of equal requests for expert 0 on an idle machine, which has to copy it for the first only.

    None where requests are not served in batches, or where ``call`` does not fit the KV cache.
    """
    batch = config.runtime.batch
    requests = [
        Request(number, number // batch * PAUSE, call.input_tokens, call.output_tokens, 0)
        for number in range(2 * batch)
    ]
    workload = Workload(Requests.of(requests), Requests.of([]), 0, (), "two full batches", True)
    try:
        columns = run(replace(config, workload=WorkloadConfig()), LocalBackend(), (deployment, workload)).columns
    except InputError:
        return None
    ttft = columns["ttft"] / PS_PER_S
    return Estimated(float(ttft.min()), float(ttft.max()), 2)


def _switching(label: str, config: Config, result: Run, evictions: Evictions, probed: Estimated | None) -> Switching:
    columns: Columns = result.columns
    masks = temperatures(columns)
    copied = result.summary["bytes_ddr_to_hbm"]
    assert isinstance(copied, int)
    ages, again = (np.array(times, dtype=np.int64) for times in (evictions.ages, evictions.again))
    return Switching(
        machine=label,
        summary=result.summary,
        requests={name: int(masks[name].sum()) for name in TEMPERATURES},
        ttft={name: spread(columns["ttft"][masks[name]]) for name in TEMPERATURES},
        copies=evictions.copies,
        copy_in_bytes=copied,
        copy_in_s=seconds(evictions.copy_ps),
        waited_s=seconds(exact_sum(columns["switch"])),
        request_s=seconds(exact_sum(columns["e2e"])),
        evictions=len(ages),
        age_s=spread(ages, PERCENTS),
        copied_again=len(again),
        again_s=spread(again, PERCENTS),
        ages=tuple(float(age) / PS_PER_S for age in np.sort(ages)),
        probed=probed,
        true_s=seconds(result.deployment.activation_ps(0)),
        met=estimated(columns, config.runtime.batch),
    )

"""All that a search is about: what is asked, of which requests, and who can be chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.config import Config
from cluster.config_file import config_of_values
from cluster.plan.asked import Asked, Values, used, workload_values
from cluster.plan.candidates import Candidate, candidates_of
from cluster.plan.interval import CONFIDENCE, fewest_requests
from cluster.runner import prepare
from cluster.sweep.definition import Point
from cluster.workload import Workload
from node.errors import InputError
from node.units import PS_PER_S


@dataclass(frozen=True)
class Problem:
    """``config``: what all candidates share; ``workload``: the requests of the first seed."""

    asked: Asked
    config: Config
    workload: Workload
    candidates: Sequence[Candidate]

    @property
    def requests(self) -> int:
        """How many a run has."""
        return len(self.workload.requests) + len(self.workload.refused)

    @property
    def rate(self) -> float:
        """Requests/s: those that are drawn, or those of the trace."""
        workload = self.config.workload
        if workload.trace is None:
            return workload.rate * workload.rate_scale
        return self.requests / self.span_s

    @property
    def span_s(self) -> float:
        """How long requests come for in a run (s)."""
        return int(self.workload.requests.arrival[-1]) / PS_PER_S

    @property
    def classes(self) -> list[str]:
        """The classes that are promised anything."""
        return [one.name for one in self.config.slo.services() if one.ttft is not None or one.e2e is not None]

    @property
    def priced(self) -> bool:
        """Whether every candidate's machine has a price."""
        return all(one.machine.cost_per_hour is not None for one in self.candidates)

    def check(self) -> None:
        """``InputError`` where no search could come to an answer."""
        if not self.classes:
            raise InputError(
                "--slo: nothing is promised to anybody; give it, for example --slo ttft=2s, or [slo] in --config"
            )
        if self.workload.experts_given:
            raise InputError(
                f"{self.workload.source}: names the expert of each request, so that runs from several seeds are all "
                "the same and nothing says how well a share is known; allowed: a trace without experts, or coe sweep "
                "over routing.nodes"
            )
        if not self.span_s:
            raise InputError("workload.arrivals: all requests arrive at once: nothing can be planned for them")
        self._check_power()

    def _check_power(self) -> None:
        slo, asked = self.config.slo, self.asked
        shares = dict(zip((one.name for one in slo.services()), slo.shares(), strict=True))
        least = min(shares[name] for name in self.classes) / sum(shares.values())
        needed = fewest_requests(asked.attainment, asked.seeds)
        counted = int(asked.seeds * (self.requests - self.config.workload.warmup) * least)
        if counted < needed:
            raise InputError(
                f"--attainment {asked.attainment}: {asked.seeds} runs of {self.requests:,} requests cannot show it "
                f"with {CONFIDENCE:.0%} confidence, even if all are kept to: {needed:,} of each class must count, and "
                f"{counted:,} do; give more --requests or --seeds, or ask for less"
            )


def problem_of(
    asked: Asked,
    values: Values,
    points: Sequence[Point],
    origins: Mapping[str, str],
    rate: float | None,
    requests: int | None,
) -> Problem:
    """The problem of ``values`` and of candidates at ``points``, whose keys are from ``origins``.

    ``rate`` (requests/s) and ``requests`` are those of options, if given. Raises ``InputError``, before anything runs.
    """
    values = workload_values(values, rate, requests)
    candidates = candidates_of(values, points, origins)
    _, workload = prepare(next(one.config for one in candidates if one.cannot_run is None))
    problem = Problem(asked, config_of_values(values, used), workload, candidates)
    problem.check()
    return problem

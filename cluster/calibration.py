"""The fit of the few parameters that nobody published, to the few points that they may be fitted to.

``python -m cluster.calibration`` prints what the spec files should say; a test holds them to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from node.estimate import Call, estimate
from node.models.hugging_face import load_shape
from node.spec import Machine
from node.spec_file import load_machine


@dataclass(frozen=True)
class Point:
    """A published call of a model over all sockets."""

    model: str
    call: Call
    published_s: float
    source: str


@dataclass(frozen=True)
class Fit:
    """``parameters`` (path -> unit to write it in) of ``machine`` that meet two ``points``."""

    machine: str
    parameters: tuple[tuple[str, str], tuple[str, str]]
    points: tuple[Point, Point]


NEMO = "NeMo, Llama-2-7B, TP8"
FITS = (
    Fit(
        "sn40l-node",
        (("kernel.sync", "us"), ("host.call_overhead", "ms")),
        (
            Point("llama-3-8b", Call(1024, 1024, 1), 1.584, "ANL, Llama-3-8B, 8 sockets"),
            Point("llama-2-7b", Call(128, 20, 1), 0.066, "derived from P, Samba-CoE expert, 8 sockets"),
        ),
    ),
    Fit(
        "dgx-a100",
        (("kernel.launch_so", "us"), ("compute.efficiency", "")),
        (Point("llama-2-7b", Call(128, 20, 1), 0.1365, NEMO), Point("llama-2-7b", Call(128, 20, 8), 0.1819, NEMO)),
    ),
    Fit(
        "dgx-h100",
        (("kernel.launch_so", "us"), ("compute.efficiency", "")),
        (Point("llama-2-7b", Call(128, 20, 1), 0.0976, NEMO), Point("llama-2-7b", Call(128, 20, 8), 0.1291, NEMO)),
    ),
)
_SCALE = {"us": 1e-6, "ms": 1e-3, "": 1.0}
_ROUNDS = 50


def solve(fit: Fit) -> tuple[float, float]:
    """The two parameters in their units, by Newton's method with differences; raises if it does not settle."""

    def misses(values: tuple[float, float]) -> tuple[float, float]:
        said = {path: f"{value:.9g} {unit}" for (path, unit), value in zip(fit.parameters, values, strict=True)}
        machine = load_machine(fit.machine, said)
        first, second = (_total_s(machine, point) - point.published_s for point in fit.points)
        return first, second

    values = (_start(fit.parameters[0][1]), _start(fit.parameters[1][1]))
    for _ in range(_ROUNDS):
        first, second = misses(values)
        if max(abs(first), abs(second)) < 1e-9:
            return values
        values = _newton(misses, values, (first, second))
    raise RuntimeError(f"{fit.machine}: the fit does not settle: {values}")


def _total_s(machine: Machine, point: Point) -> float:
    return estimate(machine, load_shape(point.model), point.call).total_s


def _start(unit: str) -> float:
    return {"us": 5.0, "ms": 30.0}.get(unit, 0.2)


def _newton(
    misses: Callable[[tuple[float, float]], tuple[float, float]],
    at: tuple[float, float],
    miss: tuple[float, float],
) -> tuple[float, float]:
    x, y = at
    dx, dy = x * 1e-4, y * 1e-4
    right, up = misses((x + dx, y)), misses((x, y + dy))
    a, b = (right[0] - miss[0]) / dx, (up[0] - miss[0]) / dy
    c, d = (right[1] - miss[1]) / dx, (up[1] - miss[1]) / dy
    determinant = a * d - b * c
    if determinant == 0:
        raise RuntimeError("the fit does not settle: both points ask the same of the parameters")
    step_x = (miss[0] * d - b * miss[1]) / determinant
    step_y = (a * miss[1] - c * miss[0]) / determinant
    return max(x - step_x, x / 4), max(y - step_y, y / 4)


def main() -> None:
    """Print the fitted numbers."""
    for fit in FITS:
        for (path, unit), value in zip(fit.parameters, solve(fit), strict=True):
            print(f"{fit.machine}: {path} = {value:.4g} {unit}".rstrip(), f"({value * _SCALE[unit]:.6g})")


if __name__ == "__main__":
    main()

"""The footprint of a machine over any number of experts, with the arithmetic that it comes from, and its picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from cluster.chart import Chart, Series, svg
from cluster.footprint import Capacity, Row, capacity, row
from cluster.inputs import inputs
from cluster.scales import Axis, plain
from node.deployment import Deployment
from node.spec import Machine
from node.units import show_seconds

INPUTS = (
    "sockets", "cost_per_hour", "hbm.capacity", "ddr.capacity", "ddr.bandwidth", "ddr.efficiency",
    "host_link.bandwidth", "host_link.sharing",
)  # fmt: skip
EXACT_STEPS, COARSE_STEPS = 300, 200  # steps of a curve drawn one by one, and those drawn of the rest
BEYOND = 1.2  # a curve is drawn so many times as far as where its machine is full
NEUTRAL = 6  # the colour of marks that are of no machine


@dataclass(frozen=True)
class Curve:
    """One machine: what it has room for, and the lines of arithmetic that say so; ``limit_s``: of an activation."""

    label: str
    machine: Machine
    room: Capacity
    limit_s: float
    arithmetic: tuple[str, ...]

    @property
    def spills_from(self) -> int:
        """The number of experts from which one machine's HBM does not hold all."""
        return self.room.hbm + 1

    @property
    def out_of_memory_from(self) -> int:
        """The number of experts from which one machine has no room for all in any tier."""
        return max(self.room.hbm, self.room.below) + 1

    def row(self, experts: int, limit_s: float | None = None) -> Row:
        """Nodes for ``experts``, at the curve's limit or at another."""
        limit = self.limit_s if limit_s is None else limit_s
        return row(self.label, self.room, experts, limit, self.machine.cost_per_hour)

    def steps(self, most: int) -> list[tuple[float, float]]:
        """(experts, nodes) wherever another node is needed, up to ``most`` experts; far out, only some of them."""
        held = self.room.held(self.limit_s)
        nodes = range(-(-most // held))
        some = {round((len(nodes) / EXACT_STEPS) ** (k / COARSE_STEPS) * EXACT_STEPS) for k in range(COARSE_STEPS)}
        shown = [*nodes[:EXACT_STEPS], *sorted(k for k in some if k in nodes[EXACT_STEPS:])]
        return [*((k * held + 1, k + 1) for k in shown), (most, len(nodes))]


def curve(label: str, deployment: Deployment, limit_s: float) -> Curve:
    """The curve of a deployment's machine, its catalogue in proportion; raises as ``capacity`` does."""
    room = capacity(deployment)
    return Curve(label, deployment.machine, room, limit_s, tuple(_arithmetic(deployment, room, limit_s)))


def _arithmetic(deployment: Deployment, room: Capacity, limit_s: float) -> list[str]:
    """Bytes of a socket by what they are for. ``experts`` is the shard of one, the mean one where models differ."""
    groups = deployment.catalogue.groups
    one_each = tuple(replace(group, count=deployment.groups) for group in groups)
    least = replace(deployment, catalogue=replace(deployment.catalogue, groups=one_each))
    layout, sizes = least.layouts[0], least.settings.sizes
    shards = [sizes[index * deployment.groups].weights for index in range(len(groups))]
    count = sum(group.count for group in groups)
    shard = sum(size * group.count for size, group in zip(shards, groups, strict=True)) / count
    hbm, ddr = deployment.machine.hbm.capacity, deployment.machine.ddr.capacity
    left, times = layout.experts.size, f" x {deployment.groups} groups" if deployment.groups > 1 else ""
    whose = "an expert" if len(set(shards)) == 1 else "the mean expert"
    rate = max(shards) / room.activation_s
    counts = "counts as held" if room.activation_s <= limit_s else "does not count as held"
    return [
        f"HBM of a socket {hbm:,} B - router {layout.router.size:,} B - KV cache {layout.kv.size:,} B = {left:,} B",
        f"in HBM: {left:,} B / {shard:,.0f} B of {whose} = {left / shard:.2f}{times}: {room.hbm} experts",
        f"below: {ddr:,} B / {shard:,.0f} B of {whose} = {ddr / shard:.2f}{times}: {room.below} experts",
        f"activation: {max(shards):,} B a socket at {_rate(deployment)} = {rate / 1e9:.4g} GB/s: "
        f"{show_seconds(room.activation_s)}, limit {show_seconds(limit_s)}: what is below HBM {counts}",
    ]


def _rate(deployment: Deployment) -> str:
    link, ddr = deployment.machine.host_link, deployment.machine.ddr
    if link is None:
        assert ddr.bandwidth is not None
        return f"{ddr.bandwidth / 1e9:.4g} GB/s x {ddr.efficiency:.4g} of DDR"
    shared = f" over the {deployment.degree} sockets that share it" if link.sharing == "shared" else " for itself"
    return f"{link.bandwidth / 1e9:.4g} GB/s of host link{shared}"


def as_json(curves: Sequence[Curve], rows: Sequence[Row]) -> dict[str, object]:
    """``rows``, one a machine and number of experts; ``machines`` with their curves, arithmetic and inputs.

    A curve is (experts, nodes) wherever another node is needed, up to the most experts of ``rows``.
    """
    most = max(one.experts for one in rows)
    return {
        "rows": [asdict(one) for one in rows],
        "machines": [
            {
                "machine": one.label,
                **asdict(one.room),
                "activation_limit_s": one.limit_s,
                "held": one.room.held(one.limit_s),
                "spills_from": one.spills_from,
                "out_of_memory_from": one.out_of_memory_from,
                "curve": one.steps(most),
                "arithmetic": list(one.arithmetic),
                "inputs": [asdict(figure) for figure in one.machine.figures if figure.path in INPUTS],
            }
            for one in curves
        ],
    }


def picture(curves: Sequence[Curve], most: int) -> str:
    """Nodes over experts, beyond ``most`` until all are full; nodes for ``most`` over the limit; cost, where given."""
    end = max(most, *(round(BEYOND * one.out_of_memory_from) for one in curves))
    marks = [
        Series(
            "a machine spills from HBM",
            _marks(curves, [one.spills_from for one in curves], end),
            "dots",
            NEUTRAL,
            hollow=True,
        ),
        Series(
            "a machine is out of memory",
            _marks(curves, [one.out_of_memory_from for one in curves], end),
            "dots",
            NEUTRAL,
        ),
    ]
    limit = curves[0].limit_s
    experts = Axis("experts", log=True)
    series = [Series(one.label, one.steps(end), "steps") for one in curves]
    notes = [f"{one.label}: {line}" for one in curves for line in one.arithmetic[1:]]
    notes += [f"{one.label}, inputs: {inputs(one.machine, INPUTS)}" for one in curves]
    title = f"Machines that hold a number of experts, where an activation of {show_seconds(limit)} counts as held"
    charts = [Chart(title, experts, Axis("machines", log=True), [*series, *marks], notes), _over_limits(curves, most)]
    priced = [one for one in curves if one.machine.cost_per_hour is not None]
    if priced:
        costs = [_cost(one, end) for one in priced]
        charts.append(Chart("Cost of these machines", experts, Axis("cost per hour, as given", log=True), costs))
    return svg(charts)


def _marks(curves: Sequence[Curve], places: Sequence[int], most: int) -> list[tuple[float, float]]:
    return [(at, one.row(at).nodes) for one, at in zip(curves, places, strict=True) if at <= most]


def _cost(one: Curve, most: int) -> Series:
    price = one.machine.cost_per_hour or 0.0
    return Series(f"{one.label} at {plain(price)}", [(at, nodes * price) for at, nodes in one.steps(most)], "steps")


def _over_limits(curves: Sequence[Curve], most: int) -> Chart:
    """From the limit that an activation takes on, what lies below HBM counts too."""
    times = [one.room.activation_s for one in curves]
    low, high = min(*times, curves[0].limit_s) / 3, max(*times, curves[0].limit_s) * 3
    series = []
    for one in curves:
        at = (low, one.room.activation_s, high)
        series.append(Series(one.label, [(limit, one.row(most, limit).nodes) for limit in at], "steps"))
    top = max(y for one in series for _, y in one.points)
    series.append(Series("the limit", [(curves[0].limit_s, 1), (curves[0].limit_s, top)], "line", NEUTRAL))
    time = Axis("longest activation that counts as held", log=True, show=show_seconds)
    return Chart(f"Machines that hold {most:,} experts, over the limit", time, Axis("machines", log=True), series)

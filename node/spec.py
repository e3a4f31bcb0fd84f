"""The machine as data: what a spec file may say, and the frozen tree the code reads.

Every number of a chip lives in ``specs/*.toml`` with its unit, source and kind; this file holds none.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from node.units import Bytes, transfer_ps

KINDS = ("published", "derived", "assumed")


def _quantity(dimension: str, *, optional: bool = False) -> Any:  # noqa: ANN401 - as dataclasses.field itself
    return field(metadata={"dimension": dimension, "optional": optional})


@dataclass(frozen=True)
class Figure:
    """One number of a spec with where it is from: ``kind`` is one of ``KINDS``; ``range``: between what it may lie."""

    path: str
    value: str
    kind: str
    source: str
    range: tuple[str, str] | None = None


@dataclass(frozen=True)
class Compute:
    """The arithmetic of one socket: ``units`` (PCUs, SMs) of ``macs_per_cycle`` multiply-accumulates each."""

    units: int = _quantity("count")
    macs_per_cycle: int = _quantity("count")
    clock: float = _quantity("Hz")
    efficiency: float = _quantity("fraction")

    @property
    def peak_flops_per_s(self) -> float:
        """Peak FLOP/s: units x MACs per cycle x 2 x clock."""
        return self.units * self.macs_per_cycle * 2 * self.clock

    @property
    def flops_per_s(self) -> float:
        """Reached FLOP/s."""
        return self.peak_flops_per_s * self.efficiency


@dataclass(frozen=True)
class Sram:
    """On-chip memory in ``banks`` (PMUs, L2 slices), each read and written every cycle."""

    banks: int = _quantity("count")
    bank_capacity: int = _quantity("bytes")
    bank_bandwidth: float = _quantity("bytes/cycle")

    @property
    def capacity(self) -> Bytes:
        """Bytes over all banks."""
        return self.banks * self.bank_capacity


@dataclass(frozen=True)
class Hbm:
    """High-bandwidth memory of one socket; ``efficiency`` is the share of its bandwidth that a kernel reaches."""

    capacity: int = _quantity("bytes")
    bandwidth: float = _quantity("bytes/s")
    efficiency: float = _quantity("fraction")


@dataclass(frozen=True)
class Ddr:
    """The capacity tier of one socket; with no bandwidth of its own it is host memory behind the host link."""

    capacity: int = _quantity("bytes")
    bandwidth: float | None = _quantity("bytes/s", optional=True)
    efficiency: float | None = _quantity("fraction", optional=True)


@dataclass(frozen=True)
class HostLink:
    """Link between host memory and HBM: one for the node (``shared``) or one ``per_socket``."""

    bandwidth: float = _quantity("bytes/s")
    sharing: str = _quantity("shared|per_socket")


@dataclass(frozen=True)
class Peer:
    """Socket-to-socket network: bandwidth of one socket one way, and latency of one hop in seconds.

    ``hop_worth``: bytes that a socket rather sends than have an all-reduce take a hop more; without it none is direct.
    """

    bandwidth: float = _quantity("bytes/s")
    latency: float = _quantity("s")
    hop_worth: int | None = _quantity("bytes", optional=True)


@dataclass(frozen=True)
class Kernel:
    """What a kernel costs beyond its work, in seconds: launch (HO or SO), synchronisation.

    ``fusion`` is the most that the machine can fuse; ``configuration``: bytes of a kernel's program for each unit.
    """

    fusion: str = _quantity("unfused|conventional|fused|looped")
    launch_so: float = _quantity("s")
    sync: float = _quantity("s")
    launch_ho: float | None = _quantity("s", optional=True)
    configuration: int | None = _quantity("bytes", optional=True)


@dataclass(frozen=True)
class Pipeline:
    """How operators become stages side by side on compute units and SRAM banks.

    A unit has ``lanes`` (SIMD; as a systolic array: columns); one unit of a stage's work takes at least ``grain``
    cycles; data takes ``stage_latency`` seconds through an idle stage.
    """

    lanes: int = _quantity("count")
    grain: float = _quantity("cycles")
    stage_latency: float = _quantity("s")


@dataclass(frozen=True)
class Host:
    """The host side: ``call_overhead`` is the fixed cost of one call in seconds."""

    call_overhead: float = _quantity("s")


@dataclass(frozen=True)
class Power:
    """Power of one socket, all-in, in watts."""

    socket: float = _quantity("W")


@dataclass(frozen=True)
class Machine:
    """``sockets`` equal sockets and a host; ``figures`` says where each number is from.

    ``cost_per_hour`` is the user's, in a currency of theirs; no built-in machine has one.

    Without a ``pipeline`` the operators of a kernel run one after another, each on all compute units (a GPU).
    """

    name: str
    title: str
    sockets: int
    compute: Compute
    sram: Sram
    hbm: Hbm
    ddr: Ddr
    peer: Peer
    kernel: Kernel
    pipeline: Pipeline | None
    host: Host
    host_link: HostLink | None
    power: Power | None
    cost_per_hour: float | None
    figures: tuple[Figure, ...] = field(repr=False, compare=False)

    def copy_ps(self, size: Bytes, sharers: int) -> int:
        """DDR to HBM time in ps for ``size`` bytes of one socket while ``sharers`` sockets copy as much."""
        return transfer_ps(size, self.copy_bytes_per_s(sharers))

    def move_ps(self, size: Bytes, sharers: int) -> int:
        """Time in ps from DDR of one socket to that of another for ``size`` bytes, while ``sharers`` sockets send."""
        return transfer_ps(size, min(self.copy_bytes_per_s(sharers), self.peer.bandwidth))

    def hbm_share(self, sharers: int) -> float:
        """The share of HBM bandwidth that one socket's kernels have beside such a copy; none is left where <= 0."""
        return 1 - self.copy_bytes_per_s(sharers) / self.hbm.bandwidth

    def copy_bytes_per_s(self, sharers: int) -> float:
        """The rate of such a copy."""
        if self.host_link is None:
            assert self.ddr.bandwidth is not None and self.ddr.efficiency is not None
            return self.ddr.bandwidth * self.ddr.efficiency
        return self.host_link.bandwidth / (sharers if self.host_link.sharing == "shared" else 1)


TABLES: dict[str, type] = {
    "compute": Compute,
    "sram": Sram,
    "hbm": Hbm,
    "ddr": Ddr,
    "host_link": HostLink,
    "peer": Peer,
    "kernel": Kernel,
    "pipeline": Pipeline,
    "host": Host,
    "power": Power,
}
OPTIONAL_TABLES = ("host_link", "pipeline", "power")


def paths() -> dict[str, tuple[str, bool]]:
    """Every path a spec may set -> (dimension or ``a|b`` choices, optional)."""
    known = {"sockets": ("count", False), "cost_per_hour": ("cost/h", True)}
    for table, kind in TABLES.items():
        for entry in fields(kind):
            optional = entry.metadata["optional"] or table in OPTIONAL_TABLES
            known[f"{table}.{entry.name}"] = (entry.metadata["dimension"], optional)
    return known

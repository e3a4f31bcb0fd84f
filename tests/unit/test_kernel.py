"""What bounds a kernel, what does it cost beyond its work, and which kernels does each level make?"""

from __future__ import annotations

import pytest

from node.dataflow.compiler import Compiler
from node.dataflow.form import Form, Step
from node.dataflow.graph import Block
from node.dataflow.kernel import Kernel
from node.dataflow.operators import activation, collective
from node.dataflow.program import compile_graph
from node.models.decoder import decoder
from node.models.hugging_face import load_shape
from node.spec_file import load_machine
from tests.unit.network import ACT, FOUR, NETWORK, UP, Y, only

NODE, A100 = load_machine("sn40l-node"), load_machine("dgx-a100")


def made(*bounds: tuple[str, float], iterations: int = 1) -> Kernel:
    forms = tuple((label, Form(tokens=seconds)) for label, seconds in bounds)
    link = dict(forms).get("link", Form())
    block = Block("b", NETWORK)
    return Kernel(block, "k", 1, iterations, NETWORK, forms, 7.0, hbm=Form(), flops=Form(), link=link)


@pytest.mark.parametrize("slowest", ["compute", "sram", "hbm", "link", "latency"])
def test_a_kernel_takes_its_slowest_bound_and_what_nothing_hides(slowest: str) -> None:
    bounds = {"compute": 1.0, "sram": 2.0, "hbm": 3.0, "link": 4.0, "latency": 2.5} | {slowest: 5.0}
    cost = made(*bounds.items()).cost(FOUR)
    assert (cost.bound_by, cost.bound, cost.fixed, cost.seconds) == (slowest, 4 * 5.0, 7.0, 4 * 5.0 + 7.0)
    assert cost.link == 4 * bounds["link"]
    looped = made(*bounds.items(), iterations=10).cost(FOUR)
    assert (looped.bound, looped.fixed, looped.link) == (10 * 4 * 5.0, 7.0, 10 * 4 * bounds["link"])


def test_a_copy_slows_only_what_hbm_bounds() -> None:
    assert made(("compute", 1.0), ("hbm", 3.0)).cost(FOUR, hbm_share=0.5).bound == 4 * 6.0
    assert made(("compute", 7.0), ("hbm", 3.0)).cost(FOUR, hbm_share=0.5).bound == 4 * 7.0
    slowed = made(("link", 4.0), ("hbm", 3.0)).cost(FOUR, hbm_share=0.5)  # until HBM is the slower one
    assert (slowed.bound_by, slowed.bound, slowed.link, slowed.fixed) == ("hbm", 4 * 6.0, 4 * 4.0, 7.0)


def test_the_bounds_and_the_fixed_cost_of_a_gpu_kernel() -> None:
    overrides = {
        "hbm.bandwidth": "1 kB/s",
        "hbm.efficiency": 0.5,
        "sram.banks": 2,
        "sram.bank_bandwidth": "100 B/cycle",
    }
    overrides |= {"compute.clock": "10 Hz", "compute.units": 3, "compute.macs_per_cycle": 5, "compute.efficiency": 0.5}
    overrides |= {"kernel.sync": "3 s", "kernel.launch_so": "7 s"}
    kernel = only(load_machine("dgx-a100", overrides), "conventional", UP, ACT)
    flops, through = 4 * (2 * 300 + 7), 4 * (20 + 60) + 600  # at 150 FLOP/s, 500 B/s; 2000 B/s of SRAM, with h in it
    by_hand = {"compute": flops / 150, "sram": (through + 4 * 60) / 2000, "hbm": through / 500, "link": 0}
    assert {label: form.at(FOUR) for label, form in kernel.bounds} == pytest.approx(by_hand)
    assert (kernel.fixed_s, kernel.flops.at(FOUR)) == (10, flops)


def test_what_a_pipeline_costs_beside_its_bound() -> None:
    overrides = {
        "kernel.launch_ho": "7 s",
        "kernel.sync": "3 s",
        "pipeline.stage_latency": "5 s",
        "peer.latency": "2 s",
    }
    reduced = collective("sum", "all_reduce", Y, activation("sum", 10))
    machine = load_machine("sn40l-node", overrides)
    assert only(machine, "fused", *NETWORK, reduced, members=4).fixed_s == 7 + 3 + 4 * 5 + 2  # in one hop
    two_hops = load_machine("sn40l-node", overrides | {"peer.hop_worth": "1 B"})
    assert only(two_hops, "fused", *NETWORK, reduced, members=4).fixed_s == 7 + 3 + 4 * 5 + 2 * 2
    assert only(machine, "fused", *NETWORK, reduced, members=1).fixed_s == 7 + 3 + 4 * 5


@pytest.mark.parametrize(
    ("name", "worth", "kind", "members", "sent", "hops"),
    [
        ("dgx-a100", None, "all_reduce", 2, 80, 2),
        ("dgx-a100", None, "all_reduce", 4, 120, 2),
        ("dgx-a100", 120, "all_reduce", 4, 240, 1),
        ("sn40l-node", 1, "all_reduce", 2, 80, 1),  # there is nothing more to send
        ("sn40l-node", 119, "all_reduce", 4, 120, 2),
        ("sn40l-node", 120, "all_reduce", 4, 240, 1),
        *((name, 1, "all_gather", members, sent, 1) for name in ("dgx-a100", "sn40l-node")
          for members, sent in ((2, 80), (4, 240))),
    ],
)  # fmt: skip
def test_a_collective_sends_over_the_link(
    name: str, worth: int | None, kind: str, members: int, sent: int, hops: int
) -> None:
    """80 B of each member: to reduce, (n - 1) / n of them twice, or all to n - 1 others; to gather, those too."""
    worths = {} if worth is None else {"peer.hop_worth": f"{worth} B"}
    machine = load_machine(name, {"peer.bandwidth": "10 B/s", "peer.latency": "2 s"} | worths)
    operator = collective("c", kind, Y, activation("z", 10))
    together = only(machine, "unfused", operator, members=members)
    alone = only(machine, "unfused", operator, members=1)
    assert (together.cost(FOUR).bound_by, together.cost(FOUR).link) == ("link", pytest.approx(sent / 10))
    assert together.cost(FOUR).bound == together.cost(FOUR).link
    assert together.fixed_s - alone.fixed_s == pytest.approx(hops * 2)
    assert alone.cost(FOUR).link == 0 and alone.cost(FOUR).bound_by != "link"


# Levels


@pytest.mark.parametrize(
    ("machine", "asked", "orchestration", "count", "launch"),
    [
        ("sn40l-node", "looped", "ho", 3, "launch_ho"),
        ("sn40l-node", "fused", "ho", 3, "launch_ho"),
        ("sn40l-node", "fused", "so", 3, "launch_so"),
        ("sn40l-node", "conventional", "ho", 20, "launch_so"),
        ("sn40l-node", "unfused", "ho", 25, "launch_so"),
        ("dgx-a100", "fused", "ho", 20, "launch_so"),  # as far as the machine can
        ("dgx-a100", "unfused", "so", 25, "launch_so"),
    ],
)
def test_a_machine_fuses_as_far_as_it_can_and_launches_as_it_can(
    machine: str, asked: str, orchestration: str, count: int, launch: str
) -> None:
    spec = load_machine(machine, {"peer.latency": "0 s"})
    found = compile_graph(decoder(load_shape("llama-2-7b"), 8), spec, 8, asked, orchestration).decode_kernels(1, 1000)
    latency = spec.pipeline.stage_latency if spec.pipeline else 0.0
    fixed = {round((kernel.fixed_s - len(kernel.operators) * latency) * 1e12) for kernel in found}
    assert len(found) == count and fixed == {round((getattr(spec.kernel, launch) + spec.kernel.sync) * 1e12)}
    assert sum(len(kernel.operators) * kernel.repeat * kernel.iterations for kernel in found) == 32 * 20 + 5


@pytest.mark.parametrize("step", [Step(1000, 500_500, 1000, 1), Step(16, 16_000, 16_000, 16)], ids=["prompt", "decode"])
@pytest.mark.parametrize("model", ["llama-2-7b", "mistral-7b", "falcon-40b"])
def test_fusing_never_moves_more_bytes_nor_other_work(model: str, step: Step) -> None:
    blocks = decoder(load_shape(model), 8).blocks
    bytes_moved, flops = [], []
    for level in ("fused", "conventional", "unfused"):
        found = Compiler.of(NODE, 8, level, "ho").kernels(blocks, step)
        bytes_moved.append(sum(kernel.repeat * kernel.hbm.at(step) for kernel in found))
        flops.append(sum(kernel.repeat * kernel.flops.at(step) for kernel in found))
    assert bytes_moved[0] < bytes_moved[1] < bytes_moved[2]
    assert flops[1:] == pytest.approx([flops[0]] * 2, rel=1e-12)

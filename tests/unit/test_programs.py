"""Compiled programs that are switched: what a program's image is, and scenarios on one group, worked by hand.

The clockwork copies an expert in 10 ms, a call takes 2 ms, a pass 1 ms. Here the image of a prefill loads in 5 ms, half
as many bytes as an expert, and that of a decode step in 2.5.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.dataflow.form import Step
from node.dataflow.image import Images
from node.dataflow.program import Program, compile_graph
from node.errors import InputError, OutOfMemoryError
from node.events import Kind, Tier
from node.models.decoder import decoder
from node.models.shape import Shape
from node.runtime import steps
from node.runtime.homes import Sharding
from node.spec_file import load_machine
from node.units import MS
from tests.conftest import CLOCK

WEIGHTS = decoder(CLOCK, 1).weight_bytes
PREFILL, DECODE = WEIGHTS // 2, WEIGHTS // 4  # 5 ms and 2.5 ms
UNEVEN = Shape("uneven", 2, hidden=288, heads=9, kv_heads=3, head_dim=32, ffn=770, vocabulary=1001, context=4096)
MACHINE = load_machine("sn40l-node")
KINDS = [[compile_graph(decoder(UNEVEN, 2, rank), MACHINE, 2, "fused", "ho")] for rank in range(2)]


@pytest.fixture
def switched(clockwork, monkeypatch):
    """``clockwork`` with programs switched; ``reserve``: bytes for them, by default enough for all."""
    monkeypatch.setattr(Program, "units", lambda _self, key: DECODE if key[0] else PREFILL)

    def make(reserve: int = 9 * WEIGHTS, **options: object):
        options["numbers"] = {"kernel.configuration": "1 B", **options.pop("numbers", {})}
        return clockwork(switching="program", program_reserve=reserve, **options)

    return make


def loads(outcome, group: int = 0) -> list[tuple[float, int]]:
    """When each image began to come (ms), and its bytes."""
    return [(one.command.issued / MS, one.command.size) for one in outcome.of_kind(Kind.IMAGE, group)]


# What an image is


@pytest.mark.parametrize("fusion", ["unfused", "conventional", "fused", "looped"])
def test_an_image_is_the_configuration_of_all_units_of_each_kernel(fusion):
    program = compile_graph(decoder(CLOCK, 1), MACHINE, 1, fusion, "ho")
    images = Images([[program]], 2048)
    step = steps.prefill([100, 30], None)
    for image, kernels in (
        (images.prefill(0, step), program.prefill_kernels(Step(*step[:4]))),
        (images.decode(0, steps.decode(3, 1700, 9)), program.decode_kernels(3, 1700)),
    ):
        stages = [stage for kernel in kernels for stage in kernel.placement.stages]
        assert image.size == 2048 * sum(stage.pcus + stage.pmus for stage in stages) > 0
        assert len({kernel.name for kernel in kernels}) == len(kernels)  # each is there once, however often it runs


def test_of_sockets_whose_shards_differ_the_largest_image_counts():
    step = steps.prefill([300], None)
    sizes = [Images([kind], 1).prefill(0, step).size for kind in KINDS]
    assert len(set(sizes)) == 2
    assert Images(KINDS, 1).prefill(0, step).size == max(sizes)
    assert Images(KINDS[::-1], 1).prefill(0, step).size == max(sizes)


@settings(max_examples=60)
@given(st.integers(1, 9), st.integers(1, 5000), st.integers(0, 9), st.integers(1, 6000))
def test_a_decode_run_has_one_image_for_as_long_as_its_context_stays_in_its_bucket(batch, context, growth, most):
    images, growth = Images(KINDS, 1), min(growth, batch)
    step = (batch, context, context, batch, growth, most)
    count = images.steps(0, step)
    assert 1 <= count <= most

    def at(done: int) -> object:
        return images.decode(0, (batch, 0, context + growth * done, batch, growth, 1))

    assert at(0) == at(count - 1)
    assert count == most or at(count) != at(0)


# What loading one does to requests


def test_a_first_request_waits_for_the_images_of_its_prefill_and_its_answer(switched, simulate, requests):
    """To 10 the expert, to 12 the call, to 17 the image, to 18 the prefill; to 20.5 the next image, then 3 steps."""
    outcome = simulate(switched(), requests((0, 5, 4, 0), (50, 5, 4, 0), (80, 5, 4, 1)))
    assert outcome.ms(0) == {"switch": 15, "call_overhead": 2, "prefill": 1, "stall": 2.5, "decode": 3}
    assert outcome.row(0).ttft == 18 * MS
    assert outcome.ms(1) == {"call_overhead": 2, "prefill": 1, "decode": 3}
    assert outcome.ms(2) == {"switch": 10, "call_overhead": 2, "prefill": 1, "decode": 3}  # experts of a model share
    assert loads(outcome) == [(12, PREFILL), (18, DECODE)]
    programs = outcome.simulation.groups[0].programs
    assert (programs.loads, programs.loaded, programs.loading_ps) == (2, PREFILL + DECODE, 7.5 * MS)
    assert outcome.counters[0]["loaded"] == PREFILL + DECODE


def test_experts_alone_are_switched_unless_programs_are_asked_for(clockwork, simulate, requests):
    outcome = simulate(clockwork(), requests((0, 5, 4, 0)))
    assert outcome.ms(0) == {"switch": 10, "call_overhead": 2, "prefill": 1, "decode": 3}
    assert not outcome.of_kind(Kind.IMAGE) and not any(one.command.source for one in outcome.of_kind(Kind.DECODE))


def test_where_there_is_room_for_one_image_each_run_loads_its_own(switched, simulate, requests):
    outcome = simulate(switched(PREFILL), requests((0, 5, 4, 0), (50, 5, 4, 0)))
    assert outcome.ms(1) == {"switch": 5, "call_overhead": 2, "prefill": 1, "stall": 2.5, "decode": 3}
    assert loads(outcome) == [(12, PREFILL), (18, DECODE), (52, PREFILL), (58, DECODE)]
    homes = [one.command for one in outcome.of_kind(Kind.LOAD) if one.command.size < WEIGHTS]
    assert [(one.tier, one.issued / MS, one.size) for one in homes] == [(Tier.DDR, 12, PREFILL), (Tier.DDR, 18, DECODE)]


def test_who_was_used_longest_ago_leaves(switched, simulate, requests):
    """Prompts of 5 and of 300 tokens have programs of their own, their answers the same; two of three have room."""
    outcome = simulate(
        switched(PREFILL + DECODE), requests((0, 5, 4, 0), (50, 300, 4, 0), (90, 5, 4, 0), (130, 5, 4, 0))
    )
    assert [size for _, size in loads(outcome)] == [PREFILL, DECODE, PREFILL, PREFILL]
    assert outcome.ms(1) == outcome.ms(2) == {"switch": 5, "call_overhead": 2, "prefill": 1, "decode": 3}
    assert outcome.ms(3) == {"call_overhead": 2, "prefill": 1, "decode": 3}


def test_an_answer_stalls_where_its_context_leaves_a_bucket(switched, simulate, requests):
    """Steps that read 511 and 512 tokens are of the first program, 17 more of the second."""
    outcome = simulate(switched(), requests((0, 510, 20, 0)))
    assert [one.command.steps for one in outcome.of_kind(Kind.DECODE)] == [2, 17]
    assert outcome.ms(0) == {"switch": 15, "call_overhead": 2, "prefill": 1, "stall": 5, "decode": 19}
    assert loads(outcome) == [(12, PREFILL), (18, DECODE), (22.5, DECODE)]


def test_who_comes_while_an_image_loads_waits_for_a_step_and_makes_a_batch_of_another_bucket(
    switched, simulate, requests
):
    """The image comes from 18 to 20.5 and a step ends at 21.5; a batch of two has an image of its own."""
    outcome = simulate(switched(), requests((0, 5, 20, 0), (19, 5, 3, 0)))
    assert outcome.ms(1) == {"queue": 2.5, "call_overhead": 2, "prefill": 1, "stall": 2.5, "decode": 2}
    assert outcome.ms(0) == {"switch": 15, "call_overhead": 2, "prefill": 1, "stall": 2.5 + 3 + 2.5, "decode": 19}
    assert [one.command.steps for one in outcome.of_kind(Kind.DECODE)] == [1, 2, 16]


def test_loads_for_the_router_are_its_time(switched, simulate, requests):
    """Two images for the router, whose model is the experts': 5 + 1 + 2.5 + 2; its context leaves no bucket."""
    outcome = simulate(switched(router=True), requests((0, 5, 4, 0)))
    assert outcome.ms(0) == {"router": 10.5, "call_overhead": 4, "switch": 10, "prefill": 1, "decode": 3}
    crossing = simulate(switched(router=True), requests((0, 511, 2, 0)))
    assert crossing.ms(0)["router"] == 5 + 1 + 2.5 + 1 + 2.5 + 1
    assert [one.command.steps for one in crossing.of_kind(Kind.DECODE)] == [1, 1, 1]


def test_groups_load_by_themselves(switched, simulate, requests):
    outcome = simulate(switched(sockets=2), requests((0, 5, 2, 0), (0, 5, 2, 1), (50, 5, 2, 0)))
    assert loads(outcome, 0) == loads(outcome, 1) == [(12, PREFILL), (18, DECODE)]


# What cannot be


def test_experts_have_the_room_that_programs_leave(clockwork, switched):
    plain, with_programs = clockwork(), switched(reserve=1000)
    assert plain.layouts[0].programs.size == 0
    region = with_programs.layouts[0]
    assert region.programs.start == region.experts.start + region.experts.size
    assert region.programs.start + region.programs.size == with_programs.machine.hbm.capacity
    assert region.experts == plain.layouts[0].experts
    options = replace(with_programs.options, program_reserve=with_programs.machine.hbm.capacity + 1)
    with pytest.raises(OutOfMemoryError, match="HBM"):
        replace(with_programs, options=options).check_fits()


def test_an_image_larger_than_its_region_is_the_users_mistake(switched, simulate, requests):
    assert simulate(switched(PREFILL), requests((0, 5, 1, 0))).rows
    with pytest.raises(InputError) as error:
        simulate(switched(PREFILL - 1), requests((0, 5, 1, 0)))
    assert str(error.value) == (
        f"runtime.program_reserve: leaves {PREFILL - 1:,} bytes on each socket, but a compiled program has "
        f"{PREFILL:,}; raise runtime.program_reserve, or set runtime.switching to 'expert'"
    )


def test_images_need_room_in_ddr(switched, simulate, requests):
    size = 3 * WEIGHTS + PREFILL + DECODE
    assert simulate(switched(numbers={"ddr.capacity": f"{size} B"}), requests((0, 5, 2, 0))).rows
    with pytest.raises(OutOfMemoryError, match="for a compiled program beside experts' home copies"):
        simulate(switched(numbers={"ddr.capacity": f"{size - 1} B"}), requests((0, 5, 2, 0)))


@pytest.mark.parametrize("numbers", [{}, {"kernel.configuration": "2 KiB"}])
def test_a_machine_that_places_nothing_has_no_images(deploy, numbers):
    lacks = (
        "pipeline that places kernels on units" if numbers else r"kernel.configuration \(bytes for each unit in use\)"
    )
    with pytest.raises(InputError, match=f"^runtime.switching = 'program': dgx-a100 has no {lacks}; "):
        deploy("dgx-a100", numbers=numbers, switching="program").check_fits()
    deploy("dgx-a100", numbers=numbers).check_fits()


def test_home_copies_do_not_move_where_programs_are_switched(deploy):
    for switching, told in (("expert", False), ("program", True)):
        deployment = deploy(degree=4, sharding=Sharding(rebalance=1), switching=switching)
        if not told:
            deployment.check_fits()
            continue
        with pytest.raises(InputError, match=r"^sharding.rebalance: programs have the DDR that home copies would"):
            deployment.check_fits()


def test_runs_with_content_have_no_images(switched, requests):
    with pytest.raises(InputError, match=r"runtime.switching = 'program': runs with content have no images"):
        switched().simulation(requests((0, 5, 2, 0)), perform=lambda _command, _serving: None)

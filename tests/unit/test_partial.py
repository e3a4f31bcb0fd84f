"""Does a prefill begin when the weights of its first kernels are there, as early as that is legal and no earlier?

On the clockwork of conftest a copy takes 10 ms and a pass is 10 kernels of 0.1 ms, beside a copy or not: the
embedding, eight layers, the head. The head needs the last byte, and so a pass begun at 9.1 ms is at the head at 10; the
last layer's weights are there at 9.83 ms, and it is at that at 9.9. No kernel asks for a later beginning than the head.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from node.dataflow.arrival import ahead_ps
from node.dataflow.form import Step
from node.errors import InputError, InvariantError, RefusedError
from node.events import Command, Kind, Tier, to_columns
from node.hardware import rdu as rdus
from node.hardware.rdu import Rdu
from node.hardware.sockets import OverlappingSockets
from node.units import MS

BEGINS = 9.1
BOTH = pytest.mark.parametrize("scheduler", ["paper", "affinity"])


@BOTH
def test_a_prefill_begins_as_soon_as_the_head_will_come_in_time(scheduler, clockwork, simulate, requests):
    deployment = clockwork(partial=True, scheduler=scheduler, call_overhead="none")
    outcome = simulate(deployment, requests((5, 5, 3, 0), (5, 5, 2, 0)))
    served = {"switch": BEGINS, "prefill": 1}
    assert outcome.ms(0) == served | {"decode": 2}
    copy, prefill, decode = (outcome.of_kind(kind)[0] for kind in (Kind.COPY, Kind.PREFILL, Kind.DECODE))
    assert (copy.command.issued, copy.completions[0].time) == (5 * MS, 15 * MS)
    assert (prefill.command.issued, prefill.completions[0].time) == (14.1 * MS, 15.1 * MS)
    assert decode.command.issued == 15.1 * MS


def test_the_call_is_made_when_the_prefill_could_begin(clockwork, simulate, requests):
    outcome = simulate(clockwork(partial=True), requests((0, 5, 1, 0)))
    assert outcome.ms(0) == {"switch": BEGINS, "call_overhead": 2, "prefill": 1}


def test_who_waits_for_what_is_left_of_a_prefetch_does_not_wait_for_all_of_it(clockwork, simulate, requests):
    """Expert 0 answers at 11.1 ms; the copy of 1 begins as its own ends, at 10."""
    deployment = clockwork(partial=True, prefetch=True, call_overhead="none")
    outcome = simulate(deployment, requests((0, 5, 2, 0), (0, 5, 1, 1)))
    assert [plan.command.issued / MS for plan in outcome.of_kind(Kind.COPY)] == [0, 10]
    assert outcome.ms(0) == {"switch": BEGINS, "prefill": 1, "decode": 1}
    assert outcome.ms(1) == {"queue": 11.1, "switch": 8, "prefill": 1}
    group = outcome.simulation.groups[0]
    assert (group.misses, group.late, group.cache.prefetches) == (2, 1, 1)


def test_who_comes_late_enough_for_a_prefetch_begins_at_once(clockwork, simulate, requests):
    """The copy of 1, from 10 ms, has 0.5 ms to go when 0 ends: the prefill begins then, and ends after the copy."""
    deployment = clockwork(partial=True, prefetch=True, call_overhead="none", numbers={"kernel.sync": "95 us"})
    outcome = simulate(deployment, requests((0, 5, 11, 0), (0, 5, 1, 1)))
    assert outcome.row(0).end == 9.145 * MS + 11 * 0.95 * MS
    assert outcome.ms(1) == {"queue": 19.595, "prefill": 0.95}
    assert outcome.simulation.groups[0].late == 1


def test_a_copy_that_waits_for_the_dma_engine_is_not_begun_before_it(clockwork, simulate, requests):
    """Two ask for 2 while 1 is on its way, from 10 to 20 ms; 0 is done at 12.1."""
    rows = [(0, 5, 3, 0), (0, 5, 2, 1), (11, 5, 1, 2), (11, 5, 1, 2)]
    deployment = clockwork(partial=True, prefetch=True, slots=2, call_overhead="none")
    outcome = simulate(deployment, requests(*rows))
    assert [(p.command.symbol, p.command.issued / MS) for p in outcome.of_kind(Kind.COPY)] == [(0, 0), (1, 10), (2, 20)]
    assert outcome.ms(2) == {"queue": 1.1, "switch": 7.9 + BEGINS, "prefill": 1}


def test_nothing_begins_early_without_it(clockwork, simulate, requests):
    rows = requests((0, 5, 3, 0), (0, 5, 2, 1), (40, 5, 2, 0))
    assert simulate(clockwork(call_overhead="none"), rows).ms(0) == {"switch": 10, "prefill": 1, "decode": 2}


def test_the_kernels_beside_the_copy_have_less_of_hbm(deploy, simulate, requests):
    deployment = deploy(slots=2, partial=True, call_overhead="none")
    outcome = simulate(deployment, requests((0, 128, 1, 0)))
    (copy,), (prefill,) = outcome.of_kind(Kind.COPY), outcome.of_kind(Kind.PREFILL)
    program, share = deployment.programs(0)[0], deployment.machine.hbm_share(8)
    step, rate = Step(128, 128 * 129 // 2, 128, 1), deployment.machine.copy_bytes_per_s(8)
    alone, beside = (program.prefill(step, part)[0] for part in (1.0, share))
    began = copy.completions[0].time - prefill.command.issued
    assert began == ahead_ps(program, step, share, rate) != ahead_ps(program, step, 1.0, rate)
    assert alone < prefill.completions[0].time - prefill.command.issued < beside
    over = prefill.completions[0].time - copy.completions[0].time  # what is left of the pass when the copy is complete
    assert 0 < over < 0.1 * alone


# What a socket says: the law of the hardware


@pytest.fixture(params=[1, 10**9], ids=["at_once", "one_by_one"])
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Windows of any size are done the one way, then the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rdus, "AT_ONCE", request.param)
        yield


RUN = {"symbol": 0, "address": 64, "tokens": 5, "pairs": 15, "context": 5, "sequences": 1}


def commands(size: int, kind: Kind, at: int, **changed: int) -> list[Command]:
    return [
        Command(0, 0, Kind.LOAD, 0, Tier.DDR, symbol=0, address=128, size=size),
        Command(1, 0, Kind.ALLOCATE, 0, Tier.HBM, symbol=0, address=64, size=size),
        Command(2, 0, Kind.COPY, 1_000, symbol=0, address=64, source=128, size=size),
        Command(3, 0, kind, at, **RUN | changed),
    ]


@pytest.mark.parametrize("cut", [None, 3])
@pytest.mark.parametrize(
    ("partial", "kind", "first_ms"), [(True, Kind.PREFILL, BEGINS), (True, Kind.DECODE, 10), (False, Kind.PREFILL, 10)]
)
def test_a_socket_refuses_a_run_that_begins_before_enough_of_its_weights_are_there(
    cut, partial, kind, first_ms, way, clockwork
):
    """Legal at 9.1 ms after the copy began, in the window of the copy or in the next; illegal a picosecond before."""
    deployment = clockwork()
    (program,) = deployment.programs(0)
    more = {"steps": 1, "growth": 1} if kind == Kind.DECODE else {}

    def socket(at: int) -> None:
        rdu = Rdu("socket 3", deployment.machine, [program], 1, partial=partial)
        columns = to_columns(commands(program.weight_bytes, kind, at, **more))
        if cut is None:
            rdu.replay(columns)
        else:
            rdu.replay(columns[:, :cut])
            rdu.replay(columns[:, cut:])

    first = 1_000 + round(first_ms * MS)
    socket(first)
    with pytest.raises(RefusedError, match=r"command 3: HBM of socket 3: symbol 0 read at .* ps, but it is there from"):
        socket(first - 1)


def test_a_window_with_a_run_that_begins_in_time_is_done_at_once(clockwork, monkeypatch):
    deployment = clockwork()
    (program,) = deployment.programs(0)
    monkeypatch.setattr(rdus, "AT_ONCE", 1)
    monkeypatch.setattr(Rdu, "_one_by_one", lambda *_: pytest.fail("command by command"))
    rdu = Rdu("socket 3", deployment.machine, [program], 1, partial=True)
    found = rdu.replay(to_columns(commands(program.weight_bytes, Kind.PREFILL, 1_000 + round(BEGINS * MS))))
    assert found[0].tolist()[2:] == [1_000 + 10 * MS, 1_000 + round((BEGINS + 1) * MS)]


@pytest.mark.parametrize("chunk", [3, 5, 100])
def test_a_step_of_a_prompts_first_chunk_begins_early(chunk, clockwork, simulate, requests):
    """5 tokens in chunks of 3, beside which nobody answers yet: two steps of 1 ms."""
    deployment = clockwork(partial=True, prefill_chunk=chunk, batch=2, call_overhead="none")
    outcome = simulate(deployment, requests((0, 5, 1, 0)))
    assert outcome.ms(0) == {"switch": BEGINS, "prefill": 2 if chunk == 3 else 1}


def test_the_first_chunk_is_what_it_may_begin_early_by(deploy, simulate, requests):
    deployment = deploy(slots=2, partial=True, prefill_chunk=512, call_overhead="none")
    outcome = simulate(deployment, requests((0, 300, 1, 0), (0, 700, 1, 0)))
    (copy,), (first, *_) = outcome.of_kind(Kind.COPY), outcome.of_kind(Kind.PREFILL)
    pairs = 300 * 301 // 2 + 212 * 213 // 2
    share, rate = deployment.machine.hbm_share(8), deployment.machine.copy_bytes_per_s(8)
    ahead = ahead_ps(deployment.programs(0)[0], Step(512, pairs, 512, 2), share, rate)
    assert copy.completions[0].time - first.command.issued == ahead


def test_a_planner_that_begins_too_early_is_refused(clockwork, simulate, requests, monkeypatch):
    ready = OverlappingSockets.ready
    monkeypatch.setattr(OverlappingSockets, "ready", lambda *asked: ready(*asked) - 1)
    with pytest.raises(RefusedError, match=r"HBM of group 0, rank 0: symbol 0 read at .* but it is there from"):
        simulate(clockwork(partial=True, call_overhead="none"), requests((0, 5, 1, 0)))


def test_a_planner_that_does_not_know_of_the_copy_beside_its_run_is_found_out(deploy, simulate, requests, monkeypatch):
    prefill = OverlappingSockets.prefill

    def alone(self, now, program, step):
        self._tiles[0]._copies.clear()
        return prefill(self, now, program, step)

    monkeypatch.setattr(OverlappingSockets, "prefill", alone)
    with pytest.raises(InvariantError, match="is planned to end at"):
        simulate(deploy(slots=2, partial=True, call_overhead="none"), requests((0, 128, 1, 0)))


def test_a_machine_whose_copies_leave_kernels_no_hbm_is_refused(deploy):
    numbers = {"ddr.bandwidth": "2 TB/s", "ddr.efficiency": 1, "hbm.bandwidth": "2 TB/s"}
    with pytest.raises(
        InputError, match=r"^runtime\.partial: a copy takes all HBM bandwidth .* set runtime\.partial to"
    ):
        deploy(numbers=numbers, partial=True).check_fits()

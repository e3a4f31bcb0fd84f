"""How much memory does a training step take, what spills where HBM is short, and what if DDR is too?"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache

import pytest

from cluster.__main__ import main
from cluster.kernels import Asked, Pass, pass_of
from node.dataflow.fusion import LEVELS
from node.errors import OutOfMemoryError
from node.models.hugging_face import load_shape
from node.models.training import train
from node.spec_file import load_machine

TOKENS, LAYERS, HIDDEN = 4096, 32, 4096
# Llama-2-7B on each of 8 sockets: 512 columns of heads, 1376 of the FFN, 4000 words
MATRICES = 4 * HIDDEN * 512 + 3 * HIDDEN * 1376
PARAMETERS = LAYERS * (MATRICES + 2 * HIDDEN) + 2 * 4000 * HIDDEN + HIDDEN
STATE = (2 + 12) * PARAMETERS


def kept(batch: int) -> int:
    """Bytes that the forward of all layers leaves for the backward.

    Of each token what entered, the two norms' results and the residual; query, key, value and what attention made;
    gate, up, activated and gated; of each pair of tokens the probability in each of 4 heads.
    """
    of_token = 4 * HIDDEN + 4 * 512 + 4 * 1376
    return LAYERS * batch * 2 * (TOKENS * of_token + 4 * TOKENS * (TOKENS + 1) // 2)


@cache
def planned(model: str, sockets: int = 8, batch: int = 1, fusion: str = "fused", **capacities: str) -> Pass:
    machine = load_machine("sn40l-node", {f"{tier}.capacity": size for tier, size in capacities.items()})
    tokens = min(TOKENS, load_shape(model).context)
    return pass_of(model, replace(machine, sockets=sockets), Asked("train", tokens, batch, fusion, "ho"))


@pytest.mark.parametrize("batch", [1, 2])
def test_unfused_most_is_alive_when_the_head_makes_its_gradients(batch: int) -> None:
    """Beside what is kept: the last layer's output, normed, its gradient; the logits' gradient, that of the weights."""
    beside = 3 * batch * TOKENS * HIDDEN * 2 + batch * TOKENS * 4000 * 2 + HIDDEN * 4000 * 2
    plan = planned("llama-2-7b", batch=batch, fusion="unfused").plan
    assert plan.lifetime_bound == STATE + kept(batch) + beside


@pytest.mark.parametrize("level", LEVELS)
def test_any_level_needs_what_is_kept_and_little_beside(level: str) -> None:
    """Fusing takes away what is between kernels, not what backward reads."""
    plan = planned("llama-2-7b", fusion=level).plan
    assert STATE + kept(1) <= plan.lifetime_bound <= plan.hbm_bytes <= 1.02 * (STATE + kept(1))


@pytest.mark.parametrize("fusion", ["unfused", "fused"])
def test_what_backward_releases_the_gradients_of_weights_take(fusion: str) -> None:
    """Without sharing of addresses every layer's gradients have room of their own."""
    plan = planned("llama-2-7b", fusion=fusion).plan
    assert plan.unshared_bytes >= STATE + kept(1) + 2 * PARAMETERS
    assert plan.hbm_bytes < STATE + kept(1) + PARAMETERS


@pytest.mark.parametrize(
    ("model", "sockets", "batch"), [("llama-2-7b", 3, 8), ("sparsegpt-13b", 1, 8), ("llama-2-7b", 16, 1)]
)
def test_a_step_too_large_for_hbm_spills_and_all_of_it_has_a_place(model: str, sockets: int, batch: int) -> None:
    found = planned(model, sockets, batch)
    plan, memory = found.plan, found.memory()
    spills = sockets < 8
    assert (bool(plan.ddr), memory.spill_seconds > 0, memory.ddr_bytes > 0) == (spills, spills, spills)
    assert memory.hbm_bytes <= found.machine.hbm.capacity
    weights = [name for name in (*plan.hbm, *plan.ddr) if name.endswith(".weights")]
    shard = train(load_shape(model), sockets)
    assert len(weights) == sum(bool(op.weights) * block.repeat for block in shard.blocks for op in block.operators)
    assert memory.hbm_bytes + memory.ddr_bytes >= shard.weight_bytes


def test_what_neither_tier_holds_is_told() -> None:
    with pytest.raises(OutOfMemoryError, match="out of memory in DDR of every socket"):
        planned("llama-2-7b", 8, hbm="8 GiB", ddr="8 GiB")


@pytest.mark.parametrize("model", ["llama-2-7b", "sparsegpt-13b"])
def test_the_command_prints_the_plan(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["coe", "kernels", model, "--phase", "train", "--sequence", "512"])
    main()
    said = capsys.readouterr()
    for expected in ("layer_backward", "Static memory plan of a socket", "0 symbols, 0 B"):
        assert expected in said.out


def test_the_command_refuses_what_ddr_cannot_hold_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["coe", "kernels", "bloom-176b", "--phase", "train", "--sockets", "1"])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr()
    assert (stop.value.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert said.err.startswith("coe: error: out of memory in DDR of every socket: asked for")

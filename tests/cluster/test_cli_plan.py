"""Does ``coe plan`` find what runs of every number of nodes say, and tell it as a table, JSON and a picture?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.backends import LocalBackend
from cluster.config import Config
from cluster.config_file import read_config
from cluster.plan.interval import share_of
from cluster.runner import overloaded, prepare, run
from cluster.sweep.tasks import Found, solve
from node.units import PS_PER_S

Coe = Callable[[str], Any]  # a line -> code, out, err
CONFIG = """
[workload]
input_tokens = 64
output_tokens = 8
[experts]
router = "none"
[sharding]
tensor_parallel = 8
[runtime]
batch = 1
kv_reserve = "1 GiB"
"""
CANDIDATES = CONFIG + "".join(
    f'[[candidates]]\nrouting.policy = ["{policy}"]\nruntime.eviction = ["lru"]\n'
    for policy in ("round_robin", "least_loaded")
)
FILES = ["plan.json", "plan.svg"]
ASKED = "--rate 40 --slo ttft=400ms --attainment 0.9 --experts 60 --requests 1500 --seeds 3 "


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "p.toml"
    path.write_text(CANDIDATES)
    return path


def good(said: Any) -> str:
    assert said.code == 0, said.err
    return said.out


def answer(folder: Path) -> Any:
    return json.loads((folder / "plan.json").read_text())


def attained(nodes: int, seed: int, policy: str) -> tuple[int, int, bool]:
    """Of a run how many requests were served in time, how many count, and whether it was overloaded; by the columns."""
    settings = [("workload.input_tokens", 64), ("workload.output_tokens", 8), ("experts.router", "none")]
    settings += [("runtime.batch", 1), ("runtime.kv_reserve", "1 GiB"), ("experts.count", 60)]
    settings += [("workload.rate", 40.0), ("workload.requests", 1500), ("seed", seed)]
    settings += [("routing.nodes", nodes), ("routing.policy", policy)]
    made = read_config(None, settings)
    result = run(made, LocalBackend(), prepare(made))
    ttft = result.columns["ttft"][result.columns["request"] >= 150]
    return int((ttft <= 0.4 * PS_PER_S).sum()), len(ttft), overloaded(result)


def test_the_plan_is_what_runs_of_every_number_of_nodes_say(coe: Coe, tmp_path: Path, config: Path) -> None:
    out = good(coe(f"plan --config p.toml {ASKED} --backend local --output a"))
    found = answer(tmp_path / "a")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == FILES
    by_policy = {one["candidate"]["routing.policy"]: one for one in found["candidates"]}
    best = found["plan"]
    assert best["nodes"] >= 2 and by_policy[best["routing.policy"]]["nodes"] == best["nodes"]
    for policy, row in by_policy.items():
        measured = {one["nodes"]: one for one in row["measured"]}
        for nodes in range(1, best["nodes"] + 1):
            runs = [attained(nodes, seed, policy) for seed in range(3)]
            share = share_of([kept for kept, _, _ in runs], [counted for _, counted, _ in runs])
            meets = share.low >= 0.9 and not any(late for _, _, late in runs)
            assert meets == (nodes == row["nodes"]), (policy, nodes, share)
            if (told := measured.get(nodes)) is not None and told["seeds"] == 3:
                assert told["shares"]["all"] == vars(share)
                assert told["overloaded"] == any(late for _, _, late in runs)
    below = {one["nodes"]: one for one in by_policy[best["routing.policy"]]["measured"]}[best["nodes"] - 1]
    assert below["seeds"] == 3
    share = below["shares"]["all"]
    assert f"{100 * share['share']:.2f} ({100 * share['low']:.2f} to {100 * share['high']:.2f})" in out
    assert "40 requests/s for 60 experts; TTFT 400 ms for 0.9 of requests" in out
    assert f"plan: {best['nodes']} x SambaNova SN40L node" in out and "assumed inputs: compute.efficiency" in out
    assert "in runs of 1,500 requests over" in " ".join(out.split())
    assert (tmp_path / "a" / "plan.svg").read_text().startswith("<svg")


def test_this_process_and_any_number_of_workers_write_the_same_bytes(
    coe: Coe, tmp_path: Path, config: Path, ray_cluster: None
) -> None:
    for name, where in (("here", "--backend local"), ("one", "--workers 1"), ("three", "--workers 3")):
        good(coe(f"plan --config p.toml {ASKED} {where} --output {name}"))
    for file in FILES:
        here, one, three = ((tmp_path / name / file).read_bytes() for name in ("here", "one", "three"))
        assert here == one == three


def test_where_nothing_does_it_says_how_close_each_came_and_ends_with_1(coe: Coe, tmp_path: Path, config: Path) -> None:
    code, out, err = coe(f"plan --config p.toml {ASKED} --most-nodes 1 --backend local --output a")
    assert (code, err) == (1, "coe: no candidate does with up to 1 nodes\n")
    found = answer(tmp_path / "a")
    assert found["plan"] is None and found["complete"] is True
    share = found["candidates"][0]["measured"][0]["shares"]["all"]["share"]
    assert "> 1" in out and f"1: {100 * share:.2f} (" in out and "plan:" not in out


def test_prices_decide_where_every_machine_has_one(coe: Coe, tmp_path: Path) -> None:
    """Three halves of a node at a tenth of the price are cheaper than one whole."""
    (tmp_path / "p.toml").write_text(CONFIG.replace("[sharding]\ntensor_parallel = 8\n", ""))
    for name, price in (("big", 100), ("small", 10)):
        half = "" if name == "big" else 'sockets = { value = 4, kind = "assumed", source = "us" }\n'
        text = f'name = "{name}"\ntitle = "{name}"\nbase = "sn40l-node"\n{half}'
        text += f'cost_per_hour = {{ value = {price}, kind = "assumed", source = "us" }}\n'
        (tmp_path / f"{name}.toml").write_text(text)
    asked = ASKED.replace("--rate 40", "--rate 5")
    line = (
        f"plan --config p.toml {asked} --machines big.toml,small.toml --backend local --set routing.policy=round_robin"
    )
    out = good(coe(f"{line} --set runtime.eviction=lru --output a"))
    found = answer(tmp_path / "a")
    assert found["cost"] == "machine.cost_per_hour of all nodes, assumed, by the user" and "cost/h" in out
    best = next(one for one in found["candidates"] if one["machine"] == "small" and one["nodes"] is not None)
    assert Path(found["plan"]["machine.name"]).name == "small.toml" and best["cost_per_hour"] == 10 * best["nodes"]
    sizes = {(one["machine"], one["candidate"]["sharding.tensor_parallel"]) for one in found["candidates"]}
    assert sizes == {("big", 8), ("big", 4), ("big", 2), ("small", 4), ("small", 2), ("small", 1)}
    assert "dearer" in out


def test_machines_that_cannot_hold_the_experts_say_so_beside_the_others(coe: Coe, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(CONFIG.replace("[sharding]\ntensor_parallel = 8\n", ""))
    line = "plan --config p.toml --rate 2 --slo ttft=2s,e2e=30s --attainment 0.9 --experts 850 --requests 200"
    out = good(coe(f"{line} --seeds 3 --machines sn40l-node,dgx-a100 --backend local --output a"))
    rows = answer(tmp_path / "a")["candidates"]
    assert all("out of memory in DDR" in one["cannot_run"] for one in rows if one["machine"] == "dgx-a100")
    assert {one["machine"] for one in rows if one["nodes"]} == {"sn40l-node"}
    assert "cannot run (20 of 40, dgx-a100): out of memory in DDR of each socket" in out
    assert "TTFT 2 s and end to end 30 s for 0.9 of requests" in out


def test_what_was_found_by_ctrl_c_is_kept(
    coe: Coe, tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs of what a node can do, and two of the first number of nodes that is tried."""
    runs: list[Config] = []

    def until_interrupted(config: Config) -> Found:
        if len(runs) == 4:
            raise KeyboardInterrupt
        runs.append(config)
        return solve(config)

    monkeypatch.setattr("cluster.sweep.tasks.solve", until_interrupted)
    code, out, err = coe(f"plan --config p.toml {ASKED} --backend local --output a")
    assert (code, err) == (130, "coe: ended before the search was over: what is written is as far as it came\n")
    found = answer(tmp_path / "a")
    assert found["complete"] is False and not any(one["searched"] for one in found["candidates"])
    assert [one["seeds"] for row in found["candidates"] for one in row["measured"]] == [2]
    assert "?" in out and "plan:" not in out

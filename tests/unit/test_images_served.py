"""Models of one pass over an image as experts and as router: the same runtime, without tokens and without KV cache."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from cluster.backends import LocalBackend
from cluster.config_file import read_config
from cluster.deploy import deployment_of
from cluster.nodes import serve as serving
from cluster.runner import Run, prepare, run
from node.dataflow.form import Step
from node.dataflow.program import compile_graph
from node.errors import InputError
from node.estimate import Call, estimate, estimate_model, estimate_one_pass
from node.events import ROW, Kind
from node.models.one_pass import one_pass
from node.models.served import load_model
from node.planned import Planned
from node.spec_file import load_machine
from node.units import PS_PER_S
from tests.written import hashes_of

IMAGES: Mapping[str, object] = {
    "experts.model": "samda-unet",
    "experts.router": "none",
    "experts.count": 4,
    "workload.requests": 60,
    "workload.rate": 40.0,
    "sharding.tensor_parallel": 8,
}
ROUTED = {**IMAGES, "experts.router": "samda-unet"}
GROUPS = {**ROUTED, "sharding.tensor_parallel": 1, "sharding.router": "group"}
MIXED = """
[experts]
router = "samda-unet"
[[experts.group]]
model = "llama-2-7b"
count = 2
[[experts.group]]
model = "samda-unet"
count = 3
"""


def serve(settings: Mapping[str, object], file: Path | None = None, cores: int = 1, observe=None) -> Run:
    config = read_config(file, {**settings, "cluster.backend": "local"}.items())
    return run(config, LocalBackend(cores), prepare(config), observe=observe)


def pass_ps(result: Run, images: int) -> int:
    """Of the first model of a run, worked out from its graph; of ranks the slowest."""
    deployment = result.deployment
    model, times = one_pass(deployment.catalogue.groups[0].model), []
    assert model is not None
    for rank in range(deployment.degree):
        graph = model.graph(deployment.degree, rank)
        program = compile_graph(graph, deployment.machine, deployment.degree, "fused", "ho")
        times.append(program.prefill(Step(images, images, images, images))[0])
    return max(times)


def test_an_image_by_itself_takes_a_call_a_copy_and_a_pass():
    result = serve({**IMAGES, "experts.count": 1, "workload.requests": 1})
    machine = result.deployment.machine
    call = round(machine.host.call_overhead * PS_PER_S)
    copied = result.deployment.activation_ps(0)
    found = {name: int(column[0]) for name, column in result.columns.items()}
    assert (found["prefill"], found["switch"]) == (pass_ps(result, 1), copied) and found["switch"] > 0
    assert found["ttft"] == found["e2e"] == call + copied + found["prefill"]
    assert result.summary["tpot_s"] is None and result.summary["output_tokens"] == 1


def test_a_router_of_one_pass_decodes_nothing():
    result = serve({**ROUTED, "experts.count": 1, "workload.requests": 1, "experts.router_tokens": 50})
    found = {name: int(column[0]) for name, column in result.columns.items()}
    assert found["router"] == found["prefill"] == pass_ps(result, 1) and not found["decode"]


def test_what_keeps_nothing_has_no_ranges_and_what_is_read_is_there():
    kinds = set[int]()

    def observe(planned: dict[int, Planned]) -> None:
        for plan in planned.values():
            kinds.update(plan.columns[ROW["kind"]].tolist())
            memory = np.isin(plan.columns[ROW["kind"]], (Kind.ALLOCATE, Kind.FREE))
            assert (plan.columns[ROW["size"]][memory] > 0).all()

    serve(ROUTED, observe=observe)
    assert {Kind.COPY, Kind.PREFILL} <= kinds and Kind.DECODE not in kinds


@pytest.mark.parametrize(("settings", "per_actor"), [(ROUTED, 4), (GROUPS, 8)], ids=["one group", "groups"])
def test_how_it_is_run_changes_no_result(settings, per_actor, monkeypatch, tmp_path):
    monkeypatch.setattr(serving, "MANY", 1)
    other = {"cluster.window": "300 ms", "cluster.sockets_per_actor": per_actor}
    assert hashes_of(serve({**settings, **other}, cores=2), tmp_path) == hashes_of(serve(settings), tmp_path)


def test_experts_of_both_kinds_are_served_together(tmp_path):
    (tmp_path / "mixed.toml").write_text(MIXED)
    result = serve({"workload.requests": 80, "workload.popularity": "uniform"}, tmp_path / "mixed.toml")
    images = result.columns["expert"] >= 2
    assert 0 < images.sum() < 80
    assert (result.columns["output_tokens"][images] == 1).all() and (result.columns["decode"][images] == 0).all()
    assert result.columns["output_tokens"][~images].max() > 50 and (result.columns["decode"][~images] > 0).any()
    assert any("counts as one token" in note for note in result.workload.notes)


@pytest.mark.parametrize("key", ["kv_block", "prefill_chunk"])
def test_pages_and_chunks_are_for_tokens_alone(key, tmp_path):
    (tmp_path / "mixed.toml").write_text(MIXED)
    with pytest.raises(InputError, match=rf"runtime.{key} = 16: experts or router have no tokens"):
        serve({f"runtime.{key}": 16}, tmp_path / "mixed.toml")


def test_sockets_whose_parts_differ_are_told_apart():
    config = read_config(None, {**IMAGES, "experts.router": "sam-vit-b"}.items())
    deployment = deployment_of(config)
    kinds = deployment.rank_kinds
    assert kinds == (
        0,
        0,
        2,
        2,
        4,
        4,
        4,
        4,
    )  # the first four have two of 12 heads, the first two a class of the U-Net's
    router = deployment.catalogue.kinds().index(("sam-vit-b", "bf16"))
    more, less = (deployment.programs(rank)[router].weight_bytes for rank in (0, 4))
    assert more > less > 0


def test_a_call_is_estimated_as_what_the_model_is():
    machine, call = load_machine("sn40l-node"), Call(64, 4)
    image, text = load_model("samda-unet"), load_model("llama-2-7b")
    assert estimate_model(machine, image, call) == estimate_one_pass(machine, image, call)
    assert estimate_model(machine, text, call) == estimate(machine, text, call)


def test_a_trace_of_images_needs_no_counts_that_fit(tmp_path):
    rows = [(0, 700, 30, 1), (500, 9, 9, 3)]
    keys = ("timestamp", "input_length", "output_length", "expert")
    lines = [json.dumps(dict(zip(keys, row, strict=True))) for row in rows]
    (tmp_path / "trace.jsonl").write_text("\n".join(lines))
    generated = ("workload.requests", "workload.rate")
    settings = {key: value for key, value in IMAGES.items() if key not in generated}
    result = serve({**settings, "workload.trace": str(tmp_path / "trace.jsonl")})
    assert result.columns["expert"].tolist() == [1, 3] and result.summary["over_context"] == 0
    assert (result.columns["input_tokens"] == 1).all()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"workload.input_tokens": 5}, "workload.input_tokens: has no effect, because no expert works on tokens"),
        ({"workload.output_tokens": 5}, "workload.output_tokens: has no effect"),
        ({"runtime.kv_block": 16}, "runtime.kv_block = 16: experts or router have no tokens"),
        ({"runtime.prefill_chunk": 64}, "runtime.prefill_chunk = 64: experts or router have no tokens"),
        ({"experts.dtype": "int8"}, "samda-unet has weights in bf16 alone"),
        ({"experts.model": "monarch-fft"}, "monarch-fft: every socket takes signals of its own"),
        ({"experts.router": "monarch-fft"}, "monarch-fft: every socket takes signals of its own"),
    ],
)
def test_what_has_no_meaning_for_images_is_refused(settings, said):
    with pytest.raises(InputError) as error:
        serve({**IMAGES, **settings})
    assert said in str(error.value)

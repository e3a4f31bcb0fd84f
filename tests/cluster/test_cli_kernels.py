"""Does ``coe kernels`` show what is placed, and refuse what cannot be? And ``coe estimate`` of transforms?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.kernels import Asked, pass_of
from cluster.kernels_svg import svg
from node.spec_file import load_machine

UNITS = 1040  # PCUs of a socket, and as many PMUs
DECODE = "kernels llama-2-7b --phase decode"
KERNEL = {
    "kernel", "launches", "iterations", "operators", "tiles", "pcus", "pmus", "pcu_share", "pmu_share", "sram_bytes",
    "seconds", "fixed_seconds", "bound_by", "slowest_stage", "hbm_bytes", "flops", "flops_per_byte", "stages",
}  # fmt: skip
MEMORY = {
    "symbols", "hbm_bytes", "lifetime_bound_bytes", "unshared_bytes", "saved_by_sharing_bytes", "spilled_symbols",
    "ddr_bytes", "spilled_moved_bytes", "spill_seconds",
}  # fmt: skip


Coe = Callable[[str], Any]  # a line -> code, out, err


def shown(said: Any) -> dict[str, Any]:
    assert (said.code, said.err) == (0, "")
    found: dict[str, Any] = json.loads(said.out)
    return found


def refused(said: Any) -> str:
    """The one line of a user's mistake."""
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("coe: error: ") and said.err.count("\n") == 1
    return said.err.removeprefix("coe: error: ").strip()


# coe kernels


@pytest.mark.parametrize("phase", ["decode", "prefill", "train"])
def test_the_json_of_a_phase_has_its_shape_and_its_sums(coe: Coe, phase: str) -> None:
    found = shown(coe(f"kernels llama-2-7b --phase {phase} --json"))
    assert list(found) == ["model", "machine", "sockets", "rank", "seconds", "kernels", "memory"]
    assert [found[key] for key in ("model", "machine", "sockets")] == ["llama-2-7b", "sn40l-node", 8]
    for kernel in found["kernels"]:
        assert kernel.keys() == KERNEL
        stages = kernel["stages"]
        assert kernel["operators"] == len(stages)
        for units, share in (("pcus", "pcu_share"), ("pmus", "pmu_share")):
            assert kernel[units] == sum(stage[units] for stage in stages) <= UNITS
            assert kernel[share] == kernel[units] / UNITS
        assert all((stage["pcus"] == 0) == (stage["mode"] == "memory") for stage in stages)
        slowest = next(stage for stage in stages if stage["operator"] == kernel["slowest_stage"])
        assert slowest["seconds"] == max(stage["seconds"] for stage in stages)
        assert 0 < kernel["fixed_seconds"] < kernel["seconds"]
        assert kernel["flops_per_byte"] == pytest.approx(kernel["flops"] / kernel["hbm_bytes"])
    assert found["seconds"] == pytest.approx(sum(k["launches"] * k["seconds"] for k in found["kernels"]))
    memory = found["memory"]
    assert memory.keys() == MEMORY
    assert memory["saved_by_sharing_bytes"] == memory["unshared_bytes"] - memory["hbm_bytes"]
    assert 0 < memory["lifetime_bound_bytes"] <= memory["hbm_bytes"] <= 64 * 2**30


@pytest.mark.parametrize("phase", ["decode", "prefill", "train"])
def test_what_a_kernel_holds_fits_its_pmus(coe: Coe, phase: str) -> None:
    kernels = shown(coe(f"kernels llama-2-7b --phase {phase} --json"))["kernels"]
    assert [kernel["kernel"] for kernel in kernels if kernel["sram_bytes"] > kernel["pmus"] * 512 * 1024] == []


def test_the_decode_layer_has_at_least_four_fifths_of_the_units_and_reads_its_weights_and_cache(coe: Coe) -> None:
    """An eighth of a layer's 4 x 4096^2 + 3 x 4096 x 11008 elements, norms whole; K and V of 4 heads, read and written.

    A token's vector enters and leaves.
    """
    embedding, layer, head = shown(coe(f"{DECODE} --sequence 1024 --json"))["kernels"]
    assert [kernel["launches"] for kernel in (embedding, layer, head)] == [1, 32, 1]
    assert min(layer["pcu_share"], layer["pmu_share"]) >= 0.8
    weights = (4 * 4096**2 + 3 * 4096 * 11008) * 2 / 8 + 2 * 4096 * 2
    cache = 2 * 4 * 128 * 2
    assert layer["hbm_bytes"] == weights + (1024 + 1) * cache + 2 * 4096 * 2


@pytest.mark.parametrize("option", ["--batch 4", "--sequence 100", "--sockets 4", "--fusion unfused", "--phase train"])
def test_every_option_counts(coe: Coe, option: str) -> None:
    base, other = (shown(coe(f"kernels llama-2-7b --json {more}")) for more in ("", option))
    assert base["seconds"] != other["seconds"]


def test_unfused_every_stage_is_a_kernel(coe: Coe) -> None:
    fused, unfused = (shown(coe(f"{DECODE} --fusion {level} --json"))["kernels"] for level in ("fused", "unfused"))
    assert [len(kernel["stages"]) for kernel in unfused] == [1] * sum(len(kernel["stages"]) for kernel in fused)


def test_without_json_there_is_a_table_with_the_plan(coe: Coe) -> None:
    said = coe(DECODE)
    assert said.code == 0
    for expected in ("kernels of one pass", "layer", "Static memory plan of a socket", "assumed inputs"):
        assert expected in said.out


def test_svg_writes_the_picture_to_the_file_and_the_table_to_the_terminal(coe: Coe, tmp_path: Path) -> None:
    table, both = coe(DECODE), coe(f"{DECODE} --svg picture.svg")
    assert both == table
    machine = load_machine("sn40l-node")
    drawn = svg(pass_of("llama-2-7b", machine, Asked("decode", 4096, 1, "fused", "ho")))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("picture.svg", drawn)]


# Refusals, and estimates of transforms

UNPLACED = "dgx-a100 places no stages: it has no [pipeline] table"
NO_PHASE = "has no tokens to decode or learn; it has phase prefill"
NO_VISION = "training of a model with a vision tower is not supported"
TOKENS = "works on tokens, for example --input 128 --output 20"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{DECODE} --machine dgx-a100 --svg a.svg", f"--svg 'a.svg': {UNPLACED}"),
        (f"{DECODE} --svg no/a.svg", "no/a.svg: cannot be written: No such file or directory"),
        ("kernels monarch-fft --phase decode", f"--phase 'decode': monarch-fft {NO_PHASE}"),
        ("kernels monarch-fft --phase train", f"--phase 'train': monarch-fft {NO_PHASE}"),
        ("kernels flashfftconv-1m --phase decode", f"--phase 'decode': flashfftconv-1m {NO_PHASE}"),
        ("kernels sam-vit-b --phase train", f"--phase 'train': sam-vit-b {NO_PHASE}"),
        ("kernels sam-vit-b --sequence 3", "--sequence 3: sam-vit-b has no tokens; give --batch alone"),
        ("estimate sam-vit-h --input 3", "--input 3: sam-vit-h has no tokens; give --batch alone"),
        ("kernels llava-1.5-7b --phase train", f"model llava-1.5-7b: {NO_VISION}"),
        ("estimate llama-2-7b", f"--input and --output missing: llama-2-7b {TOKENS}"),
        ("estimate llama-2-7b --output 20", f"--input missing: llama-2-7b {TOKENS}"),
        ("estimate monarch-fft --input 3", "--input 3: monarch-fft has no tokens; give --batch alone"),
        ("estimate monarch-fft --output 3 --batch 2", "--output 3: monarch-fft has no tokens; give --batch alone"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_and_nothing_is_written(
    coe: Coe, tmp_path: Path, line: str, message: str
) -> None:
    assert refused(coe(line)) == message
    assert list(tmp_path.iterdir()) == []


def test_an_estimate_of_a_transform_is_the_time_of_its_kernels(coe: Coe) -> None:
    """On each of 8 sockets one of 8 sequences: 4.86 GFLOPs, of 638 TFLOPS."""
    found = shown(coe("estimate flashfftconv-1m --batch 8 --json"))
    placed = shown(coe("kernels flashfftconv-1m --batch 8 --json"))
    seconds, moved = placed["seconds"], sum(kernel["hbm_bytes"] for kernel in placed["kernels"])
    assert found["prefill_s"] == pytest.approx(seconds, rel=1e-6)
    assert found["total_s"] == pytest.approx(found["call_overhead_s"] + found["prefill_s"])
    assert (found["decode_s_per_token"], found["kernel_launches_per_token"]) == (0, 0)
    assert found["hbm_bandwidth_fraction"] == pytest.approx(moved / 1.8e12 / seconds, rel=1e-6)
    assert found["flops_fraction"] == pytest.approx(4_863_295_488 / 638e12 / seconds, rel=1e-3)


def test_an_image_encoder_is_shown_kernel_by_kernel_and_as_one_pass(coe: Coe, tmp_path: Path) -> None:
    """Two images of 1,024 pixels: of ViT-B's 12 heads the first socket has two, the last has one."""
    line = "kernels sam-vit-b --batch 2"
    first, last = (shown(coe(f"{line} --rank {rank} --json")) for rank in (0, 7))
    flops = [sum(kernel["launches"] * kernel["flops"] for kernel in found["kernels"]) for found in (first, last)]
    assert first["memory"]["spilled_symbols"] == 0 and flops[0] > flops[1]
    found = shown(coe("estimate sam-vit-b --batch 2 --json"))
    assert found["prefill_s"] == pytest.approx(first["seconds"], rel=1e-6)
    assert found["flops_fraction"] == pytest.approx(flops[0] / 638e12 / first["seconds"], rel=1e-3)
    said = coe("estimate sam-vit-b --batch 2").out
    assert "one pass" in said and "per token" not in said and found["bound_by"] in said
    assert coe(f"{line} --svg picture.svg").code == 0 and (tmp_path / "picture.svg").read_text().startswith("<svg")


def test_nine_sequences_on_eight_sockets_take_as_long_as_sixteen(coe: Coe) -> None:
    totals = [shown(coe(f"estimate flashfftconv-1m --batch {batch} --json"))["total_s"] for batch in (8, 9, 16)]
    assert totals[0] < totals[1] == totals[2]


def test_a_transform_has_no_sequence_and_may_be_a_file(coe: Coe, tmp_path: Path) -> None:
    assert (
        refused(coe("kernels monarch-fft --sequence 3"))
        == "--sequence 3: monarch-fft has no tokens; give --batch alone"
    )
    file = tmp_path / "own.toml"
    file.write_text('name = "own"\nkind = "transform"\nfactors = [256, 256]\n')
    of_file, built_in = (
        shown(coe(f"kernels {name} --machine sn40l-socket --batch 16 --json")) for name in (file, "monarch-fft")
    )
    assert of_file["kernels"] == built_in["kernels"]
    assert shown(coe(f"estimate {file} --batch 16 --json")) == shown(coe("estimate monarch-fft --batch 16 --json"))


def test_shards_of_uneven_heads_are_shown_one_by_one(coe: Coe, tmp_path: Path) -> None:
    """9 heads on 8 sockets: the first has two."""
    sizes = {"num_hidden_layers": 2, "hidden_size": 72, "num_attention_heads": 9, "num_key_value_heads": 3}
    config = {"model_type": "llama", **sizes, "intermediate_size": 96, "vocab_size": 80, "max_position_embeddings": 512}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    first, last = (shown(coe(f"kernels {path} --sequence 64 --rank {rank} --json")) for rank in (0, 7))
    flops = [sum(kernel["launches"] * kernel["flops"] for kernel in found["kernels"]) for found in (first, last)]
    assert (first["rank"], last["rank"]) == (0, 7)
    assert flops[0] > flops[1] * 1.2
    assert refused(coe(f"kernels {path} --rank 8")) == "--rank 8: must be below 8, the sockets of sn40l-node"


# Vision experts


@pytest.mark.parametrize("machine", ["sn40l-socket", "sn40l-node", "dgx-a100"])
def test_a_vision_expert_has_kernels(coe: Coe, machine: str) -> None:
    found = shown(coe(f"kernels samda-unet --machine {machine} --json"))
    assert found["model"] == "samda-unet" and found["seconds"] > 0
    assert sum(kernel["operators"] for kernel in found["kernels"]) in (81, 81 + 10 + 8 + 4 + 1)  # gathers, if any


def test_a_vision_expert_that_is_none_is_one_line(coe: Coe, tmp_path: Path) -> None:
    (tmp_path / "expert.json").write_text('{"format": 1, "kind": "samda-expert", "unet": {"input_channels": 1}}')
    for command in ("kernels", "estimate"):
        assert refused(coe(f"{command} {tmp_path}")) == (
            f"{tmp_path}/expert.json: unet.kernel = None: must be a positive int, at most 1,048,576"
        )
    assert "samda-unet has no tokens" in refused(coe("estimate samda-unet --input 3"))


def test_a_composition_is_told_part_by_part(coe: Coe) -> None:
    found = shown(coe("estimate samda --batch 2 --json"))
    assert [part["name"] for part in found["parts"]] == ["encoder", "adapter", "U-Net"]
    seconds = [found["call_overhead_s"], *(part["seconds"] for part in found["parts"])]
    assert found["total_s"] == pytest.approx(sum(seconds))
    said = " ".join(coe("estimate samda").out.split())
    assert "9 patches an image, sockets have patches of their own; to switch the expert: 34 us" in said
    assert "samda has no tokens; give --batch alone" in refused(coe("estimate samda --output 3"))
    assert refused(coe("kernels samda")).endswith("coe kernels has each by itself: sam-vit-b, samda-unet")

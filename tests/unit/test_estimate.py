"""Is an estimate of one call what a run of that call takes, and does it say what bounds it?"""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from click.testing import CliRunner, Result

from cluster.backends import LocalBackend
from cluster.cli import coe
from cluster.config_file import parse_setting, read_config
from cluster.published import call_settings
from cluster.runner import prepare, run
from node.errors import OutOfMemoryError
from node.estimate import Call, Estimate, estimate
from node.models.hugging_face import load_shape
from node.models.shape import Shape
from node.spec_file import load_machine

NODE = load_machine("sn40l-node")
KEYS = [
    "call_overhead_s",
    "prefill_s",
    "decode_s_per_token",
    "total_s",
    "kernel_launches_per_token",
    "hbm_bandwidth_fraction",
    "flops_fraction",
    "bound_by",
]


def of(name: str, *call: object, **numbers: object) -> Estimate:
    return estimate(load_machine("sn40l-node", numbers), load_shape(name), Call(*call))  # type: ignore[arg-type]


def test_the_parts_of_a_call_add_up() -> None:
    found = of("llama-2-7b", 128, 20, 4)
    assert found.total_s == pytest.approx(found.call_overhead_s + found.prefill_s + 19 * found.decode_s_per_token)


def test_one_token_out_is_prefill_alone() -> None:
    found = of("llama-2-7b", 128, 1)
    assert found.decode_s_per_token == 0
    assert found.total_s == found.call_overhead_s + found.prefill_s


def test_decode_reads_the_weights_at_the_rate_that_the_fraction_says() -> None:
    """Of 13.2 GB a socket reads an eighth in every pass; KV cache and activations are less than 3 % of that."""
    steps = 200
    found = of("llama-2-7b", 1, steps, 1)
    passes = (6_738_415_616 - 32000 * 4096) * 2 / 8 * steps
    rate = passes / (found.prefill_s + (steps - 1) * found.decode_s_per_token)
    assert found.hbm_bandwidth_fraction == pytest.approx(rate / 1.8e12, rel=0.03)
    assert found.bound_by == "hbm"


def test_long_prompts_come_near_the_peak_but_never_reach_it() -> None:
    found = of("llama-3.1-405b", 16384, 1, 1, **{"peer.bandwidth": "100 TB/s", "sockets": 16})
    assert 0.9 < found.flops_fraction < 1.0 and found.bound_by == "compute"


@pytest.mark.parametrize(
    ("numbers", "bound"),
    [
        ({"hbm.bandwidth": "10 GB/s"}, "hbm"),
        ({"compute.clock": "1 MHz", "sram.bank_bandwidth": "1000000 B/cycle"}, "compute"),
        ({"peer.bandwidth": "1 MB/s"}, "link"),
        ({"sram.bank_bandwidth": "0.01 B/cycle"}, "sram"),
        ({"kernel.sync": "1 ms"}, "fixed"),
    ],
)
def test_what_is_made_slow_is_what_bounds(numbers: dict[str, object], bound: str) -> None:
    assert of("llama-2-7b", 128, 20, 1, **numbers).bound_by == bound


def test_fusion_saves_launches_and_time() -> None:
    fused, unfused = (of("llama-2-7b", 128, 20, 1, fusion) for fusion in ("fused", "unfused"))
    assert (fused.kernel_launches_per_token, unfused.kernel_launches_per_token) == (34, 32 * 20 + 2 + 3)
    assert fused.total_s < unfused.total_s


def test_a_launch_by_the_host_costs_its_difference_every_time() -> None:
    by_hardware, by_host = (of("llama-2-7b", 128, 20, 1, "fused", who) for who in ("ho", "so"))
    assert by_host.decode_s_per_token - by_hardware.decode_s_per_token == pytest.approx(34 * 4e-6, rel=1e-6)


def test_of_uneven_shards_the_slowest_counts() -> None:
    """Nine heads on 8 sockets: as slow as if each socket had the two heads of the first."""
    nine = Shape("nine", 30, 576, heads=9, kv_heads=3, head_dim=64, ffn=1536, vocabulary=49152, context=8192)
    sixteen = replace(nine, heads=16, kv_heads=8)
    call = Call(100, 100)
    assert estimate(NODE, nine, call).total_s == pytest.approx(estimate(NODE, sixteen, call).total_s, rel=0.02)


def test_what_does_not_fit_hbm_is_refused() -> None:
    with pytest.raises(OutOfMemoryError, match="weights and KV cache of the call; take more sockets"):
        of("llama-3.1-405b", 128, 20)
    with pytest.raises(OutOfMemoryError):
        of("llama-2-7b", 4096, 1, 10_000)


@pytest.mark.parametrize(("tokens_in", "tokens_out"), [(100, 50), (4090, 20), (4095, 2), (4096, 5), (9000, 30)])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_call_takes_what_a_run_of_it_takes_also_past_the_attention_window(
    tokens_in: int, tokens_out: int, batch: int
) -> None:
    settings = ("cluster.backend=local", *call_settings("mistral-7b", (tokens_in, tokens_out), batch))
    config = read_config(None, map(parse_setting, settings))
    columns = run(config, LocalBackend(), prepare(config)).columns
    spent = set((columns["e2e"] - columns["switch"]).tolist())
    assert spent == {round(of("mistral-7b", tokens_in, tokens_out, batch).total_s * 1e12)}


# The command


def said(line: str) -> Result:
    return CliRunner().invoke(coe, ["estimate", *line.split()])


def test_the_command_gives_the_keys_and_numbers_of_the_estimate() -> None:
    found = json.loads(said("llama-3-8b --input 1024 --output 1024 --json").output)
    assert list(found) == KEYS
    assert found == asdict(of("llama-3-8b", 1024, 1024))


def test_the_defaults_are_those_of_the_calibration() -> None:
    assert json.loads(said("llama-3-8b --input 1024 --output 1024 --json").output)["total_s"] == pytest.approx(
        1.584, rel=0.03
    )
    assert json.loads(said("llama-2-7b --input 128 --output 20 --json").output)["total_s"] == pytest.approx(
        0.066, rel=0.03
    )


def test_every_option_counts() -> None:
    base = "llama-2-7b --input 128 --output 20 --json"
    others = ("--batch 2", "--sockets 4", "--fusion unfused", "--orchestration so", "--machine dgx-a100")
    others += ("--set machine.hbm.bandwidth=1TB/s", "--input 129", "--output 21")
    totals = [json.loads(said(f"{base} {other}").output)["total_s"] for other in ("", *others)]
    assert len(set(totals)) == len(totals)


def test_the_table_shows_the_inputs_that_are_not_published() -> None:
    text = said("llama-2-7b --input 128 --output 20").output
    assert "bound by" in text and "assumed inputs: " in text and "peer.bandwidth 400 GB/s" in text

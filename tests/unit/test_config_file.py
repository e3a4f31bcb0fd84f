"""Is a config file read as it stands: unknown names, no TOML, paths beside it, and errors that name it?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.cli_options import config_of
from cluster.config import Config
from cluster.runner import prepare
from node.errors import InputError

Given = Callable[..., Config]
Fault = Callable[..., str]
Toml = Callable[[str | bytes], Path]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[runtine]\n", "runtine: unknown key; there are seed and the tables workload, "),  # even if it is empty
        ("[runtine]\nbatch = 2\n", "runtine: unknown key; there are seed and the tables workload, "),
        ("batch = 2\n", "batch: unknown key; there are seed and the tables workload, "),
        ("runtime = 2\n", "runtime: unknown key; there are seed and the tables workload, "),
        ("[runtime]\nbatches = 2\n", "runtime.batches: unknown key; [runtime] has scheduler, batch, "),
        ("[runtime.batches]\nx = 2\n", "runtime.batches.x: unknown key; [runtime] has scheduler, batch, "),
        ('[machine.kernel]\nsink = "1 us"\n', "machine.kernel.sink: unknown key; a machine has sockets, "),
    ],
)
def test_an_unknown_name_in_a_file_is_told_with_the_file(text: str, said: str, toml: Toml, fault: Fault) -> None:
    path = toml(text)
    assert fault(path=path).startswith(f"{path}: {said}")


@pytest.mark.parametrize(
    "content", ["[runtime\n", "runtime.batch 4\n", "a = 1\na = 2\n", b"\xff\xfe\x00", b"a = '\x00'"]
)
def test_a_file_that_is_no_toml_is_named_in_one_line(content: str | bytes, toml: Toml, fault: Fault) -> None:
    path = toml(content)
    assert fault(path=path).startswith(f"{path}: cannot be read as TOML: ")


def test_a_file_that_is_missing_or_a_folder_is_named(tmp_path: Path, fault: Fault) -> None:
    missing = tmp_path / "none.toml"
    assert fault(path=missing) == f"{missing}: cannot be read as TOML: No such file or directory"
    assert fault(path=tmp_path) == f"{tmp_path}: cannot be read as TOML: Is a directory"


# Where a wrong value was set


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed = -1\n", "seed = -1: must be a whole number of at least 0"),
        ("[workload]\nrate = -1\n", "workload.rate = -1.0: must be a finite number above 0"),
        ('[workload]\narrivals = "gamma"\n', "workload.arrivals = 'gamma': cv is missing; allowed: "),
        ("[workload]\nlimit = 0\n", "workload.limit = 0: must be a whole number from 1 to "),
        ("[runtime]\nbatch = 0\n", "runtime.batch = 0: must be a whole number from 1 to 1,000,000"),
        ('[runtime]\nscheduler = "fifo"\n', "runtime.scheduler = 'fifo': must be one of paper, affinity"),
        ('[experts]\ndtype = "bf8"\n', "experts.dtype = 'bf8': must be one of fp32, "),
        ("[[experts.group]]\ncount = 0\n", "experts.group.count = 0: must be at least 1"),
        ("[machine.hbm]\nefficiency = 1.1\n", "machine.hbm.efficiency = 1.1: a fraction is at most 1"),
    ],
)
def test_a_value_that_is_not_allowed_is_told_with_the_file(text: str, said: str, toml: Toml, fault: Fault) -> None:
    path = toml(text)
    assert fault(path=path).startswith(f"{path}: {said}")
    assert fault(("runtime.fairness", "1 s"), path=path).startswith(f"{path}: {said}")  # what is set does not matter


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[cluster]\nwindow = "0 s"\n', "cluster.window = '0 s': must be above zero"),
        ('[runtime]\nkv_reserve = "16 parsecs"\n', "runtime.kv_reserve = '16 parsecs': not a non-negative quantity"),
        ("[sharding]\ntensor_parallel = 3\n", "sharding.tensor_parallel = 3: must divide the machine's 8 sockets"),
        ('[workload]\narrivals = "fixed"\nrate = 1e-9\n', "workload.arrivals = 'fixed': 1,000 arrivals at 1e-09 "),
    ],
)
def test_what_only_a_run_finds_out_is_told_with_the_file(text: str, said: str, toml: Toml, given: Given) -> None:
    path = toml(text)
    with pytest.raises(InputError) as caught:
        prepare(given(path=path))
    assert str(caught.value).startswith(f"{path}: {said}")


def test_a_value_of_an_option_is_told_with_the_option() -> None:
    with pytest.raises(InputError) as caught:
        config_of(None, ["workload.rate_scale=2.0"], {"rate_scale": -1.0, "seed": None}, lambda _key: True)
    assert str(caught.value) == "--rate-scale: workload.rate_scale = -1.0: must be a finite number above 0"


# Paths in a file


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder ``own`` of the working directory, with a machine, a model and a trace."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "small.toml").write_text('base = "sn40l-node"\nsockets = 4\n')
    (own / "trace.jsonl").write_text('{"timestamp": 0, "input_length": 7, "output_length": 2}\n')
    shape = {"num_hidden_layers": 2, "hidden_size": 256, "num_attention_heads": 8, "intermediate_size": 512}
    rest = {"model_type": "llama", "vocab_size": 128, "max_position_embeddings": 64}
    (own / "config.json").write_text(json.dumps({**shape, **rest}))
    monkeypatch.chdir(tmp_path)
    return own


FILE = """
[machine]
name = "small.toml"
[sharding]
tensor_parallel = 4
[experts]
{experts}
router = "config.json"
[workload]
trace = "trace.jsonl"
"""
EXPERTS = ("model = 'config.json'", "group = [{ model = 'config.json', count = 2 }]")


@pytest.mark.parametrize("experts", EXPERTS)
@pytest.mark.parametrize("absolute", [False, True])
def test_paths_in_a_file_are_taken_from_its_folder(experts: str, absolute: bool, folder: Path, given: Given) -> None:
    (folder / "own.toml").write_text(FILE.format(experts=experts))
    path = folder / "own.toml" if absolute else Path("own/own.toml")
    deployment, workload = prepare(given(path=path))
    assert (deployment.machine.name, deployment.machine.sockets) == ("small", 4)
    assert {shape.layers for shape in deployment.models.values()} == {2} and len(deployment.models) == 1
    assert [request.input_tokens for request in workload.requests] == [7]
    assert workload.source == str(path.parent / "trace.jsonl")


def test_absolute_paths_and_names_in_a_file_stay_as_they_are(folder: Path, given: Given) -> None:
    names = f"model = '{folder}/config.json'", f"trace = '{folder}/trace.jsonl'"
    (folder / "own.toml").write_text("[machine]\nname = 'dgx-a100'\n[experts]\n{}\n[workload]\n{}\n".format(*names))
    config = given(path=Path("own/own.toml"))
    assert (config.machine.name, config.experts.router) == ("dgx-a100", "llama-2-7b")
    assert (config.experts.model, config.workload.trace) == (f"{folder}/config.json", f"{folder}/trace.jsonl")


def test_paths_that_are_set_or_options_are_taken_from_the_working_directory(folder: Path) -> None:
    settings = ["machine.name=own/small.toml", "experts.group=[{model='own/config.json'}]"]
    (folder / "own.toml").write_text("[sharding]\ntensor_parallel = 4\n[workload]\ntrace = 'elsewhere'\n")
    config = config_of(Path("own/own.toml"), settings, {"trace": "own/trace.jsonl"}, lambda _key: True)
    assert (config.machine.name, config.experts.group[0].model) == ("own/small.toml", "own/config.json")
    assert prepare(config)[1].source == "own/trace.jsonl"


def test_a_path_in_a_file_that_leads_nowhere_is_told_as_it_was_looked_for(folder: Path, given: Given) -> None:
    (folder / "own.toml").write_text("[workload]\ntrace = 'none.csv'\n")
    with pytest.raises(InputError, match=r"^trace 'own/none.csv': No such file or directory"):
        prepare(given(path=Path("own/own.toml")))

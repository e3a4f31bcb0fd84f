"""Does the ``coe`` command write what it says, and is every mistake of a user one line, with nothing left behind?"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.csv
import pyarrow.parquet
import pytest

from cluster.__main__ import main
from cluster.backends import ray_session
from node.errors import InputError
from node.spec_file import load_machine, machine_names

ROOT = Path(__file__).resolve().parents[2]
RUN = "run --backend local --set workload.requests=12 "
FILES = ["requests.parquet", "run.json", "summary.json", "timeline.json"]


class Said(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


Coe = Callable[[str], Said]
Process = Callable[..., subprocess.CompletedProcess[str]]  # arguments, at: the folder to run it in
OverRay = tuple[int, str, Path, set[IPv4Address | IPv6Address]]  # exit code, stderr, results, where Ray listened


@pytest.fixture
def coe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Coe:
    """``coe ...`` in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def command(line: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["coe", *shlex.split(line)])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Said(code, *capfd.readouterr())

    return command


def good(said: Said) -> str:
    assert said.code == 0, said.err
    return said.out


def names(folder: Path) -> list[str]:
    """All there is, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# coe run


def test_a_run_writes_four_files_and_nothing_else(coe: Coe, tmp_path: Path) -> None:
    out = good(coe(RUN + "--output result --seed 3 --set runtime.batch=4"))
    assert names(tmp_path) == ["result"] and names(tmp_path / "result") == FILES
    summary, record = (json.loads((tmp_path / "result" / name).read_text()) for name in ("summary.json", "run.json"))
    assert summary["completed"] == 12 == len(pyarrow.parquet.read_table(tmp_path / "result" / "requests.parquet"))
    assert "written to result" in out and "12 of 12" in out
    assert set(record) == {"versions", "config", "seed", "wall_s", "command"}
    assert (record["seed"], record["config"]["runtime"]["batch"], record["config"]["cluster"]["backend"]) == (
        3,
        4,
        "local",
    )
    assert set(record["versions"]) == {"python", "samba-coe", "ray", "numpy", "msgpack", "pyarrow"}
    assert record["command"][:4] == ["coe", "run", "--backend", "local"]


def test_without_output_each_run_has_a_new_folder(coe: Coe, tmp_path: Path) -> None:
    for number in (1, 2):
        out = good(coe(RUN))
        assert names(tmp_path) == ["runs"] and len(names(tmp_path / "runs")) == number
        assert f"written to runs/{names(tmp_path / 'runs')[-1]}" in out
    assert all(names(folder) == FILES for folder in (tmp_path / "runs").iterdir())


def test_requests_come_as_csv_too(coe: Coe, tmp_path: Path) -> None:
    good(coe(RUN + "--output a --requests-format csv"))
    good(coe(RUN + "--output b"))
    assert names(tmp_path / "a") == ["requests.csv", *FILES[1:]]
    table = pyarrow.parquet.read_table(tmp_path / "b" / "requests.parquet")
    assert pyarrow.csv.read_csv(tmp_path / "a" / "requests.csv").equals(table)


def test_a_timeline_of_no_events_has_none(coe: Coe, tmp_path: Path) -> None:
    good(coe(RUN + "--output a --timeline 0"))
    trace = json.loads((tmp_path / "a" / "timeline.json").read_text())
    assert {event["ph"] for event in trace["traceEvents"]} == {"M"} and trace["otherData"]["events_left_out"] > 0


def test_a_seed_decides_every_byte_and_another_seed_others(coe: Coe, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        good(coe(RUN + f"--output {name} --seed {seed}"))
    results = {name: content(tmp_path / name) for name in "abc"}
    assert all(found.pop("run.json") for found in results.values())  # when, and by what command
    assert results["a"] == results["b"]
    assert all(results["a"][name] != results["c"][name] for name in results["a"])


def test_options_go_over_set_and_set_over_the_file(coe: Coe, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('seed = 1\n[workload]\nrequests = 7\nlimit = 6\n[cluster]\nbackend = "local"\n')
    good(coe("run --config own.toml --set workload.limit=5 --set seed=2 --limit 4 --output a"))
    assert json.loads((tmp_path / "a" / "summary.json").read_text())["completed"] == 4
    assert json.loads((tmp_path / "a" / "run.json").read_text())["seed"] == 2


def test_the_command_over_ray_writes_the_bytes_of_the_local_one(coe: Coe, tmp_path: Path, over_ray: OverRay) -> None:
    code, err, folder, _ = over_ray
    assert (code, err, names(folder)) == (0, "", FILES)
    good(coe(RUN + "--output local"))
    found, expected = content(folder), content(tmp_path / "local")
    assert all(found[name] == expected[name] for name in FILES if name != "run.json")


def test_a_ray_that_the_command_starts_listens_on_loopback_only(over_ray: OverRay) -> None:
    listening = over_ray[3]
    assert listening and {address.is_loopback for address in listening} == {True}


# The other commands


def test_compare_writes_every_machine_beside_the_first(coe: Coe, tmp_path: Path) -> None:
    out = good(coe("compare --backend local --set workload.requests=5 --output both"))
    found = json.loads((tmp_path / "both" / "compare.json").read_text())
    assert names(tmp_path / "both") == ["compare.json"] and set(found) == {"machines", "first_is_better_by"}
    labels = [machine["label"] for machine in found["machines"]]
    assert labels[0] == "sn40l-node" and len(labels) == 5 and list(found["first_is_better_by"]) == labels[1:]
    times, other = found["first_is_better_by"]["dgx-a100"], found["machines"][1]
    assert times["makespan_s"] == other["makespan_s"] / found["machines"][0]["makespan_s"]
    assert f"({times['makespan_s']:.2f}x)" in out


def test_machines_are_listed(coe: Coe) -> None:
    out = good(coe("machines"))
    assert machine_names() and all(re.search(rf"^{name} ", out, re.MULTILINE) for name in machine_names())


@pytest.mark.parametrize("name", ["sn40l-node", "dgx-h100"])
def test_every_number_of_a_machine_is_told_with_kind_and_source(coe: Coe, name: str) -> None:
    lines = [re.split(r"\s{2,}", line.strip()) for line in good(coe(f"machines {name}")).splitlines()]
    figures = load_machine(name).figures
    rows = [line for line in lines if len(line) == 4 and line[0] != "number"]
    assert [row[:3] for row in rows] == [[figure.path, figure.value, figure.kind] for figure in figures]
    for row, figure in zip(rows, figures, strict=True):
        rest = [*lines, [""]][lines.index(row) + 1]
        assert figure.source == " ".join([row[3], *(rest if len(rest) == 1 else [])]).strip()


def test_a_number_that_is_set_is_told_as_such(coe: Coe) -> None:
    out = good(coe("machines sn40l-node --set machine.kernel.sync='2 us'"))
    assert re.search(r"^kernel\.sync +2 us +assumed +--set *$", out, re.MULTILINE)


def test_a_footprint_is_rows_of_six_numbers(coe: Coe) -> None:
    found = json.loads(good(coe("footprint --experts 38,850 --machines sn40l-node,dgx-h100 --json")))
    keys = ("machine", "experts", "nodes", "resident_in_hbm", "held_below_hbm", "state")
    assert list(found) == ["rows"] and all(tuple(row) == keys for row in found["rows"])
    assert [tuple(row.values()) for row in found["rows"]] == [
        ("sn40l-node", 38, 1, 38, 0, "fits"),
        ("sn40l-node", 850, 1, 38, 812, "spills"),
        ("dgx-h100", 38, 1, 38, 0, "fits"),
        ("dgx-h100", 850, 19, 45, 118, "out_of_memory"),
    ]
    slow = json.loads(
        good(coe("footprint --experts 850 --machines sn40l-node --set footprint.activation_limit='1 ms' --json"))
    )
    assert slow["rows"][0]["nodes"] == 23
    few = json.loads(
        good(coe("footprint --experts 10 --machines sn40l-socket --set sharding.tensor_parallel=1 --json"))
    )
    assert few["rows"][0]["held_below_hbm"] == 8  # the default of 150 experts, which do not fit, does not matter


def test_a_footprint_without_json_is_a_table(coe: Coe) -> None:
    out = good(coe("footprint --experts 850"))
    assert re.search(r"^sn40l-node +850 +1 +38 +812 +spills", out, re.MULTILINE)


@pytest.fixture(scope="module")
def published(process: Process) -> dict[str, Any]:
    said = process("reproduce", "--json", at=ROOT)
    assert said.stderr == ""
    return {row["id"]: row for row in json.loads(said.stdout)["rows"]}


def test_published_rows_have_their_shape_and_the_system_is_within_five_percent(published: dict[str, Any]) -> None:
    keys = ["id", "group", "metric", "published", "emulated", "tolerance", "role", "inputs"]
    assert all(list(row) == keys for row in published.values())
    assert {row["group"] for row in published.values()} == {
        "system",
        "calls",
        "derived",
        "placement",
        "fusion",
        "monarch",
    }
    system = [row for row in published.values() if row["group"] == "system"]
    assert len(system) == 9
    for row in system:
        assert abs(row["emulated"] / row["published"] - 1) <= 0.05 == row["tolerance"], row["id"]


def test_the_command_of_a_row_gives_its_figure(coe: Coe, tmp_path: Path, published: dict[str, Any]) -> None:
    def summary(name: str, machine: str) -> dict[str, Any]:
        line = published[name]["inputs"]["run"].removeprefix("coe ")
        good(coe(f"{line} --machine {machine} --backend local --output {name}-{machine}"))
        return json.loads((tmp_path / f"{name}-{machine}" / "summary.json").read_text())  # type: ignore[no-any-return]

    name = "overall-8-dgx-a100"
    ours, theirs = (summary(name, machine)["makespan_s"] for machine in published[name]["inputs"]["machines"])
    assert published[name]["emulated"] == theirs / ours
    assert published["copy-dgx-h100"]["emulated"] == summary("copy-dgx-h100", "dgx-h100")["switch_s_mean"]
    row = published["footprint-dgx-a100"]
    found = json.loads(good(coe(f"{row['inputs']['run'].removeprefix('coe ')} --machines dgx-a100 --json")))
    assert row["emulated"] == found["rows"][0]["nodes"]


@pytest.mark.parametrize("line", ["--help", "-h", "run --help", "--version"])
def test_help_is_no_error(coe: Coe, line: str) -> None:
    assert coe(line).code == 0 and not coe(line).err


def test_without_a_command_there_is_help(coe: Coe) -> None:
    said = coe("")
    assert "Usage: coe [OPTIONS] COMMAND" in said.out + said.err and "error" not in said.err


# What users get wrong

HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
ROW = "2024-05-10 12:00:00.0000000,10,10\n"
GIVEN: dict[str, str | bytes] = {
    "empty.csv": "",
    "head.csv": HEAD,
    "binary.csv": b"\x7fELF\x00\xff\xfe",
    "words.csv": HEAD + ROW + "2024-05-10 12:00:01,ten,10\n",
    "nan.csv": HEAD + ROW + ROW + "2024-05-10 12:00:01,nan,10\n",
    "minus.csv": HEAD + "2024-05-10 12:00:01,-5,10\n",
    "short.csv": HEAD + ROW + "2024-05-10 12:00:01\n",
    "other.csv": "a,b\n1,2\n",
    "bad.toml": "[runtime\n",
    "key.toml": "[runtime]\nbatches = 2\n",
    "taken/notes.txt": "mine",
    "taken.txt": "mine",
}
WRONG = [
    ("walk", "No such command 'walk'"),
    ("run --fast", "No such option '--fast'"),
    ("run now", "unexpected extra argument (now)"),
    (RUN + "--trace none.csv", "workload.requests: has no effect, because workload.trace is set"),
    ("run --backend local --trace none.csv", "trace 'none.csv': No such file or directory"),
    ("run --backend local --trace taken", "trace 'taken': Is a directory"),
    ("run --backend local --trace empty.csv", "empty.csv:1: no requests"),
    ("run --backend local --trace head.csv", "head.csv:1: no requests"),
    ("run --backend local --trace binary.csv", "binary.csv:1: "),
    ("run --backend local --trace words.csv", "words.csv:3: "),
    ("run --backend local --trace nan.csv", "nan.csv:4: "),
    ("run --backend local --trace minus.csv", "minus.csv:2: "),
    ("run --backend local --trace short.csv", "short.csv:3: "),
    ("run --backend local --trace other.csv", "other.csv:1: "),
    (RUN + "--set workload.rate=nan", "workload.rate = nan: must be a finite number above 0"),
    (RUN + "--set workload.rate=-1", "workload.rate = -1.0: "),
    (RUN + "--rate-scale nan", "workload.rate_scale = nan: "),
    (RUN + "--rate-scale -2", "workload.rate_scale = -2.0: "),
    (RUN + "--set workload.input_tokens=-5", "workload.input_tokens = -5: "),
    (RUN + "--limit 0", "workload.limit = 0: must be a whole number from 1 to "),
    (RUN + "--limit few", "Invalid value for '--limit'"),
    (RUN + "--seed -1", "seed = -1: "),
    (RUN + "--timeline -1", "Invalid value for '--timeline'"),
    (RUN + "--requests-format xml", "Invalid value for '--requests-format'"),
    (RUN + "--config none.toml", "none.toml: cannot be read as TOML: No such file or directory"),
    (RUN + "--config bad.toml", "bad.toml: cannot be read as TOML: "),
    (RUN + "--config key.toml", "key.toml: runtime.batches: unknown key; [runtime] has scheduler, "),
    (RUN + "--set runtime.batches=2", "--set: runtime.batches: unknown key"),
    (RUN + "--set runtime.batch", "must be table.key=value"),
    (RUN + "--set footprint.activation_limit='1 s'", "footprint.activation_limit: this command does not use it"),
    (RUN + "--machine sn50", "machine 'sn50': no such machine; there are dgx-a100, "),
    (RUN + "--set experts.model=gpt-5", "model 'gpt-5': no such model; there are "),
    (RUN + "--set runtime.scheduler=fifo", "runtime.scheduler = 'fifo': must be one of paper, affinity"),
    (RUN + "--set experts.count=2000", "out of memory in DDR of each socket of group 0"),
    (RUN + "--set sharding.tensor_parallel=3", "sharding.tensor_parallel = 3: must divide"),
    (RUN + "--set runtime.kv_reserve='600 GiB'", "out of memory in HBM of each socket of group 0"),
    (RUN + "--set runtime.kv_reserve='1 MiB'", "bytes of KV cache per socket, but runtime.kv_reserve "),
    (RUN + "--set cluster.window='0 s'", "cluster.window = '0 s': must be above zero"),
    (RUN + "--output taken", "--output 'taken': exists already"),
    (RUN + "--output taken.txt", "--output 'taken.txt': exists already"),
    (RUN + "--output taken.txt/result", "--output 'taken.txt/result': "),
    ("run --address nowhere --set cluster.backend=local", "cluster.address: has no effect"),
    ("compare --backend local --machines ''", "--machines '': must be different machines"),
    ("compare --backend local --machines dgx-a100,dgx-a100", "must be different machines"),
    ("compare --backend local --set machine.name=dgx-a100", "machine.name: this command does not use it"),
    ("footprint --experts 0", "--experts '0': must be whole numbers of at least 1"),
    ("footprint --experts 10,many", "--experts '10,many': must be whole numbers"),
    ("footprint --set workload.rate=3", "workload.rate: this command does not use it"),
    ("footprint --set footprint.activation_limit=50", "footprint.activation_limit = 50: must be of type str"),
    ("estimate gpt-5 --input 1 --output 1", "model 'gpt-5': no such model; there are "),
    ("estimate llama-2-7b --input 1", "--output missing"),
    ("estimate llama-2-7b --input 0 --output 1", "Invalid value for '--input'"),
    ("estimate llama-3.1-405b --input 1 --output 1", "out of memory in HBM of socket 0"),
    ("estimate llama-2-7b --input 1 --output 1 --set runtime.batch=2", "runtime.batch: this command does not use it"),
    ("machines sn50", "machine 'sn50': no such machine"),
    ("machines sn40l-node --set machine.kernel.sink='1 us'", "machine.kernel.sink: unknown key"),
    ("machines sn40l-node --set machine.name=dgx-a100", "machine.name: this command does not use it"),
    ("machines sn40l-node --set runtime.batch=2", "runtime.batch: this command does not use it"),
    ("machines --set machine.hbm.capacity='1 GiB'", "needs the name of a machine"),
    ("reproduce --write taken", "taken: cannot be written: Is a directory"),
    ("reproduce --write none/page.md", "none/page.md: cannot be written: No such file or directory"),
]


@pytest.mark.parametrize(("line", "part"), WRONG)
def test_a_mistake_is_one_line_and_leaves_nothing(coe: Coe, tmp_path: Path, line: str, part: str) -> None:
    for name, text in GIVEN.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    before = content(tmp_path), sorted(tmp_path.rglob("*"))
    code, out, err = coe(line)
    assert (code, out) == (2, "")
    assert err.startswith("coe: error: ") and err.count("\n") == 1 and err.endswith("\n")
    assert part in err
    assert (content(tmp_path), sorted(tmp_path.rglob("*"))) == before


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", ""])
def test_a_cluster_that_is_not_there_is_a_mistake_too(process: Process, tmp_path: Path, address: str) -> None:
    said = process("run", "--set", "workload.requests=3", "--address", address, at=tmp_path)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.startswith(f"coe: error: --address {address!r}: ") and said.stderr.count("\n") == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (None, "nothing can be reached there: timed out"),
        (b"", "what listens there is no Ray"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what listens there is no Ray"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "what listens there is no Ray"),
    ],
)
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_what_listens_but_is_no_ray_is_not_joined(
    monkeypatch: pytest.MonkeyPatch, scheme: str, says: bytes | None, reason: str
) -> None:
    for name, instead in (
        ("is_initialized", lambda: False),
        ("init", lambda **_: pytest.fail("Ray was asked to join it")),
        ("shutdown", lambda: None),
    ):
        monkeypatch.setattr(f"cluster.backends.ray.{name}", instead)
    monkeypatch.setattr("cluster.backends.CONNECT_LIMIT_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"{scheme}127.0.0.1:{server.getsockname()[1]}"
        with answering(server, says), pytest.raises(InputError, match=f"{address}.*{reason}"), ray_session(address):
            pytest.fail("it was joined")


@contextlib.contextmanager
def answering(server: socket.socket, says: bytes | None) -> Iterator[None]:
    """Somebody who answers the first bytes of a client with ``says`` and hangs up; None: who says nothing."""

    def answer() -> None:
        client, _ = server.accept()
        with client:
            client.recv(1000)
            client.sendall(says or b"")

    thread = threading.Thread(target=answer)
    if says is not None:
        thread.start()
    yield
    if says is not None:
        thread.join()

"""Is every mistake of a user one line, with nothing left behind?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PLAN = "plan --backend local --slo ttft=2s "
RUN = "run --backend local --set workload.requests=12 "
Coe = Callable[[str], Any]  # a line -> code, out, err


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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
    "value.toml": "[runtime]\nbatch = 0\n",
    "window.toml": "[cluster]\nwindow = '0 s'\n",
    "nogrid.toml": "seed = 1\n",
    "notlist.toml": "[grid]\nseed = 1\n",
    "nolist.toml": "[grid]\nseed = []\n",
    "twice.toml": "[grid]\nseed = [1, 2, 1]\n",
    "both.toml": "[runtime]\nbatch = 1\n[grid]\nruntime.batch = [1, 2]\n",
    "where.toml": "[grid]\ncluster.window = ['1 s', '2 s']\n",
    "typo.toml": "[grid]\nruntime.evictoin = ['lru']\n",
    "vast.toml": f"[grid]\nseed = {list(range(400))}\nruntime.batch = {list(range(1, 400))}\n",
    "once.csv": HEAD + ROW + ROW,
    "notchoices.toml": "candidates = 3\n",
    "nochoices.toml": "candidates = []\n",
    "choice.toml": "[candidates]\nworkload.rate = [1, 2]\n",
    "typed.toml": '[candidates]\nruntime.eviction = ["lru", "lur"]\n',
    "grid.toml": "[workload]\nrequests = 12\n[grid]\nseed = [1, 2]\n",
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
    (RUN + "--set workload.rate=nan", "error: --set: workload.rate = nan: must be a finite number above 0"),
    (RUN + "--set workload.rate=-1", "workload.rate = -1.0: "),
    (RUN + "--rate-scale nan", "workload.rate_scale = nan: "),
    (RUN + "--rate-scale -2", "workload.rate_scale = -2.0: "),
    (RUN + "--set workload.input_tokens=-5", "workload.input_tokens = -5: "),
    (RUN + "--limit 0", "workload.limit = 0: must be a whole number from 1 to "),
    (RUN + "--limit few", "Invalid value for '--limit'"),
    (RUN + "--seed -1", "error: --seed: seed = -1: "),
    (RUN + "--timeline -1", "Invalid value for '--timeline'"),
    (RUN + "--requests-format xml", "Invalid value for '--requests-format'"),
    (RUN + "--config none.toml", "none.toml: cannot be read as TOML: No such file or directory"),
    (RUN + "--config bad.toml", "bad.toml: cannot be read as TOML: "),
    (RUN + "--config key.toml", "key.toml: runtime.batches: unknown key; [runtime] has scheduler, "),
    (RUN + "--config value.toml", "error: value.toml: runtime.batch = 0: must be a whole number from 1 to 1,000,000"),
    (RUN + "--config window.toml", "error: window.toml: cluster.window = '0 s': must be above zero"),
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
    (
        "compare --backend local --machines dgx-a100 --set machine.pipeline.lanes=2",
        "error: --set: machine.pipeline.lanes: none of dgx-a100 has this number",
    ),
    ("compare --backend local --set machine.name=dgx-a100", "machine.name: this command does not use it"),
    ("footprint --set footprint.activation_limit='1 GB'", "error: --set: footprint.activation_limit = '1 GB': not a "),
    ("footprint --svg none/curve.svg", "none/curve.svg: cannot be written: No such file or directory"),
    ("footprint --machines dgx-a100 --set machine.cost_per_hour=0", "machine.cost_per_hour = 0: must be above zero"),
    ("footprint --set machine.cost_per_hour='98 EUR'", "machine.cost_per_hour = '98 EUR': not a non-negative quantity"),
    ("footprint --experts 0", "--experts '0': must be whole numbers from 1 to 1,000,000,000"),
    ("footprint --experts 1000000001", "--experts '1000000001': must be whole numbers from 1 to 1,000,000,000"),
    ("footprint --experts 10,many", "--experts '10,many': must be whole numbers"),
    ("footprint --set workload.rate=3", "workload.rate: this command does not use it"),
    ("footprint --set footprint.activation_limit=50", "footprint.activation_limit = 50: must be of type str"),
    ("sweep", "Missing argument 'FILE'"),
    ("sweep none.toml", "none.toml: cannot be read as TOML: No such file or directory"),
    ("sweep nogrid.toml", "nogrid.toml: has no table [grid] of lists"),
    ("sweep notlist.toml", "notlist.toml: grid.seed = 1: must be a list of values"),
    ("sweep nolist.toml", "nolist.toml: grid.seed = []: must be a list of values"),
    ("sweep twice.toml", "twice.toml: grid.seed: has 1 twice"),
    ("sweep both.toml", "both.toml: runtime.batch: is in [grid] and outside; remove one of the two"),
    ("sweep where.toml", "where.toml: grid.cluster.window: nothing in [cluster] changes a result"),
    ("sweep typo.toml", "typo.toml: runtime.evictoin: unknown key; [runtime] has scheduler, "),
    ("sweep vast.toml", "vast.toml: the grid has 159,600 points: must be at most 100,000"),
    ("sweep grid.toml --backend local --output taken", "--output 'taken': exists already and is no sweep's"),
    ("sweep grid.toml --backend local --output taken.txt", "--output 'taken.txt': exists already and is no sweep's"),
    ("sweep grid.toml --backend local --workers 2", "--workers 2: has no effect, because cluster.backend is local"),
    ("sweep grid.toml --workers 0", "Invalid value for '--workers'"),
    ("sweep grid.toml --latency e2e", "Invalid value for '--latency'"),
    ("sweep grid.toml --backend thread", "--backend: cluster.backend = 'thread': must be one of ray, local"),
    ("switching --machines sn50", "machine 'sn50': no such machine"),
    ("switching --models gpt-5", "model 'gpt-5': no such model; there are "),
    ("switching --models ,", "--models ',': must be models, with commas"),
    ("switching --input 0", "Invalid value for '--input'"),
    ("switching --svg none/a.svg", "none/a.svg: cannot be written: No such file or directory"),
    ("switching --set cluster.window='1 s'", "cluster.window: this command does not use it"),
    ("switching --set machine.name=dgx-a100", "machine.name: this command does not use it"),
    ("switching --set sharding.tensor_parallel=3", "sharding.tensor_parallel = 3: must divide"),
    ("switching --set runtime.batch=0", "runtime.batch = 0: must be a whole number from 1 to"),
    ("switching --trace empty.csv", "empty.csv:1: no requests"),
    ("switching --set runtime.kv_reserve='1 MiB'", "bytes of KV cache per socket, but runtime.kv_reserve "),
    (
        "sensitivity --backend local --set workload.requests=3 --kinds assumed --result e2e",
        "--result 'e2e': the run has",
    ),
    ("sensitivity --kinds guessed", "--kinds 'guessed': must be of published, derived, assumed, with commas"),
    ("sensitivity --factor 1", "Invalid value for '--factor'"),
    ("sensitivity --machine sn50", "machine 'sn50': no such machine"),
    ("sensitivity --svg none/a.svg", "none/a.svg: cannot be written: No such file or directory"),
    ("sensitivity --backend local --workers 2", "--workers 2: has no effect, because cluster.backend is local"),
    ("sensitivity --backend local --set experts.count=2000", "out of memory in DDR of each socket of group 0"),
    ("plan --rate 0", "Invalid value for '--rate'"),
    ("plan --seeds 1", "Invalid value for '--seeds'"),
    ("plan --attainment 1", "Invalid value for '--attainment'"),
    ("plan --most-nodes 1001", "Invalid value for '--most-nodes'"),
    ("plan --rate 1", "error: --slo: nothing is promised to anybody; give it, for example --slo ttft=2s"),
    ("plan --slo fast", "--slo 'fast': must be ttft=TIME, e2e=TIME or both with a comma, each once"),
    ("plan --slo ttft=soon", "error: --slo: slo.ttft = 'soon': not a non-negative quantity in s"),
    ("plan --slo ttft=0s", "error: --slo: slo.ttft = '0s': must be above zero"),
    (PLAN + "--experts 0", "error: --experts: experts.count = 0: must be a whole number from 1 to "),
    (PLAN + "--experts 5000", "out of memory in DDR of each socket of group 0"),
    (PLAN + "--machines sn50", "machine 'sn50': no such machine"),
    (PLAN + "--machines sn40l-node --set machine.name=dgx-a100", "machine.name: is set, and --machines given; remove"),
    (PLAN + "--set routing.nodes=4", "error: --set: routing.nodes: this command does not use it"),
    (PLAN + "--set runtime.batch=0", "error: --set: runtime.batch = 0: must be a whole number from 1 to"),
    (PLAN + "--rate 2 --set workload.arrivals=at_once", "workload.rate: has no effect, because workload.arrivals is"),
    (PLAN + "--rate 2 --trace none.csv", "trace 'none.csv': No such file or directory"),
    (PLAN + "--rate 2 --trace once.csv", "once.csv: all requests arrive at once: nothing can be planned for them"),
    (PLAN + "--requests 20", "error: --attainment 0.99: 5 runs of 20 requests cannot show it with 95% confidence"),
    (PLAN + "--workers 2", "--workers 2: has no effect, because cluster.backend is local"),
    (PLAN + "--output taken", "--output 'taken': exists already"),
    (PLAN + "--config notchoices.toml", "notchoices.toml: has no table [candidates] of lists"),
    (PLAN + "--config none.toml", "none.toml: cannot be read as TOML: No such file or directory"),
    (PLAN + "--config nochoices.toml", "nochoices.toml: has no table [candidates] of lists"),
    (PLAN + "--config choice.toml", "choice.toml: candidates.workload.rate: is no choice; allowed: keys of sharding"),
    (PLAN + "--config typed.toml", "typed.toml: runtime.eviction = 'lur': must be one of lru, lfu"),
    (PLAN + "--config typed.toml --set runtime.eviction=lru", "runtime.eviction: is in [candidates] and outside"),
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

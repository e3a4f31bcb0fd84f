"""What do commands need, and what is told of what is not there?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LACKING = """
import sys
for name in {lacking}: sys.modules[name] = None
sys.argv = ["coe", *{arguments}]
from cluster.__main__ import main
main()
"""
OF_TEXTS = ["gguf", "tokenizers", "huggingface_hub", "tqdm", "httpx", "fsspec"]  # which a stock Ray image has not


def without(lacking: list[str], *arguments: str, at: Path) -> subprocess.CompletedProcess[str]:
    code = LACKING.format(lacking=lacking, arguments=list(arguments))
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=at, env=environment, capture_output=True, text=True, check=False
    )


LOCAL = "--backend local --set workload.requests=3"


ESTIMATE = "estimate llama-2-7b --input 9 --output 9"


@pytest.mark.parametrize("command", [f"run {LOCAL}", f"compare {LOCAL}", "footprint", ESTIMATE, "plan -h", "sweep -h",
                                     "switching -h", "sensitivity -h", "submit -h"])  # fmt: skip
def test_commands_of_timing_need_nothing_that_reads_texts(command: str, tmp_path: Path) -> None:
    said = without(OF_TEXTS, *command.split(), at=tmp_path)
    assert said.returncode == 0, said.stderr


@pytest.mark.parametrize(("lacking", "command"), [("numpy", "run"), ("pyarrow", "run"), ("tokenizers", "generate")])
def test_a_package_that_is_not_there_is_one_line(lacking: str, command: str, tmp_path: Path) -> None:
    said = without([lacking], command, at=tmp_path)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.startswith(f"coe: error: the package {lacking} is not installed here: pip install -r ")
    assert said.stderr.count("\n") == 1 and "coe submit --pip" in said.stderr

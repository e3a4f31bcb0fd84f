"""Does ``coe sensitivity`` rank what a run depends on, in its table, as JSON and as a picture?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Coe = Callable[[str], Any]  # a line -> code, out, err
SHORT = "--backend local --set workload.requests=3 --set workload.input_tokens=64 --set workload.output_tokens=4 "
FEW = f"sensitivity {SHORT} --kinds assumed "


def good(said: Any) -> str:
    assert said.code == 0, said.err
    return said.out


def test_each_end_is_the_run_of_that_value(coe: Coe, tmp_path: Path) -> None:
    answer = json.loads(good(coe(FEW + "--result e2e_s.p50 --json --svg a.svg")))
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    by_path = {one["path"]: one for one in answer["inputs"]}
    peer = by_path["peer.bandwidth"]
    assert (peer["low"], peer["high"], peer["range_stated"]) == ("50 GB/s", "900 GB/s", True)
    good(coe(f"run {SHORT} --set machine.peer.bandwidth='50 GB/s' --output a"))
    assert json.loads((tmp_path / "a" / "summary.json").read_text())["e2e_s"]["p50"] == peer["at_low"]
    effects = [one["effect"] for one in answer["inputs"]]
    assert effects == sorted(effects, reverse=True) and effects[0] > 0
    assert by_path["kernel.launch_so"]["effect"] == 0.0  # kernels are launched by the AGCU


def test_the_table_says_ranges_kinds_and_what_is_not_done(coe: Coe) -> None:
    out = " ".join(good(coe(FEW + "--result switch_s_mean --factor 3")).split())
    assert "50 GB/s to 900 GB/s stated assumed" in out and "/ and x 3 assumed" in out
    assert "what was fitted to published calls is not fitted anew" in out

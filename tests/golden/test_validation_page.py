"""Is the validation page what the emulator says today, and are its headline and its figures honest ones?

Written anew by ``make golden``.
"""

from __future__ import annotations

import io
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.__main__ import main
from cluster.published import Inputs, Row

PAGE = Path(__file__).resolve().parents[2] / "docs/validation.md"
ROLES = {"fitted", "same_source", "predicted"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """The page and the JSON that ``coe reproduce`` makes now."""
    page = tmp_path_factory.mktemp("page") / "validation.md"
    rows = coe(f"reproduce --json --write {page}")
    return page.read_text(), json.loads(rows)


def coe(line: str) -> str:
    """What ``coe ...`` says, and nothing of it as an error."""
    with pytest.MonkeyPatch.context() as patch, io.StringIO() as out, io.StringIO() as err:
        patch.setattr(sys, "argv", ["coe", *shlex.split(line)])
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        main()
        assert err.getvalue() == ""
        return out.getvalue()


def error(row: dict[str, Any]) -> float:
    """Relative distance from the figure, or from the nearer end of its range."""
    low, high = row["published"] if isinstance(row["published"], list) else [row["published"]] * 2
    nearest = sorted((low, row["emulated"], high))[1]
    return float(row["emulated"] / nearest - 1)


def test_the_page_is_what_the_command_writes_now(made: tuple[str, dict[str, Any]]) -> None:
    assert made[0] == PAGE.read_text()


def test_the_headline_counts_predicted_figures_only(made: tuple[str, dict[str, Any]]) -> None:
    page, found = made
    predicted = [row for row in found["rows"] if row["role"] == "predicted" and not isinstance(row["published"], list)]
    mean = sum(abs(error(row)) for row in predicted) / len(predicted)
    assert 0 < len(predicted) < len(found["rows"])
    assert found["headline_error"] == pytest.approx(mean, rel=1e-12)
    assert f"**Headline error: {mean:.1%}**, the mean over the {len(predicted)} predicted figures;" in page
    worst = max(predicted, key=lambda row: abs(error(row)))
    assert f"the worst of them is {error(worst):+.1%} ({worst['metric']})." in page


def test_a_figure_that_was_fitted_to_is_not_called_predicted(made: tuple[str, dict[str, Any]]) -> None:
    roles = {row["id"]: row["role"] for row in made[1]["rows"]}
    assert set(roles.values()) == ROLES
    assert {name for name, role in roles.items() if role == "fitted"} == {
        "call-sn40l-llama-3-8b", "call-sn40l-llama-2-7b",
        "call-dgx-a100-1", "call-dgx-a100-8", "call-dgx-h100-1", "call-dgx-h100-8",
        "fusion-flashfftconv-1m-so", "fusion-flashfftconv-1m-ho",  # batch and shapes are unpublished: chosen
        "monarch-unfused", "monarch-gemm0-mul-transpose", "monarch-all",
    }  # fmt: skip
    assert {name for name, role in roles.items() if role == "predicted" and not name.startswith("fusion-")} == {
        "call-dgx-a100-2", "call-dgx-a100-4", "call-dgx-h100-2", "call-dgx-h100-4",
        "footprint-sn40l-node", "footprint-dgx-a100", "footprint-dgx-h100", "placement-pcus", "placement-pmus",
    }  # fmt: skip


@pytest.mark.parametrize(("emulated", "distance"), [(1.0, 0.0), (1.5, 0.0), (2.0, 0.0), (3.0, 0.5), (0.5, -0.5)])
def test_the_error_from_a_range_is_that_from_its_nearer_end(emulated: float, distance: float) -> None:
    row = Row("x", "derived", "x", (1.0, 2.0), emulated, 0.4, "predicted", Inputs("coe run", ("m",), (), ()))
    assert (row.error, row.within) == (distance, distance == 0.0)
    exact = Row("x", "derived", "x", 2.0, emulated, 0.5, "predicted", Inputs("coe run", ("m",), (), ()))
    assert (exact.error, exact.within) == (emulated / 2 - 1, emulated >= 1.0)


def test_every_row_says_what_it_rests_on(made: tuple[str, dict[str, Any]]) -> None:
    page, found = made
    assert len({row["id"] for row in found["rows"]}) == len(found["rows"])
    for row in found["rows"]:
        inputs = row["inputs"]
        assert inputs["run"].startswith(
            ("coe run --set ", "coe footprint --experts ", "coe estimate", "coe kernels")
        ), row["id"]
        assert inputs["machines"] and inputs["derived"] and inputs["assumed"], row["id"]
        named = {name.partition(":")[0] for kind in ("derived", "assumed") for name in inputs[kind]}
        assert named == set(inputs["machines"]), row["id"]
        for name in (*inputs["derived"], *inputs["assumed"]):
            assert f"`{name.partition(':')[2]}`" in page


def test_every_row_is_on_the_page_with_its_error(made: tuple[str, dict[str, Any]]) -> None:
    page, found = made
    lines = [line for line in page.splitlines() if line.endswith(tuple(f"| {role} |" for role in ROLES))]
    rows = [row for row in found["rows"] if row["group"] not in ("fusion", "monarch")]  # these have tables of their own
    assert len(lines) == len(rows)
    for row in rows:
        shown = [cell.strip() for cell in next(line for line in lines if f"| {row['metric']} |" in line).split("|")]
        assert shown[3] == f"{row['emulated']:.4g}"
        assert shown[4].strip("*") == f"{error(row):+.1%}"
        assert shown[4].startswith("*") == (abs(error(row)) > row["tolerance"])
        assert shown[5:7] == [f"{row['tolerance']:.0%}", row["role"]]


def test_every_speedup_of_fusion_is_on_the_page(made: tuple[str, dict[str, Any]]) -> None:
    page, found = made
    study = [row for row in found["rows"] if row["id"].endswith("-by-kind")]
    assert len(study) == 2 * (2 * 7 + 2)  # SO and HO; prefill and decode of seven, training of two
    for row in study:
        model, tokens, phase, how = row["metric"].removeprefix("fused/unfused, ").partition(",")[0].split()
        line = next(line for line in page.splitlines() if line.startswith(f"| {model}, {tokens} tokens, {phase} |"))
        shown = line.split("|")[2 if how == "SO" else 3].strip()
        assert shown.strip("*") == f"{row['emulated']:.2f}x"
        assert shown.startswith("*") == (error(row) != 0)
        assert 1 <= row["emulated"] <= 13


def test_the_intensities_are_on_the_page(made: tuple[str, dict[str, Any]]) -> None:
    page, found = made
    rows = [row for row in found["rows"] if row["group"] == "monarch"]
    assert len(rows) == 3
    for row in rows:
        assert abs(error(row)) <= 0.10
        assert f"| {row['published']} | {row['emulated']:.1f} | {error(row):+.1%} |" in page


# The rows


def test_published_rows_have_their_shape_and_the_system_is_within_five_percent(
    made: tuple[str, dict[str, Any]],
) -> None:
    keys = ["id", "group", "metric", "published", "emulated", "tolerance", "role", "inputs"]
    rows = made[1]["rows"]
    assert all(list(row) == keys for row in rows)
    assert {row["group"] for row in rows} == {"system", "calls", "derived", "placement", "fusion", "monarch"}
    system = [row for row in rows if row["group"] == "system"]
    assert len(system) == 9
    for row in system:
        assert abs(row["emulated"] / row["published"] - 1) <= 0.05 == row["tolerance"], row["id"]


def test_the_command_of_a_row_gives_its_figure(tmp_path: Path, made: tuple[str, dict[str, Any]]) -> None:
    published = {row["id"]: row for row in made[1]["rows"]}

    def summary(name: str, machine: str) -> dict[str, Any]:
        line, output = published[name]["inputs"]["run"].removeprefix("coe "), tmp_path / f"{name}-{machine}"
        coe(f"{line} --machine {machine} --backend local --output {output}")
        return json.loads((output / "summary.json").read_text())  # type: ignore[no-any-return]

    name = "overall-8-dgx-a100"
    ours, theirs = (summary(name, machine)["makespan_s"] for machine in published[name]["inputs"]["machines"])
    assert published[name]["emulated"] == theirs / ours
    assert published["copy-dgx-h100"]["emulated"] == summary("copy-dgx-h100", "dgx-h100")["switch_s_mean"]
    row = published["footprint-dgx-a100"]
    found = json.loads(coe(f"{row['inputs']['run'].removeprefix('coe ')} --machines dgx-a100 --json"))
    assert row["emulated"] == found["rows"][0]["nodes"]

"""Does the picture of kernels have a cell of its stage's colour for each PCU and PMU in use?"""

from __future__ import annotations

from collections import Counter
from xml.etree import ElementTree

import pytest

from cluster.kernels import Asked, Pass, pass_of
from cluster.kernels_svg import CELL, COLOURS, COLUMNS, IDLE, MARGIN, svg
from node.models.one_pass import one_pass
from node.spec_file import load_machine

SVG = "{http://www.w3.org/2000/svg}"
UNITS = 1040  # PCUs of a socket, and as many PMUs
PASSES = [
    ("llama-2-7b", "decode", "fused"),
    ("llama-2-7b", "prefill", "fused"),
    ("llama-2-7b", "decode", "looped"),
    ("llama-2-7b", "train", "fused"),
    ("bloom-176b", "decode", "unfused"),
    ("flashfftconv-1m", "prefill", "fused"),
    ("sam-vit-b", "prefill", "fused"),
]
Pictured = tuple[Pass, ElementTree.Element]


@pytest.fixture(params=PASSES, ids=" ".join)
def pictured(request: pytest.FixtureRequest) -> Pictured:
    model, phase, fusion = request.param
    sequence = 1024 if one_pass(model) is None else None
    found = pass_of(model, load_machine("sn40l-node"), Asked(phase, sequence, 8, fusion, "ho"))
    return found, ElementTree.fromstring(svg(found))


def rects(root: ElementTree.Element, height: int) -> list[dict[str, str]]:
    return [dict(rect.attrib) for rect in root.iter(f"{SVG}rect") if rect.get("height") == str(height)]


def cells(root: ElementTree.Element) -> tuple[Counter[str], Counter[str]]:
    """How many cells of each colour, of PCUs (the left grid) and of PMUs."""
    found: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for rect in rects(root, CELL):
        count, rest = divmod(int(rect["width"]) + 1, CELL + 1)
        assert count > 0 and rest == 0
        found[int(rect["x"]) >= MARGIN + COLUMNS * (CELL + 1)][rect["fill"]] += count
    return found


def test_there_are_as_many_cells_of_a_colour_as_units_of_its_stages(pictured: Pictured) -> None:
    found, root = pictured
    assert root.tag == f"{SVG}svg"
    for kind, drawn in zip(("pcus", "pmus"), cells(root), strict=True):
        expected: Counter[str] = Counter()
        for kernel in found.kernels:
            assert kernel.placement is not None
            for index, stage in enumerate(kernel.placement.stages):
                expected[COLOURS[index % len(COLOURS)]] += getattr(stage, kind)
        in_use = sum(getattr(row, kind) for row in found.rows())
        assert expected.total() == in_use
        expected[IDLE] = UNITS * len(found.kernels) - in_use
        assert +drawn == +expected


def test_each_kernel_has_its_title_and_each_stage_its_line_and_colour(pictured: Pictured) -> None:
    found, root = pictured
    texts = Counter(text.text or "" for text in root.iter(f"{SVG}text"))
    stages = [stage for kernel in found.kernels if kernel.placement for stage in kernel.placement.stages]
    for row in found.rows():
        title = f"{row.kernel}: {row.launches} x {row.iterations}, "
        assert [count for text, count in texts.items() if text.startswith(title)] == [1]
    for stage in stages:
        line = f"{stage.operator.name} ({stage.operator.mode}): {stage.pcus} PCUs, {stage.pmus} PMUs, "
        assert any(text.startswith(line) for text in texts)
    assert len(rects(root, CELL + 3)) == len(stages)
    assert texts.total() == len(stages) + 3 * len(found.kernels)  # a title and the names of the two grids


def test_nothing_is_drawn_outside_or_over_anything_else(pictured: Pictured) -> None:
    _, root = pictured
    width, height = int(root.attrib["width"]), int(root.attrib["height"])
    taken: Counter[tuple[int, int]] = Counter()
    for rect in rects(root, CELL):
        x, y, wide = (int(rect[key]) for key in ("x", "y", "width"))
        assert x >= 0 and x + wide <= width and y >= 0 and y + CELL <= height
        taken.update((at, y) for at in range(x, x + wide, CELL + 1))
    assert set(taken.values()) == {1}
    lines = [(int(text.attrib["x"]), int(text.attrib["y"])) for text in root.iter(f"{SVG}text")]
    assert len(set(lines)) == len(lines) and max(y for _, y in lines) <= height

"""Is a chart drawn where its numbers say, with every tick, label and series, and readable in the dark?"""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from cluster.chart import COLOURS, LEFT, MARGIN, PLOT_HEIGHT, PLOT_WIDTH, TOP, Chart, Series, svg
from cluster.scales import Axis, Scale

SVG = "{http://www.w3.org/2000/svg}"
BOTTOM = MARGIN + TOP + PLOT_HEIGHT


def drawn(*series: Series, x: Axis | None = None, y: Axis | None = None, notes: tuple[str, ...] = ()) -> str:
    return svg([Chart("What", x or Axis("x, s"), y or Axis("y, s"), series, notes)])


def texts(picture: str) -> list[str]:
    return [found.text or "" for found in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def scale(values: list[float], *, log: bool = False, zero: bool = False) -> Scale:
    return Scale(Axis("x", log=log), values, 100, zero=zero)


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0, 10], [0, 2, 4, 6, 8, 10]),
        ([0, 7], [0, 1, 2, 3, 4, 5, 6, 7]),
        ([13, 87], [10, 20, 30, 40, 50, 60, 70, 80, 90]),
        ([0.02, 0.09], [0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09]),
        ([850, 850], [800, 1000]),
        ([], [0, 0.2, 0.4, 0.6, 0.8, 1]),
    ],
)
def test_ticks_are_round_and_reach_over_all_values(values: list[float], ticks: list[float]) -> None:
    found = scale(values)
    assert found.ticks == pytest.approx(ticks)
    assert (found.at(ticks[0]), found.at(ticks[-1])) == pytest.approx((0, 100))


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([1, 1000], [1, 10, 100, 1000]),
        ([0.013, 0.42], [0.02, 0.05, 0.1, 0.2]),
        ([1e-9, 1e7], [1e-9, 1e-6, 1e-3, 1, 1e3, 1e6]),  # of 17 powers every third
    ],
)
def test_ticks_of_a_logarithmic_axis(values: list[float], ticks: list[float]) -> None:
    found = scale(values, log=True)
    assert found.ticks == pytest.approx(ticks)
    assert found.at(values[0]) + found.at(values[-1]) == pytest.approx(100)  # as much room on either side


def test_a_logarithmic_axis_over_a_small_range_is_none() -> None:
    assert scale([80, 180], log=True).ticks == [80, 100, 120, 140, 160, 180] == scale([80, 180]).ticks
    assert scale([3, 3], log=True).ticks == scale([3, 3]).ticks


def test_an_axis_from_zero_has_zero_on_it() -> None:
    assert scale([40, 50], zero=True).at(0) == 0 and scale([40, 50]).at(40) == 0


def test_a_line_goes_through_its_points() -> None:
    picture = drawn(Series("a", [(0, 0), (5, 10), (10, 5)]))
    path = re.search(r'd="(M[^"]*L[^"]*)"', picture)
    assert path is not None
    places = [tuple(map(float, part.split())) for part in re.split("[ML]", path[1])[1:]]
    right, top = LEFT + PLOT_WIDTH, BOTTOM - PLOT_HEIGHT
    assert places == [(LEFT, BOTTOM), (LEFT + PLOT_WIDTH / 2, top), (right, BOTTOM - PLOT_HEIGHT / 2)]


def test_steps_hold_a_value_until_the_next_one_begins() -> None:
    picture = drawn(Series("a", [(0, 0), (5, 10), (10, 10)], "steps"))
    middle, right, top = LEFT + PLOT_WIDTH / 2, LEFT + PLOT_WIDTH, BOTTOM - PLOT_HEIGHT
    corner = f"M{LEFT:.1f} {BOTTOM:.1f}L{middle:.1f} {BOTTOM:.1f}L{middle:.1f} {top:.1f}"
    assert f"{corner}L{right:.1f} {top:.1f}L{right:.1f} {top:.1f}" in picture


def test_bars_of_several_series_stand_side_by_side_with_their_values() -> None:
    names = Axis("machine", names=("one", "two"))
    picture = drawn(Series("hot", [(0, 10), (1, 5)], "bars"), Series("cold", [(0, 2), (1, 0)], "bars"), x=names)
    bars = [rect for rect in ElementTree.fromstring(picture).iter(f"{SVG}rect") if rect.get("fill") in COLOURS]
    bars = [rect for rect in bars if rect.get("width") != "11"]  # the legend's
    spans = sorted((float(rect.attrib["x"]), float(rect.attrib["width"])) for rect in bars)
    assert len(spans) == 4 and all(a + wide <= b for (a, wide), (b, _) in pairwise(spans))
    heights = [float(rect.attrib["height"]) for rect in bars]
    assert heights == pytest.approx([PLOT_HEIGHT, PLOT_HEIGHT / 2, PLOT_HEIGHT / 5, 0])
    assert {"one", "two", "hot", "cold", "machine"} <= set(texts(picture))


def test_every_series_its_axes_and_notes_are_written() -> None:
    picture = drawn(Series("a < b & c", [(1, 1)], "dots"), Series("d", [(2, 3)]), notes=("a note",))
    assert {"a < b & c", "d", "x, s", "y, s", "What", "a note"} <= set(texts(picture))


def test_dots_are_full_or_hollow_and_a_line_of_one_point_is_seen() -> None:
    picture = drawn(Series("a", [(1, 1)], "dots"), Series("b", [(2, 2)], "dots", hollow=True), Series("c", [(3, 3)]))
    circles = [c for c in ElementTree.fromstring(picture).iter(f"{SVG}circle") if float(c.attrib["cx"]) < LEFT + 560]
    assert [c.attrib["fill"] for c in circles] == [COLOURS[0], "none", COLOURS[2]]


def test_an_interval_stands_where_its_dot_is_and_the_axis_has_room_for_it() -> None:
    picture = drawn(Series("a", [(0, 4), (1, 5)], "dots", ends=[(2, 5), (0, 10)]))
    dots = [(c.attrib["cx"], c.attrib["cy"]) for c in ElementTree.fromstring(picture).iter(f"{SVG}circle")]
    bars = re.findall(r'd="M([\d.]+) ([\d.]+)V([\d.]+)"', picture)
    heights = [(BOTTOM - PLOT_HEIGHT * low / 10, BOTTOM - PLOT_HEIGHT * high / 10) for low, high in ((2, 5), (0, 10))]
    assert [x for x, _, _ in bars] == [x for x, _ in dots[:2]]
    assert [(float(low), float(high)) for _, low, high in bars] == heights


def test_what_a_logarithmic_axis_cannot_show_is_left_out() -> None:
    picture = drawn(Series("a", [(0, 1), (1, 0), (10, 10)], "dots"), x=Axis("x", log=True), y=Axis("y", log=True))
    assert picture.count("<circle") == 2  # the point, and the legend's


def test_lines_that_lie_on_one_another_differ_in_their_dashes() -> None:
    picture = drawn(*(Series(name, [(0, 1), (1, 1)]) for name in "abc"))
    assert len(set(re.findall(r'stroke-dasharray="([^"]*)" d="M84', picture))) == 3


def test_labels_do_not_run_into_one_another() -> None:
    axis = Axis("x", show=lambda value: f"{value:,.3f} of a long unit")
    ticks = [words for words in texts(drawn(Series("a", [(0, 0), (10, 1)]), x=axis)) if "long unit" in words]
    assert ticks == ["0.000 of a long unit", "4.000 of a long unit", "8.000 of a long unit"]


def test_panels_stand_below_one_another_within_the_page() -> None:
    one = Chart("One", Axis("x"), Axis("y"), [Series("a", [(0, 1)])], ["first note", "second note"])
    root = ElementTree.fromstring(svg([one, one]))
    heights = [float(t.attrib["y"]) for t in root.iter(f"{SVG}text")]
    assert max(heights) < float(root.attrib["height"])
    half = len(heights) // 2
    assert max(heights[:half]) < min(heights[half:])


def test_light_or_dark_is_the_readers_choice() -> None:
    assert "@media(prefers-color-scheme:dark)" in drawn(Series("a", [(0, 1)]))


def test_nothing_to_draw_is_an_empty_chart() -> None:
    assert "What" in texts(drawn(Series("a", []))) and "What" in texts(drawn())

"""Does the sheet show what is there: outlines where masks end, tints where they differ, and the Dice of each?"""

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image", reason="no pillow here: make samda installs it")

from node.errors import InputError
from samda import sheet
from samda.sheet import FOUND, PANEL, TINT, TRUTH, Row, outline, overlay, write_sheet

GREY = 0.4


def disc(row, column, radius, shape=(60, 80)):
    y, x = np.indices(shape)
    return np.hypot(y - row, x - column) <= radius


def rows():
    pixels = np.full((60, 80), GREY, np.float32)
    truth = disc(30, 40, 15)
    moved = {"plain": disc(30, 48, 15), "exact": truth, "nothing": np.zeros_like(truth)}
    return [
        Row("slice 7", pixels, truth, moved),
        Row("empty", pixels, ~truth & truth, {**moved, "exact": ~truth & truth}),
    ]


def test_an_outline_is_within_the_mask_and_one_pixel_wide():
    mask = np.zeros((7, 8), bool)
    mask[1:6, 2:7] = True
    expected = mask.copy()
    expected[2:5, 3:6] = False
    assert (outline(mask) == expected).all()
    assert outline(np.ones((4, 4), bool)).sum() == 12 and not outline(np.zeros((4, 4), bool)).any()


def test_lines_and_tints_lie_where_masks_do():
    row, found = rows()[0], disc(30, 48, 15)
    seen = np.asarray(overlay(row.pixels, row.truth, found, (80, 60))).astype(int)
    base = round(255 * GREY)
    where = {True: outline(found), False: outline(row.truth) & ~outline(found)}
    assert (seen[where[True]] == FOUND).all() and (seen[where[False]] == TRUTH).all()
    lines = outline(found) | outline(row.truth)
    for only, tint in ((row.truth & ~found & ~lines, TRUTH), (found & ~row.truth & ~lines, FOUND)):
        assert only.any() and np.abs(seen[only] - (base + TINT * (np.array(tint) - base))).max() <= 0.5
    rest = ~lines & (row.truth == found)
    assert (seen[rest] == base).all() and (rest & row.truth).any()


def test_a_panel_is_scaled_with_its_masks():
    row = rows()[0]
    seen = np.asarray(overlay(row.pixels, row.truth, None, (160, 120)))
    assert seen.shape == (120, 160, 3)
    marked = (seen == TRUTH).all(-1)
    y, x = np.nonzero(marked)
    assert (y.min() // 2, y.max() // 2, x.min() // 2, x.max() // 2) == (15, 45, 25, 55)


def test_a_sheet_has_a_panel_for_everything_and_says_dice(tmp_path, monkeypatch):
    written = []
    draw = sheet._write
    monkeypatch.setattr(sheet, "_write", lambda *given: written.append(given[2]) or draw(*given))
    write_sheet(tmp_path / "sheet.png", "fibsem to sstem", rows())
    both = 2 * (disc(30, 40, 15) & disc(30, 48, 15)).sum() / (2 * disc(30, 40, 15).sum())
    first = ["slice 7", f"{disc(30, 40, 15).mean():.1%} foreground", f"Dice {both:.3f}", "Dice 1.000", "Dice 0.000"]
    second = ["empty", "0.0% foreground", "Dice 0.000", "Dice 1.000", "Dice 1.000"]
    heads = ["image", "", "truth", "", "plain", f"mean Dice {both / 2:.3f}", "exact", "mean Dice 1.000"]
    heads += ["nothing", "mean Dice 0.500"]
    assert written == ["fibsem to sstem", *heads, *first, *second, sheet.LEGEND]
    image = np.asarray(Image.open(tmp_path / "sheet.png"))
    panels = (image == round(255 * GREY)).all(-1)
    across = np.nonzero(np.diff(panels.any(0).astype(int)) == 1)[0]
    down = np.nonzero(np.diff((panels.sum(1) > PANEL).astype(int)) == 1)[0]
    assert len(across) == 5 and len(down) == 2
    assert set(np.diff(across)) == {PANEL + sheet.GAP}
    assert set(np.diff(down)) == {PANEL * 60 // 80 + sheet.LINE + sheet.GAP}
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_text_without_room_is_cut_and_stays_in_its_column(tmp_path):
    row = rows()[0]
    for name in ("short", "a name that is longer than its panel is wide " * 3):
        write_sheet(tmp_path / f"{len(name)}.png", "t", [Row(name, row.pixels, row.truth, {"plain": row.truth})])
    short, long = (np.asarray(Image.open(tmp_path / f"{size}.png")) for size in (5, 138 - 3))
    assert (short[:, PANEL + sheet.GAP :] == long[:, PANEL + sheet.GAP :]).all() and (short != long).any()


def test_a_sheet_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"nowhere/sheet.png: cannot be written: No such file or directory"):
        write_sheet(tmp_path / "nowhere" / "sheet.png", "t", rows())

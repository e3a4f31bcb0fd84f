"""Does the report count what the router does, and are labelled prompts read as they are written?"""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.routing.prompts import Prompts, load_prompts
from cluster.routing.report import as_json, report, wilson
from node.errors import InputError

TRAIN = {"cook": ("boil an egg", "tomato soup"), "code": ("sort a list", "unit test"), "any": ()}
GOOD = '[experts.cook]\ntrain = ["boil an egg"]\n'


def test_the_prompts_of_the_project_are_ten_domains_and_the_general_one() -> None:
    own = load_prompts()
    assert own.general == "general" and len(own.train) == 11 and list(own.train) == list(own.held_out)
    assert {len(texts) for texts in own.train.values()} == {60, 64}
    assert {len(texts) for texts in own.held_out.values()} == {10, 20}
    every = [text for part in (own.train, own.held_out) for texts in part.values() for text in texts]
    assert len(set(every)) == len(every) == 784


def test_a_row_counts_right_general_and_the_most_frequent_confusion() -> None:
    held_out = {
        "cook": ("boil a tomato", "egg soup", "unit test of a sort", "tomato soup, hot", "zzz"),
        "code": ("sort an egg soup with tomato", "boil"),
        "any": ("qqq", "boil an egg, please"),
    }
    found = report(Prompts("any", TRAIN, held_out), bound=0.05)
    counts = [
        (row.expert, row.prompts, row.right, row.to_general, row.most_confused, row.confused) for row in found.rows
    ]
    assert counts == [
        ("cook", 5, 3, 1, "code", 1),
        ("code", 2, 0, 0, "cook", 2),
        ("any", 2, 1, 1, "cook", 1),
    ]
    assert (found.overall.prompts, found.overall.right, found.overall.to_general) == (9, 4, 2)
    assert (found.overall.most_confused, found.overall.confused) == ("cook", 3)
    assert (found.examples, found.bound, found.measured_on) == (4, 0.05, "held_out")
    tree = as_json(found)
    assert tree["overall"]["accuracy"] == 4 / 9 and tree["rows"][1]["interval_95"] == wilson(0, 2)  # type: ignore[index]


def test_where_nothing_is_held_out_each_prompt_is_left_out_in_turn() -> None:
    train = {"cook": ("boil eggs", "boil eggs well", "odd"), "code": ("sort lists", "sort lists fast")}
    found = report(Prompts(None, train, dict.fromkeys(train, ())))
    assert found.measured_on == "leave_one_out" and found.overall.prompts == 5
    assert [row.right for row in found.rows] in ([2, 2], [3, 2])  # nothing is like "odd": the first of the list, or not


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662), (0, 0, 0.0, 1.0)],
)
def test_intervals_are_those_of_newcombe(right: int, of: int, low: float, high: float) -> None:
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 3: 81 of 263; the others worked by hand."""
    assert wilson(right, of) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("general = 1\nexpert = 2", "expert: unknown key; there are general, experts"),
        ("", r"experts: needs a table \[experts.NAME\]"),
        ("experts = 3", r"experts: needs a table \[experts.NAME\]"),
        (f'general = "law"\n{GOOD}', "general = 'law': no such expert; there are cook"),
        (f"general = []\n{GOOD}", r"general = \[\]: no such expert; there are cook"),
        ("[experts]\ncook = 1", "experts.cook = 1: must be a table"),
        (f'{GOOD}test = ["a"]', "experts.cook: test: unknown key; there are train, held_out"),
        ('[experts.cook]\ntrain = "a"', "experts.cook.train = 'a': must be a list"),
        (f"{GOOD}held_out = [1]", "experts.cook.held_out, prompt 1 = 1: must be a text"),
        ('[experts.cook]\ntrain = ["a", " "]', "experts.cook.train, prompt 2 = ' ': must be a text that is not empty"),
        (f"{GOOD}[experts.law]", "experts.law.train: needs a prompt"),
        (f'{GOOD}held_out = ["x", "BOIL  an egg"]', "experts.cook.held_out, prompt 2: is in experts.cook.train too"),
        ("[experts", "cannot be read as TOML"),
    ],
)
def test_a_mistake_names_file_and_key(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        load_prompts(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)

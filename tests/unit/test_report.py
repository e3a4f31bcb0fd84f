"""Are a million times binned as by hand, and does the page say what the run came to, whatever things are named?"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from cluster.backends import LocalBackend
from cluster.compare import Column
from cluster.config import Config
from cluster.config_file import read_config
from cluster.report.binned import BINS, distribution, latencies, spent_over_time
from cluster.report.figure import cell, flat, shown
from cluster.report.page import compare_page, differing, run_page
from cluster.report.plot import area, bars, heat, plot, steps
from cluster.requests_table import spent
from cluster.residency import Residents
from cluster.runner import Run, notes, prepare, run
from cluster.scales import Axis, Scale
from node.deployment import Deployment
from node.runtime.ledger import CHARGES
from node.spec_file import load_machine

S, US = 10**12, 10**6


# Binning


def test_times_that_are_alike_are_binned_evenly() -> None:
    found = distribution(np.array([10, 10, 34, 34, 34]) * S)  # 48 bins of half a second from 10 to 34 s
    assert found.edges.tolist() == pytest.approx([10 + 0.5 * edge for edge in range(BINS + 1)])
    assert (found.counts[0], found.counts[-1], found.counts.sum(), found.zero, found.log) == (2, 3, 5, 0, False)


def test_times_that_differ_much_are_binned_by_their_logarithms() -> None:
    times = np.array([0, 1, 3, 1000, 2**47 + 2**44, 2**48])  # 48 bins, each twice as far as the one before; zero apart
    found = distribution(times)
    assert found.edges.tolist() == pytest.approx([2**edge / S for edge in range(BINS + 1)])
    assert {place: int(found.counts[place]) for place in np.flatnonzero(found.counts)} == {0: 1, 1: 1, 9: 1, 47: 2}
    assert (found.zero, found.log) == (1, True)


def test_times_that_are_all_the_same_have_one_bin() -> None:
    same, none = distribution(np.array([5 * S] * 3)), distribution(np.array([0, 0]))
    assert (same.edges.tolist(), same.counts.tolist(), same.zero) == ([5, 5], [3], 0)
    assert (none.counts.tolist(), none.zero) == ([0], 2)
    near = distribution(np.array([1000, 1049]))  # less than 5 % apart
    assert (near.edges.tolist(), near.counts.tolist()) == ([1000 / S, 1049 / S], [2])


def columns(**given: list[int]) -> dict[str, Any]:
    count = len(next(iter(given.values())))
    zeros = {name: [0] * count for name in (*CHARGES, "arrival", "e2e", "ttft", "output_tokens")}
    return {name: np.array(values) for name, values in (zeros | given).items()}


def test_warmup_is_left_out_and_one_token_has_no_time_per_token() -> None:
    rows = columns(e2e=[9 * S, 7 * S, 4 * S], ttft=[S, S, 2 * S], output_tokens=[5, 4, 1], queue=[S, 0, S])
    found = latencies(rows, slice(1, None))
    assert found["tpot_s"].edges.tolist() == [2, 2]  # (7 - 1) / 3
    assert (found["e2e_s"].counts.sum(), found["queue"].zero) == (2, 1)
    assert "tpot_s" not in latencies(rows, slice(2, None))


def test_time_is_charged_to_the_bin_in_which_a_request_ended() -> None:
    residents = Residents(4, np.array([0, 4, 8, 10]) / US, *(np.zeros(1) for _ in range(5)))  # type: ignore[arg-type]
    rows = columns(
        arrival=[0, US, 5 * US], e2e=[3 * US, 2 * US, 4 * US], queue=[US, 0, 0], decode=[2 * US, 2 * US, 4 * US]
    )
    ended, means = spent_over_time(rows, residents)
    assert ended.tolist() == [2, 0, 1]
    by_charge = dict(zip(CHARGES, (means * US).tolist(), strict=True))
    assert by_charge.pop("queue") == pytest.approx([0.5, 0, 0]) and by_charge.pop("decode") == pytest.approx([2, 0, 4])
    assert set(map(tuple, by_charge.values())) == {(0, 0, 0)}
    assert spent(rows) == dict.fromkeys(CHARGES, 0.0) | {"queue": US / 3 / S, "decode": 8 * US / 3 / S}


# Pictures


def test_shapes_are_where_their_numbers_say() -> None:
    xs, ys = np.array([0.0, 500, 1000]), np.array([10.0, 40])
    assert 'd="M0.0 90.0L500.0 90.0L500.0 60.0L1000.0 60.0"' in steps(xs, ys, 100, "s1")
    there, back = "M0.0 90.0L500.0 90.0L500.0 60.0L1000.0 60.0", "L1000.0 95.0L500.0 95.0L500.0 100.0L0.0 100.0z"
    assert f'd="{there}{back}"' in area(xs, np.array([0.0, 5]), ys, 100, "k1")


def test_heat_joins_bins_of_one_level() -> None:
    scale = Scale(Axis("time"), [0.0, 4.0], 1000, zero=True, tight=True)
    shares = np.array([[0, 0.1, 0.2, 1.0], [0.21, 0, 0, 0]])
    picture = heat(scale, ["7", "<9>"], shares, np.array([0.0, 250, 500, 750, 1000]), "words")
    found = dict(re.findall(r'class="heat h(\d)" d="([^"]*)"', picture))
    assert found == {
        "1": "M250.0 1h500.0v13h-500.0z",
        "5": "M750.0 1h250.0v13h-250.0z",
        "2": "M0.0 16h250.0v13h-250.0z",
    }
    assert "&lt;9&gt;" in picture and "<9>" not in picture


def test_bars_lie_one_after_another() -> None:
    picture = bars([("a & b", "3 s", [("k1", 0.25), ("k2", 0.5)])], "a 'said' <word>")
    assert re.findall(r'class="(\w+)" x="([\d.]+)%?" y="18" width="([\d.]+)%', picture) == [
        ("track", "0", "100"), ("k1", "0.00", "25.00"), ("k2", "25.00", "50.00"),
    ]  # fmt: skip
    assert "a &amp; b" in picture and "&lt;word&gt;" in picture


def test_labels_are_as_many_as_a_phone_has_room_for() -> None:
    up = Scale(Axis("y"), [0.0, 10.0], 65, zero=True)
    for low, words in (
        (0.0, ["0", "10", "20", "30", "40", "50"]),
        (10**9, ["1,000,000,000", "1,000,000,020", "1,000,000,040"]),
    ):
        across = Scale(Axis("x"), [low, low + 50], 1000, zero=False, tight=True)
        picture = plot(across, up, 65, (), (), "said")
        assert re.findall(r'y="82.0" text-anchor="middle">([^<]+)<', picture) == words
    assert re.findall(r'text-anchor="end">([^<]+)<', picture) == ["0", "4", "8"]  # 65 px for six


def test_a_tight_axis_ends_with_its_values() -> None:
    even = Scale(Axis("x"), [3.0, 52.0], 100, zero=False, tight=True)
    assert (even.at(3), even.at(52)) == (0, 100) and even.ticks == [10, 20, 30, 40, 50]
    log = Scale(Axis("x", log=True), [0.5, 5000.0], 100, zero=False, tight=True)
    assert (log.at(0.5), log.at(5000)) == pytest.approx((0, 100)) and log.ticks == [1, 10, 100, 1000]


# Pages


def test_numbers_are_written_with_the_unit_that_their_name_tells() -> None:
    numbers = {
        "ttft_s.p50": (0.012, "12 ms"), "makespan_s": (3.0, "3 s"), "throughput_requests_per_s": (1234.5, "1,234.50"),
        "bytes_ddr_to_hbm": (2**40, "1.0 TiB"), "hit_rate": (0.625, "62.5%"), "requests": (1000, "1,000"),
        "hit_rate_belady_is_bound": (True, "yes"), "tpot_s": (None, "-"), "machine": ("m", "m"),
    }  # fmt: skip
    assert {name: shown(name, value) for name, (value, _) in numbers.items()} == {n: w for n, (_, w) in numbers.items()}
    assert cell("makespan_s", 3.0, "a/") == ("3 s", "a/makespan_s", 3.0)


def test_only_what_is_not_the_default_and_changes_a_result_is_listed() -> None:
    settings = {
        "runtime.batch": 4,
        "seed": 2,
        "cluster.window": "1 s",
        "runtime.eviction": "lru",
        "machine.hbm.capacity": "70 GB",
    }
    assert dict(differing(read_config(None, settings.items()))) == {
        "seed": "2", "runtime.batch": "4", "machine.hbm.capacity": "70 GB",
    }  # fmt: skip


class Found(HTMLParser):
    """Tags, numbers by name with what is written, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.numbers: dict[str, set[tuple[str, str]]] = {}
        self.words = ""
        self._of: tuple[str, str] | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = dict(attrs)
        self._of = (str(given["data-name"]), str(given["value"])) if tag == "data" else None

    def handle_data(self, data: str) -> None:
        self.words += data
        if self._of is not None:
            name, value = self._of
            self.numbers.setdefault(name, set()).add((value, data))
            self._of = None


def served(**settings: object) -> tuple[Config, Run]:
    named = {key.replace("__", ".", 1): value for key, value in settings.items()}
    config = read_config(None, {"cluster.backend": "local", "workload.requests": 40, **named}.items())
    return config, run(config, LocalBackend(), prepare(config))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"workload__output_tokens": 1},  # no time per token
        {"workload__requests": 1, "experts__router": "none", "workload__input_tokens": 64},
        {"sharding__tensor_parallel": 2, "runtime__prefetch": True, "workload__warmup": 3},
        {"workload__arrivals": "at_once", "experts__count": 1},
        {"routing__nodes": 3, "routing__policy": "least_loaded"},
    ],
)
def test_every_number_of_the_summary_is_on_the_page(settings: dict[str, object]) -> None:
    config, result = served(**settings)
    page = run_page(config, result, ["a note & more"])
    found = Found(page)
    expected = dict(flat(result.summary))
    for name, value in expected.items():
        assert {(repr(json.loads(raw)), words) for raw, words in found.numbers[name]} == {
            (repr(value), shown(name, value))
        }
    assert "a note & more" in found.words and "nan" not in page.lower().replace("<!doctype", "")
    assert page == run_page(config, result, ["a note & more"])
    assert "script" not in found.tags and len(page) < 400_000


def test_the_page_of_several_nodes_has_a_row_for_each_of_them() -> None:
    config, result = served(routing__nodes=41, sharding__tensor_parallel=4)
    page = run_page(config, result, ())
    found, nodes = Found(page), result.summary["nodes"]
    assert isinstance(nodes, list) and "41 x SambaNova SN40L node" in page and "The first 16 of 41 nodes" in page
    for number, node in enumerate(nodes):
        for name, value in flat(node):
            assert {json.loads(raw) for raw, _ in found.numbers[f"nodes.{number}.{name}"]} == {value}
    assert dict(flat(nodes[40])) == {"completed": 0, "hit_rate": None, "utilisation": 0.0, "ttft_s.p99": None}
    assert "The mean of 41 nodes" in page


def test_names_of_users_are_words_and_never_tags() -> None:
    evil = "<script>alert(1)</script>"
    machine = load_machine("sn40l-node", {"hbm.capacity": {"value": "60 GB", "kind": "assumed", "source": evil}})
    object.__setattr__(machine, "name", evil)
    object.__setattr__(machine, "title", evil)
    config = read_config(None, {"cluster.backend": "local", "workload.requests": 10}.items())
    prepared = prepare(config, machine)
    result = run(config, LocalBackend(), prepared)
    column = Column(evil, result.summary, (), 1.0, spent(result.columns))
    for page in (run_page(config, result, [evil]), compare_page(config, [(evil, machine)], [column, column], [evil])):
        found = Found(page)
        assert "script" not in found.tags and evil in found.words and evil not in page


def test_a_note_of_the_run_is_on_its_page(deploy: Callable[..., Deployment]) -> None:
    config, result = served(workload__requests=200, workload__rate=1000)
    told = notes(result, config.workload.over_context)
    assert told and all(note in Found(run_page(config, result, told)).words for note in told)

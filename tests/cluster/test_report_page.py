"""Is the page right in a real browser: silent, complete, off the network, readable at any width, light and dark?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import CHROMIUM, Page, browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; make test-deps installs Debian's")
Coe = Callable[..., Any]  # a line -> code, out, err
EVIL = "<script>alert(1)</script>"
RUN = "run --backend local --output out --set workload.requests="
CASES = {
    "a run": f"{RUN}60",
    "groups, prefetch": f"{RUN}60 --set sharding.tensor_parallel=2 --set runtime.prefetch=true",
    "nodes": f"{RUN}60 --set routing.nodes=3 --set routing.policy=expert_affinity",
    "classes": f"{RUN}60 --set workload.rate=30 --set runtime.queue_limit=9 --set slo.e2e=900ms "
    f'--set \'slo.classes=[{{name="{EVIL}"}},{{name="b",priority=2,ttft="400 ms"}}]\' --set runtime.shed_late=true',
    "overload": f"{RUN}300 --set workload.rate=1000 --set workload.output_tokens=1",
    "one request": f"{RUN}1 --set experts.count=1 --set experts.router=none",
    "a machine with a name": f"{RUN}20 --machine evil.toml",
    "a comparison": "compare --backend local --output out --set workload.requests=20",
    "a comparison with a name": "compare --backend local --output out --limit 9 --machines evil.toml,dgx-h100",
}
NUMBERS = "[...document.querySelectorAll('data')].map(e => [e.dataset.name, e.value, e.textContent])"
PICTURES = """[...document.querySelectorAll('figure')].map(figure => ({
  title: figure.querySelector('h3').textContent,
  tables: [...figure.querySelectorAll('table')].map(t => t.querySelectorAll('td').length),
  pictures: [...figure.querySelectorAll('svg[role=img]')].map(svg => {
    const box = svg.getBoundingClientRect();
    return {said: svg.getAttribute('aria-label'), width: box.width, height: box.height,
            shapes: svg.querySelectorAll('path, rect').length};
  })}))"""
# texts of pictures that are out of the window or that lie on one another
BAD_TEXTS = """[...document.querySelectorAll('svg[role=img]')].flatMap(svg => {
  const texts = [...svg.querySelectorAll('text')].filter(t => t.textContent).map(t => [t, t.getBoundingClientRect()]);
  const out = texts.filter(([t, b]) => b.left < 0 || b.right > document.documentElement.clientWidth);
  const over = texts.filter(([t, b], i) => texts.slice(0, i).some(([o, c]) =>
    b.left < c.right && c.left < b.right && b.top + 3 < c.bottom && c.top + 3 < b.bottom));
  return [...out, ...over].map(([t, b]) => svg.getAttribute('aria-label').slice(0, 40) + ': ' + t.textContent);
})"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as found:
        yield found


@pytest.fixture(params=CASES)
def made(request: pytest.FixtureRequest, coe: Coe, tmp_path: Path) -> Path:
    """A folder of results."""
    title = f'name = "{EVIL}"\ntitle = "{EVIL} & \'more\'"\n'
    (tmp_path / "evil.toml").write_text(f'base = "sn40l-node"\n{title}')
    said = coe(CASES[request.param])
    assert said.code == 0, said.err
    return tmp_path / "out"


def test_the_page_in_a_browser(page: Page, made: Path) -> None:
    results = made / ("summary.json" if (made / "summary.json").exists() else "compare.json")
    expected = dict(_numbers(json.loads(results.read_text())))
    papers = {}
    for width, dark in ((1280, False), (1280, True), (375, False), (375, True)):
        page.open(made / "report.html", width, dark=dark)
        assert page.said == [], "nothing on the console"
        assert page.asked == [(made / "report.html").as_uri()], "nothing of a network"
        assert page.evaluate("document.scripts.length") == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(BAD_TEXTS) == []
        _check_figures(page.evaluate(PICTURES), width)
        papers[dark] = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert papers[False] != papers[True]
    shown = page.evaluate(NUMBERS)
    assert {name: json.loads(value) for name, value, _ in shown} == {name: expected[name] for name, *_ in shown}
    assert all(words for *_, words in shown)
    if results.name == "summary.json":
        # equal sockets are shown once; there may be hundreds of experts, which are in the file alone
        alike = {name for name in expected if name.startswith(("sockets.", "experts."))}
        assert set(expected) - alike <= {name for name, *_ in shown}
    else:
        labels = {name.rpartition("/")[0] for name in expected}
        assert {name for name, *_ in shown} == {f"{label}/{metric}" for label in labels for metric in _metrics(made)}
    if EVIL in json.dumps(expected):
        assert EVIL in page.evaluate("document.body.innerText")


def test_the_browser_would_tell(page: Page, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text('<script>console.warn("no")</script><img src="other.png"><p style="width:999px">wide</p>')
    page.open(bad, 375)
    assert any("no" in said for said in page.said) and [url.split("/")[-1] for url in page.asked] == [
        "bad.html",
        "other.png",
    ]
    assert page.evaluate("document.documentElement.scrollWidth") > 375


def _check_figures(figures: list[Any], width: int) -> None:
    assert len(figures) >= 10
    for figure in figures:
        assert figure["tables"] and min(figure["tables"]) >= 2, figure["title"]
        assert figure["pictures"] or figure["title"] == "Side by side"
        for picture in figure["pictures"]:
            assert len(picture["said"]) > 30 and picture["shapes"] >= 2, figure["title"]
            assert 200 <= picture["width"] <= width and picture["height"] >= 15, figure["title"]


def _numbers(results: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every number by its path; of a comparison: label/path."""
    if "first_is_better_by" in results:
        for machine in results["machines"]:
            yield from _numbers({k: v for k, v in machine.items() if k != "label"}, f"{machine['label']}/")
        return
    for key, value in results.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            for index, one in enumerate(value):
                yield from _numbers(one if isinstance(one, dict) else {"": one}, f"{prefix}{key}.{index}.")
        else:
            yield prefix + key, value


def _metrics(made: Path) -> list[str]:
    return list(next(iter(json.loads((made / "compare.json").read_text())["first_is_better_by"].values())))

"""Do the specs hold what the fit to published points says, and does the emulator meet those points?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster import calibration
from cluster.backends import LocalBackend
from cluster.calibration import FITS, Fit, solve
from cluster.config_file import parse_setting, read_config
from cluster.published import call_settings
from cluster.runner import prepare, run
from node.estimate import Call, estimate
from node.models.hugging_face import load_shape
from node.spec import Machine
from node.spec_file import load_machine

# machine, model, tokens in and out, batch: published seconds of the call (reference/sn40l.md, sections 4 and 5)
PUBLISHED = {
    ("sn40l-node", "llama-3-8b", 1024, 1024, 1): 1.584,
    ("sn40l-node", "llama-2-7b", 128, 20, 1): 0.066,
    ("dgx-a100", "llama-2-7b", 128, 20, 1): 0.1365,
    ("dgx-a100", "llama-2-7b", 128, 20, 8): 0.1819,
    ("dgx-h100", "llama-2-7b", 128, 20, 1): 0.0976,
    ("dgx-h100", "llama-2-7b", 128, 20, 8): 0.1291,
}
PARAMETERS = {
    "sn40l-node": {"kernel.sync", "host.call_overhead"},
    "dgx-a100": {"kernel.launch_so", "compute.efficiency"},
    "dgx-h100": {"kernel.launch_so", "compute.efficiency"},
}
ROUNDS = 3
BY_MACHINE = pytest.mark.parametrize("fit", FITS, ids=[fit.machine for fit in FITS])
Solved = dict[str, tuple[float, float]]
SCALE = {"us": 1e-6, "ms": 1e-3, "": 1.0}


@pytest.fixture(scope="module")
def solved() -> Solved:
    """What each fit says, by machine."""
    return {fit.machine: solve(fit) for fit in FITS}


def number(machine: Machine, path: str) -> float:
    table, name = path.split(".")
    return float(getattr(getattr(machine, table), name))


def test_nothing_is_fitted_but_what_may_be_and_to_what_it_may_be() -> None:
    points = {
        (fit.machine, p.model, p.call.input_tokens, p.call.output_tokens, p.call.batch): p.published_s
        for fit in FITS
        for p in fit.points
    }
    assert points == PUBLISHED
    assert {fit.machine: {path for path, _ in fit.parameters} for fit in FITS} == PARAMETERS


@BY_MACHINE
def test_the_specs_hold_what_the_fit_says_to_three_digits(fit: Fit, solved: Solved) -> None:
    machine = load_machine(fit.machine)
    for (path, unit), value in zip(fit.parameters, solved[fit.machine], strict=True):
        assert number(machine, path) == pytest.approx(value * SCALE[unit], rel=5e-4), path
        figure = next(figure for figure in machine.figures if figure.path == path)
        assert figure.kind == "derived" and figure.source.startswith("fitted to ")


@BY_MACHINE
def test_the_fit_meets_its_points_and_the_specs_meet_them_within_three_percent(fit: Fit, solved: Solved) -> None:
    machine = load_machine(fit.machine)
    said = {
        path: f"{value:.9g} {unit}" for (path, unit), value in zip(fit.parameters, solved[fit.machine], strict=True)
    }
    for point in fit.points:
        shape = load_shape(point.model)
        assert estimate(load_machine(fit.machine, said), shape, point.call).total_s == pytest.approx(
            point.published_s, rel=1e-6
        )
        assert estimate(machine, shape, point.call).total_s == pytest.approx(point.published_s, rel=0.03)


@pytest.mark.parametrize("key", PUBLISHED, ids=[f"{key[0]}-{key[1]}-batch-{key[4]}" for key in PUBLISHED])
def test_a_run_of_the_whole_emulator_takes_what_the_fit_counts_with(key: tuple[str, str, int, int, int]) -> None:
    machine, model, tokens_in, tokens_out, batch = key
    settings = (
        "cluster.backend=local",
        f"machine.name={machine}",
        *call_settings(model, (tokens_in, tokens_out), batch),
    )
    config = read_config(None, map(parse_setting, settings))
    columns = run(config, LocalBackend(), prepare(config)).columns
    spent = (columns["e2e"] - columns["switch"]).tolist()
    assert len(set(spent)) == 1 and not columns["queue"].any()
    found = estimate(load_machine(machine), load_shape(model), Call(tokens_in, tokens_out, batch))
    assert spent[0] / 1e12 == pytest.approx(found.total_s, rel=1e-9)
    assert spent[0] / 1e12 == pytest.approx(PUBLISHED[key], rel=0.03)


def test_the_command_prints_what_the_specs_should_say(
    solved: Solved, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calibration, "solve", lambda fit: solved[fit.machine])
    calibration.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    for line in lines:
        machine, rest = line.split(": ")
        path, value = rest.rpartition(" (")[0].split(" = ")
        figures = {figure.path: figure.value for figure in load_machine(machine).figures}
        assert figures[path] == value


def test_points_that_cannot_be_met_are_not_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = FITS[0]
    monkeypatch.setattr(calibration, "_ROUNDS", ROUNDS)
    solve(fit)  # so many rounds are enough for points that can be met
    impossible = tuple(replace(point, published_s=1e-5) for point in fit.points)
    with pytest.raises(RuntimeError, match="the fit does not settle"):
        solve(replace(fit, points=impossible))  # type: ignore[arg-type]

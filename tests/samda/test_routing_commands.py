"""From folders of images to a trace that coe run reads, and what is refused in one line."""

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("torch", reason="no PyTorch here: make samda installs it")

import torch
from click.testing import CliRunner

from cluster.cli import coe
from cluster.traces import read_trace
from node.errors import InputError
from samda.cli import COMMANDS
from samda.images import read_images
from samda.routing.files import load_router
from tests.samda.invoked import run


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A synthetic set, and a router between its domains."""
    folder = tmp_path_factory.mktemp("routing")
    run("synthesise", folder / "set", "--images", 5, "--size", 160, "--seed", 3)
    domains = (folder / "set" / "fibsem", folder / "set" / "sstem")
    said = run("fit-router", *domains, *encoder(folder), "--held-out", 0.4, "--output", folder / "router").output
    assert "4 of 4 images held out are told rightly by hed" in said and str(folder / "router") in said
    return folder


def encoder(folder):
    return "--encoder", "hed", "--cache", folder / "cache", "--threads", 1


def test_images_reach_the_experts_of_their_domains(folder, tmp_path):
    run("synthesise", tmp_path / "new", "--images", 2, "--size", 160, "--seed", 4)
    given = (
        tmp_path / "new" / "sstem",
        tmp_path / "new" / "fibsem" / "001.png",
        tmp_path / "new" / "fibsem" / "000.png",
    )
    trace = tmp_path / "trace.jsonl"
    asked = ("--classifier", folder / "router", "--cache", folder / "cache", "--threads", 1, "--rate", 4)
    said = run("route", *given, *asked, "--output", trace).output
    assert read_trace(trace).experts.tolist() == [1, 1, 0, 0]
    assert read_trace(trace).arrival_ps.tolist() == [0, 250 * 10**9, 500 * 10**9, 750 * 10**9]
    assert [line.split()[:4] for line in said.splitlines() if line.startswith(("fibsem", "sstem"))] == [
        ["fibsem", "0", "2", "2"], ["sstem", "1", "2", "2"],
    ]  # fmt: skip
    run("route", *given, *asked, "--requests", 9, "--seed", 1, "--output", trace)
    experts = read_trace(trace).experts
    assert len(experts) == 9 and experts[:4].sum() == experts[4:8].sum() == 2


def test_coe_run_serves_such_a_trace(folder, tmp_path):
    trace = tmp_path / "trace.jsonl"
    run("route", folder / "set" / "sstem", "--classifier", folder / "router", "--cache", folder / "cache",
        "--threads", 1, "--output", trace)  # fmt: skip
    settings = ("--set", f"workload.trace={trace}", "--set", "experts.count=2", "--output", tmp_path / "run")
    result = CliRunner().invoke(coe, ["run", "--backend", "local", *map(str, settings)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["requests"] == 5 and summary["experts"]["activations"] == [0, 1]


def test_the_same_seed_fits_the_same_router_and_another_holds_out_others(folder, tmp_path):
    domains = (folder / "set" / "fibsem", folder / "set" / "sstem")
    found = {}
    for name, seed in (("again", 0), ("other", 1)):
        run("fit-router", *domains, *encoder(folder), "--held-out", 0.4, "--seed", seed, "--output", tmp_path / name)
        found[name] = load_router(tmp_path / name).classifier.weights
    first = load_router(folder / "router").classifier
    assert (found["again"] == first.weights).all() and (found["other"] != first.weights).any()
    assert first.domains == ("fibsem", "sstem") and first.weights.shape == (2, 1024)


def test_what_cannot_be_fitted_is_one_line(folder, tmp_path):
    one = folder / "set" / "fibsem"
    output = ("--output", tmp_path / "router")
    few, named_so = tmp_path / "few", tmp_path / "fibsem"
    for made, images in ((few, 2), (named_so, 3)):
        made.mkdir()
        for number in range(images):
            shutil.copy(one / f"{number:03}.png", made)
    for folders, said in (
        ([one], "is one domain: give a folder of images for each of two or more"),
        ([one, named_so], "fibsem, fibsem: domains are called as their folders, whose names must differ"),
        ([one, few], "few: has 2 images: a domain needs 3 at least"),
        ([one, tmp_path / "nowhere"], "nowhere: there is no such folder"),
    ):
        assert said in str(run("fit-router", *folders, *encoder(folder), *output, raises=InputError).exception)
    error = run("fit-router", one, few, "--output", folder / "router", raises=InputError).exception
    assert "exists already" in str(error) and not (tmp_path / "router").exists()


def test_what_cannot_be_routed_is_one_line(folder, tmp_path):
    image, output = folder / "set" / "sstem" / "000.png", ("--output", tmp_path / "trace.jsonl")
    router = ("--classifier", folder / "router", "--cache", folder / "cache")
    for arguments, said in (
        ((image, *router, "--encoder", "random", *output), "was fitted to embeddings of hed"),
        ((image, "--classifier", folder / "set", *output), "router.json: cannot be read"),
        ((tmp_path / "no.png", *router, *output), "no.png: cannot be read as an image"),
        ((image, *router, "--output", tmp_path / "nowhere" / "t"), "cannot be written: No such file or directory"),
    ):
        assert said in str(run("route", *arguments, raises=InputError).exception)
    assert not (tmp_path / "trace.jsonl").exists()


def test_pictures_are_read_as_they_lie(folder):
    cases = read_images(folder / "set" / "sstem")
    assert len(cases) == 5 and all(case.truth.any() for case in cases)
    assert np.allclose(cases[0].pixels * 255, np.round(cases[0].pixels * 255), atol=1e-4)


def test_every_command_is_there_with_help():
    for command in COMMANDS:
        assert f"Usage: coe samda {command} " in run(command, "--help").output

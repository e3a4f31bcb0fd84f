"""Do train, adapt and segment work on a user's folders, go on where they were ended, and refuse in one line?"""

import shutil
import subprocess
import sys

import pytest

pytest.importorskip("torch", reason="no PyTorch here: make samda installs it")

import torch
from click.testing import CliRunner

import samda.expert_folder
import samda.training
from cluster.cli import coe
from node.errors import InputError
from samda.checkpoint import load_expert
from samda.images import read_images
from samda.inference import segment
from samda.learning import held_out
from samda.plan import WIDTHS
from samda.recipe import adaptation_steps
from tests.samda.drawn import TINY, Blurred, disc_cases, write_folder
from tests.samda.invoked import run


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Experts as small as test images ask for, and an encoder that takes no time."""
    monkeypatch.setitem(WIDTHS, "small", TINY)
    monkeypatch.setattr("samda.cli_options.make_encoder", lambda name, **_: Blurred())
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_folder(folder / "source", disc_cases(5))
    write_folder(folder / "target", disc_cases(2, first=20, contrast=-0.2))
    write_folder(folder / "unlabelled", disc_cases(2, first=30, contrast=-0.2), masks=False)
    return folder


def weights(folder):
    return load_expert(folder).model.state_dict()


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


QUICK = ("--threads", 1, "--steps", 3)


def test_from_a_users_folders_to_masks(data, tmp_path):
    expert, fitted, masks = tmp_path / "expert", tmp_path / "fitted", tmp_path / "masks"
    cache = ("--encoder", "hed", "--cache", tmp_path / "cache")
    said = run("train", "--data", data / "source", "--output", expert, *QUICK).output
    assert "4 images to train on, 1 for validation" in said and "patches of 64 x 64, 2 a step" in said
    target = ("--data", data / "target", "--unlabelled", data / "unlabelled", "--confidence", 0.5)
    run("adapt", expert, *target, "--output", fitted, *cache, *QUICK)
    found = load_expert(fitted)
    assert found.composition.kind == "adapter" and found.composition.encoder.name == "blurred"
    assert found.trained["images"] == 4 and found.trained["before"]["images"] == 4
    assert not equal(weights(expert), {name: found.model.state_dict()[name] for name in weights(expert)})
    said = run("segment", fitted, "--data", data / "source", "--output", masks, *cache, "--threads", 1).output
    assert "Beside the masks of 5 of 5 images" in said and "mean" in said
    plain_masks = tmp_path / "plain"
    run("segment", expert, "--data", data / "unlabelled", "--output", plain_masks, "--threads", 1)
    for image in (data / "unlabelled").iterdir():
        shutil.copy(image, plain_masks)
    emulated = tmp_path / "emulated"
    arguments = (expert, "--data", data / "unlabelled", "--output", emulated, "--threads", 1, "--sockets", 2)
    assert "On 2 emulated sockets of sn40l-node: " in run("segment", *arguments).output
    for mask in emulated.iterdir():
        assert mask.read_bytes() == (plain_masks / mask.name).read_bytes()
    case = read_images(plain_masks)[0]
    found = load_expert(expert)
    assert (case.truth == segment(found.model, found.plan, case, None)).all()


@pytest.mark.parametrize("command", ["train", "adapt"])
def test_a_training_that_was_ended_goes_on_to_the_same_expert(data, tmp_path, monkeypatch, command):
    monkeypatch.setattr("samda.training.SAVED_EVERY_S", 0)
    whole, ended = tmp_path / "whole", tmp_path / "ended"
    rest = [*QUICK, "--data", data / "source"]
    if command == "adapt":
        run("train", *rest, "--output", tmp_path / "expert")
        rest = [tmp_path / "expert", *QUICK, "--data", data / "target", "--unlabelled", data / "unlabelled"]
    run(command, *rest, "--output", whole)
    advance, steps = samda.training.Training.advance, []

    def interrupted(training):
        if len(steps) == (5 if command == "adapt" else 2):  # of an adaptation: in its self-training
            raise KeyboardInterrupt
        steps.append(training.step)
        advance(training)

    monkeypatch.setattr("samda.training.Training.advance", interrupted)
    result = CliRunner().invoke(coe, ["samda", command, *map(str, rest), "--output", str(ended)])
    assert result.exit_code == 1 and not ended.exists() and (tmp_path / "ended.partial").exists()
    steps.append("gone on")
    monkeypatch.setattr("samda.training.Training.advance", lambda training: (steps.append(1), advance(training)))
    run(command, *rest, "--output", ended)
    assert steps[-1] == 1 and steps.count(1) - steps[:2].count(1) < 4  # what was done is not done again
    assert equal(weights(whole), weights(ended)) and not (tmp_path / "ended.partial").exists()


def test_what_was_begun_with_other_settings_does_not_go_on(data, tmp_path, monkeypatch):
    def stop(training):
        raise KeyboardInterrupt

    monkeypatch.setattr("samda.training.Training.advance", stop)
    rest = ["--data", data / "source", "--output", tmp_path / "out"]
    CliRunner().invoke(coe, ["samda", "train", *map(str, (*rest, *QUICK))])
    with pytest.raises(InputError, match=r"out\.partial: was begun with another seed \(0, not 1\)"):
        run("train", *rest, *QUICK, "--seed", 1)


def test_the_parts_that_are_named_learn_alone(data, tmp_path):
    expert, fitted = tmp_path / "expert", tmp_path / "fitted"
    run("train", "--data", data / "source", "--output", expert, *QUICK)
    run("adapt", expert, "--data", data / "target", "--output", fitted, *QUICK, "--train-only", "decoder")
    before, after = weights(expert), weights(fitted)
    moved = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"decoder"}


def test_an_adaptation_takes_steps_by_its_images_and_self_training_draws_anew(data, tmp_path, monkeypatch):
    recipes, trained = [], samda.expert_folder.train
    monkeypatch.setattr("samda.cli_adapt.adaptation_steps", lambda shots: 1 + shots)
    monkeypatch.setattr("samda.expert_folder.train", lambda *all_of: (recipes.append(all_of[3]), trained(*all_of))[1])
    run("train", "--data", data / "source", "--output", tmp_path / "expert", *QUICK)
    target = ("--data", data / "target", "--unlabelled", data / "unlabelled", "--threads", 1)
    run("adapt", tmp_path / "expert", *target, "--output", tmp_path / "fitted", "--seed", 4)
    assert [(recipe.steps, recipe.seed) for recipe in recipes] == [(3, 0), (3, 4), (3, 5)]
    assert adaptation_steps(0) == 60 and adaptation_steps(5) == 120


def test_an_encoder_that_is_missing_or_another_is_one_line(data, tmp_path, monkeypatch):
    concat, cache = tmp_path / "concat", ("--encoder", "hed", "--cache", tmp_path / "cache")
    run("train", "--data", data / "source", "--output", concat, *QUICK, *cache)
    assert load_expert(concat).composition.kind == "concat"
    use = ("segment", concat, "--data", data / "target", "--output", tmp_path / "masks")
    with pytest.raises(InputError, match=r"was made with the encoder blurred \(0000000000000000\): give it"):
        run(*use)
    other = Blurred()
    other.hash = "1" * 64
    monkeypatch.setattr("samda.cli_options.make_encoder", lambda name, **_: other)
    with pytest.raises(InputError, match=r"but --encoder is blurred \(1111111111111111\): other weights"):
        run(*use, *cache)
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--data", "{data}/nothing", "--output", "{out}"], "there is no such folder"),
        (["train", "--data", "{data}/unlabelled", "--output", "{out}"], "no masks"),
        (["train", "--data", "{data}/source", "--output", "{data}"], "exists already"),
        (["adapt", "{data}", "--data", "{data}/target", "--output", "{out}"], "expected the folder of an expert"),
        (["segment", "{data}", "--data", "{data}/target", "--output", "{out}"], "expected the folder of an expert"),
    ],
)
def test_what_cannot_be_used_is_one_line(data, tmp_path, arguments, said):
    with pytest.raises(InputError, match=said):
        run(*[text.format(data=data, out=tmp_path / "out") for text in arguments])


def test_the_last_fifth_is_held_out(tmp_path):
    cases = disc_cases(11)
    trained, chosen_by = held_out(tmp_path, cases)
    assert (trained, chosen_by) == (cases[:9], cases[9:])


def test_one_image_cannot_be_held_out_from_itself(tmp_path):
    write_folder(tmp_path / "one", disc_cases(1))
    with pytest.raises(InputError, match="0 of its 1 images are for training"):
        run("train", "--data", tmp_path / "one", "--output", tmp_path / "out")
    with pytest.raises(InputError, match="'depth': must be of encoder, decoder, adapter"):
        run("train", "--data", tmp_path / "one", "--validation", tmp_path / "one", "--output", tmp_path / "it", *QUICK)
        run("adapt", tmp_path / "it", "--data", tmp_path / "one", "--output", tmp_path / "out", "--train-only", "depth")


LACKING = """
import sys
sys.modules["torch"] = None
sys.argv = ["coe", *{arguments}]
from cluster.__main__ import main
main()
"""


def test_without_pytorch_it_is_one_line_and_all_else_works():
    def said(*arguments):
        code = LACKING.format(arguments=list(arguments))
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    lacking = said("samda", "train", "--data", "x")
    assert lacking.returncode == 2 and lacking.stderr.count("\n") == 1
    assert lacking.stderr.startswith("coe: error: coe samda train: the package torch is not installed here: make samda")
    assert said("machines").returncode == 0


def test_coe_does_not_load_pytorch_where_it_is_not_needed():
    code = (
        "import sys\nfrom cluster.cli import coe\ncoe(['-h'], standalone_mode=False)\nassert 'torch' not in sys.modules"
    )
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert listed.returncode == 0, listed.stderr
    assert "samda" in listed.stdout

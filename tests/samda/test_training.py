"""Does training learn, does it go on after a pause to the same bits, and does it keep the weights that were best?"""

from dataclasses import replace

import pytest

pytest.importorskip("torch", reason="no PyTorch here: make samda installs it")

import torch

from node.errors import InputError
from samda.composition import Composition, EncoderFacts, composed, with_adapter
from samda.recipe import Images, Recipe
from samda.scores import mean_score
from samda.self_training import pseudo_labelled
from samda.training import Training, evaluate, train
from tests.samda.drawn import Blurred, Kept, disc_cases, tiny_plan

CASES = disc_cases(4)
PLAN = tiny_plan(CASES)
IMAGES = Images(CASES[:2], CASES[2:3])
FACTS = EncoderFacts.of(Blurred())


def _model(kind="plain", seed=1):
    return composed(PLAN.unet, Composition() if kind == "plain" else Composition(kind, FACTS, 4), seed)


def _dice(model, cases, embeddings=None):
    return mean_score(evaluate(model, PLAN, cases, embeddings)).dice


@pytest.fixture(scope="module")
def learned():
    model = _model()
    before = _dice(model, CASES[3:])
    history = train(model, PLAN, IMAGES, Recipe(60, seed=1, rate=1e-2, checks=3))
    return model, history, before


def test_what_is_learned_holds_on_images_that_were_not_seen(learned):
    model, history, before = learned
    assert before < 0.5 and _dice(model, CASES[3:]) > 0.9
    assert len(history.losses) == 60 and history.losses[-1] < history.losses[0] - 0.5


def test_the_weights_kept_are_the_best_on_validation(learned):
    model, history, _ = learned
    assert [step for step, _ in history.checks] == [20, 40, 60]
    assert dict(history.checks)[history.chosen] == history.best == _dice(model, IMAGES.validation)


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_a_run_that_goes_on_after_a_pause_ends_as_one_without(tmp_path, stop):
    recipe, embeddings = Recipe(6, seed=3, checks=3), Kept(Blurred())
    whole, model = _model("concat"), _model("concat")
    history = train(whole, PLAN, IMAGES, recipe, embeddings)
    begun = Training(model, PLAN, IMAGES, recipe, embeddings)
    for _ in range(stop):
        begun.advance()
    begun.save(tmp_path / "state")
    resumed = _model("concat", seed=99)
    assert train(resumed, PLAN, IMAGES, recipe, embeddings, tmp_path / "state") == history
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_best_weights_so_far_outlive_a_pause(tmp_path, learned):
    ruinous, model = Recipe(4, seed=1, rate=10.0, checks=4, from_start=True), _model()
    model.load_state_dict(learned[0].state_dict())
    first = {name: value.clone() for name, value in model.state_dict().items()}
    begun = Training(model, PLAN, IMAGES, ruinous)
    begun.advance()
    begun.save(tmp_path / "state")
    resumed = _model(seed=9)
    history = train(resumed, PLAN, IMAGES, ruinous, None, tmp_path / "state")
    assert history.chosen == 0 and all(torch.equal(first[name], value) for name, value in resumed.state_dict().items())


def test_of_equals_the_earliest_is_kept():
    history = train(_model(), PLAN, IMAGES, Recipe(3, seed=1, rate=0.0, checks=3, weight_decay=0.0))
    assert len({dice for _, dice in history.checks}) == 1 and history.chosen == 1


def test_the_rate_decays_and_gradients_are_clipped(monkeypatch):
    monkeypatch.setattr("samda.training.CLIP", 1e-3)
    run = Training(_model(), PLAN, Images(CASES[:1]), Recipe(4, seed=1, rate=0.5))
    rates = []
    for _ in range(4):
        run.advance()
        rates.append(run.optimiser.param_groups[0]["lr"])
        norm = sum(float(weight.grad.square().sum()) for weight in run.weights if weight.grad is not None) ** 0.5
        assert norm <= 1.01e-3
    assert rates == pytest.approx([0.5 * share**0.9 for share in (1, 3 / 4, 1 / 2, 1 / 4)])


def test_training_is_kept_as_it_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("samda.training.SAVED_EVERY_S", 0)
    seen = []
    train(
        _model(), PLAN, IMAGES, Recipe(2, seed=1), state=tmp_path / "state", told=lambda step, text: seen.append(step)
    )
    assert seen == [0, 1, 2] and torch.load(tmp_path / "state")["step"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize("damage", [lambda data: data[:100], lambda data: b"", lambda data: b"x" * 500])
def test_a_state_that_is_damaged_is_one_line(tmp_path, damage):
    state = tmp_path / "state"
    Training(_model(), PLAN, IMAGES, Recipe(2, seed=1)).save(state)
    state.write_bytes(damage(state.read_bytes()))
    with pytest.raises(InputError, match="training cannot go on from it"):
        train(_model(), PLAN, IMAGES, Recipe(2, seed=1), state=state)


def test_an_adaptation_begins_at_the_plain_expert_and_never_ends_below_it_on_validation(learned):
    plain, embeddings = learned[0], Kept(Blurred())
    joined = with_adapter(plain, PLAN.unet, Composition("adapter", FACTS, 4), seed=5)
    joined.adapter.standardise_by([embeddings.encode(torch.from_numpy(CASES[0].pixels)[None, None], ["first"])[0]])
    assert evaluate(joined, PLAN, CASES, embeddings) == evaluate(plain, PLAN, CASES)
    ruinous = Recipe(2, seed=1, rate=10.0, checks=2, from_start=True)
    history = train(joined, PLAN, IMAGES, ruinous, embeddings)
    assert history.checks[0] == (0, _dice(plain, IMAGES.validation)) and history.chosen == 0
    assert evaluate(joined, PLAN, CASES, embeddings) == evaluate(plain, PLAN, CASES)


def test_what_is_frozen_stays(learned):
    model = _model("concat")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, PLAN, Images(CASES[:1]), Recipe(2, seed=1, parts=("adapter",)), Kept(Blurred()))
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"adapter.reduce.weight", "adapter.reduce.bias", "adapter.output.weight", "adapter.output.bias"}


def test_without_validation_the_last_weights_are_kept():
    history = train(_model(), PLAN, Images(CASES[:1]), Recipe(3, seed=1))
    assert (history.checks, history.chosen) == ([], 3)


def test_pseudo_labels_are_what_the_expert_says_where_it_is_certain(learned):
    model = learned[0]
    (sure,) = pseudo_labelled(model, PLAN, CASES[3:], confidence=0.7)
    (all_of_it,) = pseudo_labelled(model, PLAN, [replace(CASES[3], mask=None)], confidence=0.5)
    assert (sure.truth == all_of_it.truth).all() and all_of_it.certain.all()
    assert 0.2 < sure.certain.mean() < 1
    wrong = sure.truth != CASES[3].truth
    assert (wrong & sure.certain).sum() < wrong.sum()

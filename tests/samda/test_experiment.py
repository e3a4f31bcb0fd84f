"""Are arms compared fairly, each by all that it needs and nothing more, and does an ended experiment go on?"""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="no PyTorch here: make samda installs it")

import torch
from click.testing import CliRunner

import samda.experiment.run
from cluster.cli import coe
from node.errors import InputError
from samda.experiment.folder import Name
from samda.experiment.results import NOT_ADAPTED, pairs, rows
from samda.experiment.settings import ARMS, Settings
from samda.experiment.split import SOURCE, TARGET, drawn_shots, split
from samda.images import read_mask
from samda.plan import WIDTHS
from samda.scores import score
from tests.samda.drawn import TINY, Blurred, disc_cases, write_folder


def test_blocks_are_apart_and_in_order():
    cases = disc_cases(20)
    found = split(Path("target"), cases, TARGET)
    assert [len(part) for part in (found.train, found.validation, found.test)] == [10, 4, 6]
    assert [*found.train, *found.validation, *found.test] == cases
    source = split(Path("source"), [*cases, *cases[:4]], SOURCE)
    assert [len(part) for part in (source.train, source.validation, source.test)] == [16, 4, 4]
    with pytest.raises(InputError, match="target: of its 2 images 0 are for test, none of them with foreground"):
        split(Path("target"), cases[:2], TARGET)


def test_fewer_shots_are_the_first_of_more_and_seeds_draw_others():
    pool = disc_cases(10)
    assert drawn_shots(pool, 5, seed=1)[:2] == drawn_shots(pool, 2, seed=1)
    assert len({case.name for case in drawn_shots(pool, 10, seed=1)}) == 10
    assert len({tuple(case.name for case in drawn_shots(pool, 2, seed)) for seed in range(5)}) > 2


ARMS_ASKED = "plain,random,generic-adapter,generic-concat"


@pytest.fixture(scope="module")
def small():
    class Other(Blurred):
        name, hash = "other", "1" * 64

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(WIDTHS, "small", TINY)
        made = {"hed": Blurred, "random": Other}
        patch.setattr("samda.cli_options.make_encoder", lambda name, **_: made[name]())
        threads = torch.get_num_threads()
        yield
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def run(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    source = write_folder(folder / "source", disc_cases(6))
    target = write_folder(folder / "target", disc_cases(10, first=20, contrast=-0.2))

    def invoke(output, *more):
        where = ["--source", source, "--target", target, "--output", output, "--cache", folder / "cache"]
        asked = ["--shots", "1,2", "--seeds", 2, "--arms", ARMS_ASKED, "--threads", 1]
        rest = [*where, *asked, "--source-steps", 8, "--adapt-steps", 1, 1, "--checks", 2, *more]
        return CliRunner().invoke(coe, ["samda", "experiment", *map(str, rest)])

    return invoke


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """The folder of an experiment, what it said, and what its trainings and judgements of the source were given."""
    output, given, judged = tmp_path_factory.mktemp("whole") / "out", {}, []
    train, evaluate = samda.experiment.run.train, samda.experiment.run.evaluate
    with pytest.MonkeyPatch.context() as patch:

        def noted(model, plan, images, recipe, embeddings, state, told):
            added = None if model.adapter is None else model.adapter.added
            given[told.args[0]] = (added, None if embeddings is None else embeddings.encoder.name, images)
            return train(model, plan, images, recipe, embeddings, state, told)

        patch.setattr(samda.experiment.run, "train", noted)
        patch.setattr(
            samda.experiment.run, "evaluate", lambda *all_of: (judged.append(all_of[2]), evaluate(*all_of))[1]
        )
        result = run(output)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return output, result.output, given, judged


def found_in(output):
    return {path.stem: json.loads(path.read_text()) for path in (output / "results").iterdir()}


def test_every_arm_has_every_seed_and_shots_and_trains_the_longer_the_more_it_has(whole):
    found = found_in(whole[0])
    adapted = {f"seed{seed}-shots{shots}-{arm}" for seed in (0, 1) for shots in (1, 2) for arm in ARMS_ASKED.split(",")}
    assert set(found) == adapted | {
        f"seed{seed}-shots0-{arm}" for seed in (0, 1) for arm in ("plain", "generic-concat")
    }
    assert {(one["shots"], one["steps"], len(one["shots_used"])) for one in found.values()} == {
        (0, 8, 0),
        (1, 2, 1),
        (2, 3, 2),
    }
    for seed in (0, 1):  # all arms of a seed learn from the same images
        assert len({tuple(found[f"seed{seed}-shots2-{arm}"]["shots_used"]) for arm in ARMS_ASKED.split(",")}) == 1


def test_each_arm_is_what_its_name_says(whole):
    output, _, given, _ = whole
    expected = {"plain": (None, None), "random": (True, "other"), "generic-adapter": (True, "blurred"),
                "generic-concat": (False, "blurred")}  # fmt: skip
    assert {name.partition("-shots")[2][2:]: what[:2] for name, what in given.items()} == expected
    settings = Settings(
        Path("s"), Path("t"), (1, 2), 2, tuple(ARMS_ASKED.split(",")), "hed", source_steps=8, adapt_steps=(1, 1)
    )
    assert settings.total_steps() == sum(one["steps"] for one in found_in(output).values())


def test_test_images_are_never_learned_from_nor_choose(whole):
    *_, given, judged = whole
    source, target = [case.name for case in disc_cases(6)], [case.name for case in disc_cases(10, first=20)]
    learned = [[[case.name for case in part] for part in (one.train, one.validation)] for *_, one in given.values()]
    seen = {(tuple(names), tuple(chosen_by)) for names, chosen_by in learned}
    trained = {names for names, chosen_by in seen if chosen_by == tuple(source[4:5])}
    assert trained == {tuple(source[:4])}
    adapted = [names for names, chosen_by in seen if chosen_by == tuple(target[5:7])]
    assert len(adapted) + len(trained) == len(seen) and {len(names) for names in adapted} == {1, 2}
    assert {name for names in adapted for name in names} <= set(target[:5])
    assert {tuple(case.name for case in cases) for cases in judged} == {tuple(source[5:])}


def test_before_any_step_an_adapter_is_the_plain_expert_on_validation(whole):
    found = found_in(whole[0])
    for seed in (0, 1):
        begin = [found[f"seed{seed}-shots1-{arm}"]["validation"][0] for arm in ("plain", "random", "generic-adapter")]
        assert begin[0] == begin[1] == begin[2] and begin[0][0] == 0


def test_scores_are_those_of_the_segmentations_written_beside_them(whole):
    cases = {case.name: case for case in disc_cases(10, first=20, contrast=-0.2)}
    for name, result in found_in(whole[0]).items():
        assert set(result["target_images"]) == {"027", "028", "029"}
        for case, dice in result["target_images"].items():
            assert score(read_mask(whole[0] / "segmentations" / name / f"{case}.png"), cases[case].truth).dice == dice
        assert result["target"]["dice"] == pytest.approx(sum(result["target_images"].values()) / 3)


def test_the_table_the_json_and_the_sheet_are_there(whole):
    output, said, *_ = whole
    written = json.loads((output / "experiment.json").read_text())
    assert written["experiment"]["encoders"] == {"generic": "0" * 64, "random": "1" * 64}
    assert len(written["results"]) == 20 and len(written["rows"]) == 10
    assert "generic: blurred, hash 0000000000000000" in said
    assert all(arm in said for arm in ARMS_ASKED.split(",")) and "plain, no adaptation" in said
    assert (output / "overlays.png").read_bytes().startswith(b"\x89PNG")
    assert not list(output.glob("*.training*"))


def test_an_experiment_that_was_ended_goes_on_to_the_same_results(run, whole, tmp_path, monkeypatch):
    output, calls, after = tmp_path / "out", [], 9
    train = samda.experiment.run.train

    def ended(*arguments):
        calls.append(arguments)
        if len(calls) > after:
            raise KeyboardInterrupt
        return train(*arguments)

    monkeypatch.setattr(samda.experiment.run, "train", ended)
    result = run(output)
    assert (
        result.exit_code == 1
        and "the same command goes on" in " ".join(result.output.split())
        and len(found_in(output)) == after
    )
    calls.clear()
    monkeypatch.setattr(samda.experiment.run, "train", lambda *arguments: (calls.append(1), train(*arguments))[1])
    assert run(output).exit_code == 0
    assert len(calls) == 20 - after  # each result is made once

    def fixed(found):
        return {name: {**one, "train_seconds": 0, "peak_bytes": 0} for name, one in found.items()}

    assert fixed(found_in(output)) == fixed(found_in(whole[0]))


def test_a_folder_of_another_experiment_is_one_line(run, whole, tmp_path):
    said = run(whole[0], "--normalisation", "image").exception
    assert isinstance(said, InputError) and "holds another experiment: scheme was foreground, is image" in str(said)
    said = run(tmp_path).exception
    assert isinstance(said, InputError) and "exists already and is no experiment's" in str(said)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--arms", "plain,best"), "--arms 'best': must be of plain, random"),
        (("--arms", "plain,plain"), "--arms 'plain,plain': must be one or more, each once"),
        (("--shots", "6"), "--shots 6: must be 1 to 5, half of the images of"),
        (("--shots", "0,1"), "--shots 0: must be 1 to 5"),
        (("--shots", "one"), "--shots 'one': must be whole numbers"),
    ],
)
def test_what_cannot_be_run_is_one_line(run, tmp_path, more, said):
    told = run(tmp_path / "out", *more).exception
    assert isinstance(told, InputError) and said in str(told) and not (tmp_path / "out").exists()


def _result(dice, source, iou=0.0):
    return {"target": {"dice": dice, "iou": iou}, "source": {"dice": source}, "train_seconds": 2.0, "peak_bytes": 5}


def test_means_deviations_and_paired_differences_by_hand():
    settings = Settings(Path("s"), Path("t"), (1,), 2, ("plain", "random", "generic-adapter"), "hed")
    dice = {"plain": (0.6, 0.8), "random": (0.7, 0.7), "generic-adapter": (0.9, 0.8)}
    found = {Name(seed, 0, "plain"): _result(0.5 + seed / 10, 0.9) for seed in (0, 1)}
    for arm, values in dice.items():
        found |= {Name(seed, 1, arm): _result(value, 0.8 - seed / 10) for seed, value in enumerate(values)}
    first, plain, *_ = rows(settings, found)
    assert (first.arm, first.shots, first.dice.mean) == ("plain", 0, pytest.approx(0.55))
    assert (plain.dice.mean, plain.dice.deviation) == (pytest.approx(0.7), pytest.approx(0.02**0.5))
    assert (plain.forgotten.mean, plain.source_dice.mean) == (pytest.approx(0.15), pytest.approx(0.75))
    by_name = {(pair.arm, pair.than): pair.dice for pair in pairs(settings, found)}
    less = {
        "plain": {NOT_ADAPTED},
        "random": {NOT_ADAPTED, "plain"},
        "generic-adapter": {NOT_ADAPTED, "plain", "random"},
    }
    assert set(by_name) == {(arm, than) for arm, others in less.items() for than in others}
    assert by_name["generic-adapter", "random"].values == pytest.approx([0.2, 0.1])
    assert by_name["generic-adapter", "plain"].mean == pytest.approx(0.15)
    assert by_name["plain", NOT_ADAPTED].values == pytest.approx([0.1, 0.2])


def test_a_concatenating_arm_is_compared_with_its_own_source():
    settings = Settings(Path("s"), Path("t"), (1,), 1, ("generic-concat",), "hed")
    found = {Name(0, 0, "plain"): _result(0.5, 0.9), Name(0, 0, "generic-concat"): _result(0.4, 0.8)}
    found[Name(0, 1, "generic-concat")] = _result(0.7, 0.6)
    (pair,) = pairs(settings, found)
    assert (pair.than, pair.dice.mean, pair.dice.deviation) == (NOT_ADAPTED, pytest.approx(0.3), None)
    assert rows(settings, found)[-1].forgotten.mean == pytest.approx(0.2)


def test_arms_are_made_of_what_there_is():
    assert {joined[1] for joined in ARMS.values() if joined} == {"adapter", "concat"}

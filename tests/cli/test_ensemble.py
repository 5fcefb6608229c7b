"""Tests of `main.py ensemble` with invented predictions."""

import json
import re

import numpy as np
import pytest

import main
from imagenet_repro.scoring import ensembling, predictions
from imagenet_repro.statistics.intervals import bootstrap_difference
from tests import finished_runs
from tests.conftest import REPOSITORY
from tests.scoring import synthetic_predictions
from tests.scoring.synthetic_predictions import replace


@pytest.fixture
def stored(tmp_path):
    """Return a function that stores the predictions of members for a split and returns their paths."""

    def write(split, *, count=3, train="train[:99%]", protocol="crop"):
        paths = []
        for number, one in enumerate(synthetic_predictions.members(count, split=split)):
            source = {
                "config": synthetic_predictions.config(number, split, train),
                "step": 100,
                "protocol": {"name": protocol},
                "classes": list("abcdefgh"),
            }
            paths.append(tmp_path / f"googlenet_{number}/{split.partition('[')[0]}.npz")
            predictions.save(paths[-1], replace(one, provenance=source))
        return list(map(str, paths))

    return write


def run(*arguments):
    return main.main(["ensemble", *arguments])


def cells(out, name):
    return next(line for line in out.splitlines() if line.startswith(name)).split()


def test_the_average_of_three_members_is_reported_and_can_be_scored(stored, tmp_path, capsys):
    paths, out = stored("validation"), tmp_path / "out/ensemble.npz"
    assert run("--members", *paths, f"--out={out}") == 0
    printed = capsys.readouterr().out
    stored_ensemble = predictions.load(out)
    rates = stored_ensemble.error_rates()
    assert f"ensemble: {rates}" in printed
    members = ensembling.align_members("abc", list(map(predictions.load, paths)))
    errors = ensembling.score_ensemble(members, np.full(3, 1 / 3), "probabilities")
    best = min(range(3), key=lambda k: errors.alone[k][0].sum())
    difference = bootstrap_difference(errors.whole[0], errors.alone[best][0])
    assert (
        f"top-1 error against googlenet_{best}, the best member in it: −{-100 * difference.difference:.1f}" in printed
    )
    for number in range(3):
        alone = ensembling.error_rates(errors.alone[number])
        row = cells(printed, f"googlenet_{number}")
        percents = [f"{100 * wrong / 400:.1f}" for wrong in (alone.top1_wrong, alone.top5_wrong)]
        assert row[1:6] == ["googlenet", "crop", "0.333", *percents]
        change = 100 * (errors.without[number][0].mean() - errors.whole[0].mean())
        assert float(row[6].replace("−", "-")) == pytest.approx(change, abs=0.006)
    assert cells(printed, "googlenet_2")[8] == f"{100 * rates.top1_wrong / 400:.1f}"
    source = stored_ensemble.provenance
    assert [one["path"] for one in source["ensemble"]["members"]] == paths
    assert [one["weight"] for one in source["ensemble"]["members"]] == pytest.approx([1 / 3] * 3)
    assert source["ensemble"]["members"][1]["provenance"]["config"]["seed"] == 1
    assert source["config"]["data"]["name"] == "made/up"
    assert main.main(["score", f"--predictions={out}"]) == 0
    assert f"({rates.top1_wrong:,} of 400 images wrong)" in capsys.readouterr().out


def test_members_can_be_runs(tmp_path, capsys):
    places = finished_runs.systems(tmp_path, count=2)  # all scores are equal
    assert run("--members", *places) == 2
    assert "nec_uiuc_2010-0 and xrce_2011-0 hold the same scores" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["validation", "greedy", "accuracy"])
@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_weights_are_found_on_another_split(stored, tmp_path, how, average):
    members, select, out = stored("validation"), stored("train[99%:]"), tmp_path / "e.npz"
    more = ("--weights", how, f"--average={average}", f"--out={out}")
    assert run("--members", *members, "--select", *select, *more) == 0
    source = predictions.load(out).provenance["ensemble"]
    held_out = ensembling.align_members("abc", list(map(predictions.load, select)))
    expected = ensembling.find_weights(how, held_out, average)
    assert [one["weight"] for one in source["members"]] == pytest.approx(expected.tolist())
    assert [one["path"] for one in source["select"]] == select
    assert (source["weights"], source["average"]) == (how, average)


def test_weights_can_be_given_as_numbers(stored, tmp_path):
    out = tmp_path / "e.npz"
    assert run("--members", *stored("validation"), "--weights=2,1,1", f"--out={out}") == 0
    stored_members = predictions.load(out).provenance["ensemble"]["members"]
    assert [one["weight"] for one in stored_members] == pytest.approx([0.5, 0.25, 0.25])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights=1,1"], "are 2 weights, and there are 3 members"),
        (["--weights=unifrom"], "did you mean 'uniform'"),
        (["--weights=1,-1,1"], "must be non-negative numbers"),
        (["--weights=greedy"], "found on images that are not scored: .* --select"),
        (["--weights=greedy", "--select", 0, 1], "--select names 2 predictions, and there are 3 members"),
        (["--weights=greedy", "--select", 1, 0, 2], "must differ only in their images, but have seed 0 and 1"),
        (["--select", 0, 1, 2], "--select would be ignored"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(stored, capsys, arguments, message):
    members, select = stored("validation"), stored("train[99%:]")
    words = [select[word] if isinstance(word, int) else word for word in arguments]
    assert run("--members", *members, *words) == 2
    assert re.search(message, capsys.readouterr().err)


def test_weights_are_not_found_on_scored_or_training_images(stored, capsys):
    members = stored("validation")
    assert run("--members", *members, "--weights=greedy", "--select", *members) == 2
    assert "400 of the scored images are among those on which weights are found" in capsys.readouterr().err
    learned = stored("train[99%:]", train="train")
    assert run("--members", *members, "--weights=greedy", "--select", *learned) == 2
    assert "was trained on all of train" in capsys.readouterr().err


def test_the_same_file_twice_is_refused(stored, capsys):
    first, *_ = stored("validation")
    assert run("--members", first, first) == 2
    assert "is the same file as" in capsys.readouterr().err


def test_a_mix_of_margins_and_networks_is_noted(stored, tmp_path, capsys):
    first, second, third = stored("validation")
    one = predictions.load(third)
    predictions.save(third, replace(one, provenance={"config": {"system": "xrce_2011", "seed": 0}}))
    assert run("--members", first, second, third) == 0
    assert "xrce_2011 gives margins, whose softmax is nearly flat" in capsys.readouterr().out
    assert run("--members", first, second) == 0
    assert "Note" not in capsys.readouterr().out


# --- published ensembles ----------------------------------------------------------------------------------------


def test_a_published_ensemble_is_shown_beside_the_measured_one(stored, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    seven = stored("validation", count=7)
    out = tmp_path / "e.npz"
    assert run("--config=configs/ensembles/googlenet.py", "--members", *seven, f"--out={out}") == 0
    printed = capsys.readouterr().out
    assert "top-5 6.67 %: 7 networks, 144 crops, val and test (Szegedy et al. 2014, tab. 3)" in printed
    assert "1 x googlenet for the wider seventh network" in printed
    assert "not scored as the entry was: members here by crop, the entry's by googlenet144" in printed
    assert "the wider seventh network; here: a seventh of the same topology" in printed
    assert json.dumps(predictions.load(out).provenance["ensemble"]["config"]) == '"configs/ensembles/googlenet.py"'
    as_scored = stored("validation", count=7, protocol="googlenet144")
    assert run("--config=configs/ensembles/googlenet.py", "--members", *as_scored) == 0
    assert "not scored as the entry was" not in capsys.readouterr().out
    assert run("--config=configs/ensembles/googlenet.py", "--members", *seven[:6]) == 2
    assert "has 7 x googlenet; the members given are 6 x googlenet" in capsys.readouterr().err


def test_without_members_the_plan_is_printed(capsys, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    assert run("--config=configs/ensembles/msra.py") == 0
    printed = capsys.readouterr().out
    assert "python main.py train --config=configs/resnet.py:152_v1 --config.seed=1 " in printed
    assert "the depths of four of the six networks; here: 101, 101, 50 and 50" in printed
    assert run() == 2
    assert "which members?" in capsys.readouterr().err


# --- classes ----------------------------------------------------------------------------------------------------


def in_another_order(path, order, names=None):
    """Store predictions as a system would whose class i is class `order[i]` of the others."""
    one, place = predictions.load(path), np.argsort(order)
    names = names or [one.provenance["classes"][number] for number in order]
    arrays = {"label": place[one.label], "top5": place[one.top5], "logits": one.logits[:, order]}
    arrays = {key: array.astype(getattr(one, key).dtype) for key, array in arrays.items()}
    predictions.save(path, replace(one, **arrays, provenance=one.provenance | {"classes": names}))


def test_members_with_classes_in_another_order_are_aligned_by_name(stored, tmp_path, capsys):
    paths, out, expected = stored("validation"), tmp_path / "e.npz", tmp_path / "expected.npz"
    assert run("--members", *paths, f"--out={expected}") == 0
    before = capsys.readouterr().out
    in_another_order(paths[1], [3, 0, 1, 2, 7, 6, 5, 4])
    assert run("--members", *paths, f"--out={out}") == 0
    note, _, rest = capsys.readouterr().out.partition("\n")
    assert note == (
        "googlenet_1 has the classes of googlenet_0 in another order: index 0 is 'd' and not 'a'; they are aligned by"
        " name"
    )
    assert rest.splitlines()[:-1] == before.splitlines()[:-1]  # the last names the file
    for key in ("label", "top5", "logits"):
        np.testing.assert_array_equal(getattr(predictions.load(out), key), getattr(predictions.load(expected), key))


def test_members_of_other_classes_are_refused(stored, capsys):
    paths = stored("validation")
    in_another_order(paths[2], range(8), names=list("abcdefgz"))
    assert run("--members", *paths) == 2
    assert (
        "googlenet_2 and googlenet_0 do not have the same classes: only googlenet_2 has 'z'" in capsys.readouterr().err
    )

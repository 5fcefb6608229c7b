"""Finished runs gathered, and what is refused (`runs/collect.py`)."""

import dataclasses
import json

import numpy as np
import pytest

from imagenet_repro.errors import UserError
from imagenet_repro.report.collect import RunGroup, collect, group_runs
from imagenet_repro.scoring import predictions
from imagenet_repro.storage.workdir import Workdir
from tests import finished_runs
from tests.report import made

SPLIT = "provenance.config.data."


def gathered(*workdirs, **options):
    return collect(group_runs(workdirs), **options)


def pair(tmp_path, **changes):
    """Two runs, of which the second differs."""
    first = finished_runs.write(tmp_path / "a", finished_runs.one(0))
    return first, finished_runs.write(tmp_path / "b", finished_runs.one(1, name="zfnet"), **changes)


def test_what_was_written_is_what_is_gathered(tmp_path):
    whole = made.comparison(3, 2, classes=finished_runs.CLASSES)
    found = gathered(*finished_runs.systems(tmp_path, count=3, seeds=2))
    assert [system.name for system in found.systems] == [system.name for system in whole.systems]
    assert found.class_names == tuple(f"class {c}" for c in range(finished_runs.CLASSES))
    assert (found.budget, found.data, found.train_split, found.scored_split) == (
        "5ep", "made/up", "train", "validation",
    )  # fmt: skip
    assert (found.mixed, found.failures, found.selection, found.n_images) == ((), (), "", 400)
    for system, expected in zip(found.systems, whole.systems, strict=True):
        assert system.seeds == (0, 1)
        for run, made_up in zip(system.runs, expected.runs, strict=True):
            assert run.rates == made_up.rates
            assert list(run.rows) == made_up.rows
            for field in ("id", "label", "top5"):
                np.testing.assert_array_equal(getattr(run.guesses, field), getattr(made_up.guesses, field))


def test_seeds_stand_together_by_rising_number_whatever_the_order(tmp_path):
    places = [
        finished_runs.write(tmp_path / f"{name}{seed}", finished_runs.one(k, seed, name))
        for seed in (4, 0, 2)
        for k, name in enumerate(("zfnet", "alexnet_2012"))
    ]
    found = gathered(*places)
    assert [(system.name, system.seeds) for system in found.systems] == [
        ("zfnet", (0, 2, 4)),
        ("alexnet_2012", (0, 2, 4)),
    ]


def test_where_and_how_fast_a_run_worked_makes_no_other_system(tmp_path):
    free = {f"{SPLIT}data_dir": "/elsewhere", f"{SPLIT}threads": 7, "provenance.config.log_every": 3}
    places = [
        finished_runs.write(tmp_path / "a", finished_runs.one(seed=0)),
        finished_runs.write(tmp_path / "b", finished_runs.one(seed=1), **free),
    ]
    assert [system.seeds for system in gathered(*places).systems] == [(0, 1)]


def test_systems_of_one_name_get_numbers(tmp_path):
    places = [
        finished_runs.write(tmp_path / f"{k}", finished_runs.one(k), **{"provenance.config.batch_size": 2**k})
        for k in range(3)
    ]
    found = gathered(*places)
    assert [system.name for system in found.systems] == [f"alexnet_2012 ({n})" for n in (1, 2, 3)]
    assert {system.network for system in found.systems} == {"alexnet_2012"}


def test_numbers_spare_names_that_are_there(tmp_path):
    places = [Workdir(finished_runs.write(tmp_path / f"{k}", finished_runs.one(k))) for k in range(3)]
    groups = [RunGroup(name, (place,)) for name, place in zip(("a", "a (1)", "a"), places, strict=True)]
    assert [system.name for system in collect(groups).systems] == ["a (2)", "a (1)", "a (3)"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"provenance.config.budget": "6ep"}, r"budget: 5ep \(.*/a\); 6ep \(.*/b\)\."),
        ({f"{SPLIT}name": "other"}, r"data set: made/up \(.*/a\); other \(.*/b\)\."),
        ({f"{SPLIT}train_split": "train[:9%]"}, r"training split: train \(.*\); train\[:9%\] \("),
        ({f"{SPLIT}eval_split": "test"}, r"scored split: validation \(.*\); test \("),
        ({f"{SPLIT}test_split": "test"}, r"scored split: validation \(.*\); test \("),
        (
            {f"{SPLIT}test_split": "validation", f"{SPLIT}eval_split": "train[:5]"},
            r"split evaluated while training: none of its own \(.*/a\); train\[:5\] \(",
        ),
        (
            {"classes": [f"name {c}" for c in range(10)]},
            r"label set: 10 classes, class 0, .* 7 more, SHA-256 \w{8} \(",
        ),
        ({"classes": [f"class {c}" for c in range(9)] + ["z"]}, r"label set: 10 classes, .*; 10 classes, "),
    ],
)
def test_what_differs_is_refused_and_named_or_marked(tmp_path, changes, message):
    places = pair(tmp_path, **changes)
    with pytest.raises(UserError, match=rf"(?s)--allow_mixed compares them anyway.*they differ in\n  {message}"):
        gathered(*places)
    found = gathered(*places, allow_mixed=True)
    assert found.mixed
    assert found.same_images


def test_a_test_split_that_is_the_evaluated_one_is_no_difference(tmp_path):
    assert gathered(*pair(tmp_path, **{f"{SPLIT}test_split": "validation"})).mixed == ()


def test_other_images_of_one_split_are_refused_and_named(tmp_path):
    a = finished_runs.write(tmp_path / "a", finished_runs.one(0))
    b = finished_runs.write(tmp_path / "b", finished_runs.one(1, name="zfnet", images=61))
    with pytest.raises(UserError, match=r"images: alexnet_2012 \(seed 0\) and zfnet .* different images; only zfnet"):
        gathered(a, b)
    found = gathered(a, b, allow_mixed=True)
    assert not found.same_images
    assert found.mixed


def test_other_labels_of_one_split_are_refused(tmp_path):
    run = finished_runs.one(1, name="zfnet")
    label = np.roll(run.guesses.label, 1)
    guesses = dataclasses.replace(run.guesses, label=label)
    wrong = {f"rates.top{k}_wrong": int(guesses.wrong(k).sum()) for k in (1, 5)}
    a = finished_runs.write(tmp_path / "a", finished_runs.one(0))
    b = finished_runs.write(tmp_path / "b", run, guesses=guesses, **wrong)
    with pytest.raises(UserError, match=r"images: .* different labels, those of validation/"):
        gathered(a, b)


def test_names_cover_every_class_and_named_ones_come_before_numbers(tmp_path):
    a = finished_runs.write(tmp_path / "a", finished_runs.one(0))
    result = json.loads((tmp_path / "a/result.json").read_text())
    del result["classes"]  # as older versions wrote it
    (tmp_path / "a/result.json").write_text(json.dumps(result))
    assert gathered(a).class_names == tuple("0123456789")
    b = finished_runs.write(tmp_path / "b", finished_runs.one(1, name="zfnet"))
    found = gathered(a, b, allow_mixed=True)
    assert found.class_names == tuple(f"class {c}" for c in range(10))
    assert "label set: 10 classes, 0, 1, 2 and 7 more" in found.mixed[0]


def test_the_same_run_twice_is_refused(tmp_path):
    a, b = pair(tmp_path)
    (tmp_path / "link").symlink_to(a)
    for again in (a, f"{a}/", f"{b}/../a", tmp_path / "link"):
        with pytest.raises(UserError, match="a workdir is named twice"):
            group_runs([a, b, again])


def test_two_runs_of_one_seed_and_configuration_are_refused(tmp_path):
    a = finished_runs.write(tmp_path / "a", finished_runs.one())
    b = finished_runs.write(tmp_path / "b", finished_runs.one())
    with pytest.raises(
        UserError,
        match=r"alexnet_2012: two runs have the same seed, among .*/a, .*/b; name only one run for each seed",
    ):
        gathered(a, b)


def test_a_run_that_has_not_ended_is_named(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text("{}")
    with pytest.raises(UserError, match=r"there is no .*/run/result\.json; train writes it when its budget is spent"):
        group_runs([tmp_path / "run"])


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "{}", '{"system": "x"}', "\x00\xff"])
def test_a_damaged_result_is_named(tmp_path, text):
    a = finished_runs.write(tmp_path / "a", finished_runs.one())
    (tmp_path / "a/result.json").write_text(text)
    with pytest.raises(UserError, match=r"a/result\.json is (damaged|not what train writes)"):
        group_runs([a])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("provenance.config.seed", "0"),
        ("provenance.config.seed", None),
        ("predictions", 3),
        ("classes", "abc"),
        ("spent.flops", None),
        ("rates.images", "60"),
    ],
)
def test_a_result_of_other_types_is_named(tmp_path, path, value):
    a = finished_runs.write(tmp_path / "a", finished_runs.one(), **{path: value})
    with pytest.raises(UserError, match=rf"a/result\.json is not what train writes: '{path}' is"):
        gathered(a)


def stored(run, **arrays):
    """Members of a file of predictions, some of them others."""
    members = {key: getattr(run.guesses, key) for key in ("id", "label", "top5")}
    members |= {
        "logits": np.zeros((len(run.guesses.id), finished_runs.CLASSES), np.float16),
        "provenance": np.array("{}"),
    }
    return members | arrays


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"id": np.array(["same"] * 60)}, "the same id more than once: same"),
        ({"label": np.full(60, -1, np.int32)}, "images without labels"),
        ({"label": np.zeros(60, np.float32)}, "'label' is float32"),
        ({"top5": np.zeros((60, 5), np.int32)}, r"does not belong to the run in .*/a: its error rates are different"),
        ({"top5": np.zeros((59, 5), np.int32)}, "different numbers of images"),
    ],
)
def test_predictions_that_cannot_be_the_runs_are_named_with_what_makes_them_again(tmp_path, arrays, message):
    run = finished_runs.one()
    a = finished_runs.write(tmp_path / "a", run, **{f"{SPLIT}test_split": "test[:60]"})
    path = tmp_path / "a" / run.result["predictions"]
    np.savez(path, **stored(run, **arrays))
    again = rf"main\.py evaluate --workdir={a} --data\.eval_split='test\[:60\]' --out={path}"
    with pytest.raises(UserError, match=rf"(?s){message}.*\n.*{again}"):
        gathered(a)


def test_classes_that_the_run_does_not_know_are_refused(tmp_path):
    a = finished_runs.write(tmp_path / "a", finished_runs.one(), classes=["x", "y"])
    with pytest.raises(UserError, match="has classes outside the 2 of the run"):
        gathered(a)


def test_missing_and_truncated_predictions_and_those_of_another_run(tmp_path):
    run, other = finished_runs.one(), finished_runs.one(images=70)
    a = finished_runs.write(tmp_path / "a", run)
    path = tmp_path / "a" / run.result["predictions"]
    zeros = np.zeros((70, 10), np.float16)
    predictions.save(path, predictions.Predictions(other.guesses.id, other.guesses.label, other.guesses.top5, zeros))
    with pytest.raises(UserError, match=r"has predictions for 70 images, but the run scored 60\n.* evaluate"):
        gathered(a)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match="is truncated, damaged or not an"):
        gathered(a)
    path.unlink()
    with pytest.raises(UserError, match=rf"there is no file of predictions {path}\n"):
        gathered(a)


def test_a_run_without_a_log_or_with_a_damaged_one_is_gathered_all_the_same(tmp_path):
    a = finished_runs.write(tmp_path / "a", finished_runs.one())
    rows = gathered(a).systems[0].runs[0].rows
    text = (tmp_path / "a/metrics.jsonl").read_text()
    (tmp_path / "a/metrics.jsonl").write_bytes(b'\xff\xfe\n3\nnull\n"text"\n' + text.encode() + b'{"kind": "tr')
    assert gathered(a).systems[0].runs[0].rows == rows
    (tmp_path / "a/metrics.jsonl").unlink()
    assert gathered(a).systems[0].runs[0].rows == []


def test_nothing_to_compare():
    with pytest.raises(UserError, match="there is no finished run"):
        collect([])

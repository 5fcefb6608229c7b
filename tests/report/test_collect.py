"""Tests of gathering finished runs and of the runs that are refused."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from imagenet_repro.errors import UserError
from imagenet_repro.report.collect import RunGroup, Scoring, collect, group_runs
from imagenet_repro.scoring import predictions
from imagenet_repro.storage.workdir import Workdir
from tests import finished_runs
from tests.report import comparisons

SPLIT = "provenance.config.data."


def gathered(*workdirs, **options):
    return collect(group_runs(workdirs), **options)


def pair(tmp_path, **changes):
    """Write two runs, the second with changes in its result."""
    first = finished_runs.write(tmp_path / "a", finished_runs.one(0))
    return first, finished_runs.write(tmp_path / "b", finished_runs.one(1, name="zfnet"), **changes)


def test_stored_runs_are_gathered_unchanged(tmp_path):
    expected_comparison = comparisons.comparison(3, 2, classes=finished_runs.CLASSES)
    actual = gathered(*finished_runs.systems(tmp_path, count=3, seeds=2))
    assert [system.name for system in actual.systems] == [system.name for system in expected_comparison.systems]
    assert actual.class_names == tuple(f"class {c}" for c in range(finished_runs.CLASSES))
    assert (actual.budget, actual.data, actual.train_split, actual.scored_split) == (
        "5ep", "made/up", "train", "validation",
    )  # fmt: skip
    assert (actual.mixed, actual.failures, actual.selection, actual.n_images) == ((), (), "", 400)
    for system, expected in zip(actual.systems, expected_comparison.systems, strict=True):
        assert system.seeds == (0, 1)
        for run, made_up in zip(system.runs, expected.runs, strict=True):
            assert run.rates == made_up.rates
            assert list(run.rows) == made_up.rows
            for field in ("id", "label", "top5"):
                np.testing.assert_array_equal(getattr(run.guesses, field), getattr(made_up.guesses, field))
            assert run.guesses.top5.dtype == np.int16


def test_seeds_of_a_system_are_grouped_in_rising_order(tmp_path):
    directories = [
        finished_runs.write(tmp_path / f"{name}{seed}", finished_runs.one(k, seed, name))
        for seed in (4, 0, 2)
        for k, name in enumerate(("zfnet", "alexnet_2012"))
    ]
    actual = gathered(*directories)
    assert [(system.name, system.seeds) for system in actual.systems] == [
        ("zfnet", (0, 2, 4)),
        ("alexnet_2012", (0, 2, 4)),
    ]


def test_settings_of_directories_and_speed_do_not_separate_systems(tmp_path):
    free = {f"{SPLIT}data_dir": "/elsewhere", f"{SPLIT}threads": 7, "provenance.config.log_every": 3}
    directories = [
        finished_runs.write(tmp_path / "a", finished_runs.one(seed=0)),
        finished_runs.write(tmp_path / "b", finished_runs.one(seed=1), **free),
    ]
    assert [system.seeds for system in gathered(*directories).systems] == [(0, 1)]


def test_systems_of_one_name_are_told_apart_by_their_settings(tmp_path):
    changes = [{"batch_size": 64}, {"batch_size": 256}, {"model.weights": "/elsewhere/pre.safetensors"}]
    directories = [
        finished_runs.write(
            tmp_path / f"{k}", finished_runs.one(k), **{f"provenance.config.{key}": v for key, v in one.items()}
        )
        for k, one in enumerate(changes)
    ]
    actual = gathered(*directories)
    assert [system.name for system in actual.systems] == [
        "alexnet_2012, batch_size=64",
        "alexnet_2012, batch_size=256",
        "alexnet_2012, weights=pre.safetensors, batch_size=256",
    ]
    assert {system.network for system in actual.systems} == {"alexnet_2012"}
    assert [system.name for system in gathered(*directories[1:]).systems] == [
        "alexnet_2012",
        "alexnet_2012, weights=pre.safetensors",
    ]


def test_runs_have_the_names_that_they_were_given(tmp_path):
    directories = [
        finished_runs.write(tmp_path / str(k), finished_runs.one(0, seed=k), **{"provenance.config.name": name})
        for k, name in enumerate(("before", "before", "after"))
    ]
    assert [(one.name, one.seeds) for one in gathered(*directories).systems] == [("before", (0, 1)), ("after", (2,))]


def test_a_run_of_an_older_version_without_a_key_is_of_the_system_with_its_default(tmp_path):
    directories = [
        finished_runs.write(tmp_path / "old", finished_runs.one(seed=0)),
        finished_runs.write(tmp_path / "new", finished_runs.one(seed=1), **{"provenance.config.clip_norm": 0.0}),
    ]
    assert [one.seeds for one in gathered(*directories).systems] == [(0, 1)]


def test_systems_of_one_name_and_equal_settings_are_told_apart_by_their_places(tmp_path):
    directories = [Workdir(finished_runs.write(tmp_path / f"{k}", finished_runs.one(k))) for k in range(3)]
    groups = [RunGroup(name, (directory,)) for name, directory in zip(("a", "b", "a"), directories, strict=True)]
    names = [system.name for system in collect(groups).systems]
    assert names == [f"a in {tmp_path / '0'}", "b", f"a in {tmp_path / '2'}"]


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
def test_differing_conditions_are_refused_or_marked(tmp_path, changes, message):
    directories = pair(tmp_path, **changes)
    with pytest.raises(UserError, match=rf"(?s)--allow_mixed compares them anyway.*they differ in\n  {message}"):
        gathered(*directories)
    actual = gathered(*directories, allow_mixed=True)
    assert actual.mixed
    assert actual.same_images == (f"{SPLIT}name" not in changes)  # equal names do not make images of two data sets one


def test_a_test_split_that_is_the_evaluated_one_is_no_difference(tmp_path):
    assert gathered(*pair(tmp_path, **{f"{SPLIT}test_split": "validation"})).mixed == ()


def test_other_images_of_one_split_are_refused_and_named(tmp_path):
    a = finished_runs.write(tmp_path / "a", finished_runs.one(0))
    b = finished_runs.write(tmp_path / "b", finished_runs.one(1, name="zfnet", images=61))
    with pytest.raises(UserError, match=r"images: alexnet_2012 \(seed 0\) and zfnet .* different images; only zfnet"):
        gathered(a, b)
    actual = gathered(a, b, allow_mixed=True)
    assert not actual.same_images
    assert actual.mixed


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
    del result["classes"]  # results of older versions
    (tmp_path / "a/result.json").write_text(json.dumps(result))
    assert gathered(a).class_names == tuple("0123456789")
    b = finished_runs.write(tmp_path / "b", finished_runs.one(1, name="zfnet"))
    actual = gathered(a, b, allow_mixed=True)
    assert actual.class_names == tuple(f"class {c}" for c in range(10))
    assert "label set: 10 classes, 0, 1, 2 and 7 more" in actual.mixed[0]


def test_naming_the_same_run_twice_is_refused(tmp_path):
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


def test_a_directory_without_a_run_is_named_in_the_error(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match=r"there is no .*/run/result\.json; train writes it when its budget is spent"):
        group_runs([tmp_path / "run"])
    (tmp_path / "run/config.json").write_text("{}")
    with pytest.raises(UserError, match=r"/run/config\.json"):
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
    """Return the members of a file of predictions, with some arrays replaced."""
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
def test_predictions_that_do_not_fit_the_run_are_named_with_the_command_that_stores_them(tmp_path, arrays, message):
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


def test_runs_with_a_missing_or_damaged_log_are_gathered(tmp_path):
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


# --- other protocols and evaluation sets ------------------------------------------------------------------------

STEP = 1_000  # of the results in `comparisons`


def store_evaluation(workdir, run, name, *, protocol="crop", guesses=None, **source):
    """Store predictions as `evaluate` does, under a name below the workdir's `predictions/`."""
    guesses = guesses or run.guesses
    scores = np.zeros((len(guesses.id), finished_runs.CLASSES), np.float16)
    provenance = {"protocol": {"name": protocol}, "step": STEP, "config": run.result["provenance"]["config"]} | source
    path = Path(workdir) / "predictions" / name
    predictions.save(path, predictions.Predictions(guesses.id, guesses.label, guesses.top5, scores, provenance))
    return path


def better(guesses):
    """Return guesses whose first one is right on every image."""
    top5 = np.stack([(guesses.label + k) % finished_runs.CLASSES for k in range(5)], axis=1).astype(np.int32)
    return dataclasses.replace(guesses, top5=top5)


def on_other_images(guesses, prefix="test/v2/"):
    return dataclasses.replace(guesses, id=np.array([f"{prefix}{i:05d}" for i in range(len(guesses.id))]))


def test_errors_by_another_protocol_are_counted_from_its_predictions(tmp_path):
    runs = [finished_runs.one(k, name=name) for k, name in enumerate(("alexnet_2012", "zfnet"))]
    workdirs = [finished_runs.write(tmp_path / str(k), run) for k, run in enumerate(runs)]
    for workdir, run in zip(workdirs, runs, strict=True):
        store_evaluation(workdir, run, "made_up_validation_10crop_step1000.npz", protocol="10crop",
                         guesses=better(run.guesses))  # fmt: skip
    own, other = gathered(*workdirs), gathered(*workdirs, scoring=Scoring(protocol="10crop"))
    assert [system.mean_error(1) for system in other.systems] == [0.0, 0.0]
    assert all(system.mean_error(1) > 0 for system in own.systems)
    assert (other.protocol, other.evaluation_set, other.scored_split) == ("10crop", "", "validation")
    assert (own.protocol, own.scores_own_result, other.scores_own_result) == ("", True, False)
    assert other.systems[0].runs[0].predictions == "predictions/made_up_validation_10crop_step1000.npz"


def test_a_selected_checkpoint_is_optimistic_as_its_predictions_say(tmp_path):
    run = finished_runs.one()
    workdir = finished_runs.write(tmp_path / "a", run)
    name = "made_up_validation_10crop_step1000.npz"
    store_evaluation(workdir, run, name, protocol="10crop", selection={"split": "validation", "optimism": 0.0015})
    actual = [gathered(workdir, scoring=scoring) for scoring in (Scoring(protocol="10crop"), Scoring())]
    assert [one.systems[0].runs[0].optimism for one in actual] == [0.0015, 0.0]


def test_errors_on_an_evaluation_set_are_counted_from_its_predictions(tmp_path):
    run = finished_runs.one()
    workdir = finished_runs.write(tmp_path / "a", run)
    guesses = on_other_images(better(run.guesses))
    store_evaluation(workdir, run, "imagenet_v2_matched-frequency_test_step1000.npz", guesses=guesses)
    actual = gathered(workdir, scoring=Scoring(set_name="v2"))
    assert actual.systems[0].mean_error(1) == 0.0
    assert (actual.evaluation_set, actual.scored_data, actual.scored_split, actual.data) == (
        "ImageNet-V2, matched frequency", "imagenet_v2/matched-frequency", "test", "made/up",
    )  # fmt: skip


def test_a_set_and_a_protocol_go_together(tmp_path):
    run = finished_runs.one()
    workdir = finished_runs.write(tmp_path / "a", run)
    name = "imagenet_v2_matched-frequency_test_10crop_step1000.npz"
    store_evaluation(workdir, run, name, protocol="10crop", guesses=on_other_images(run.guesses))
    actual = gathered(workdir, scoring=Scoring("10crop", "v2"))
    assert (actual.protocol, actual.scored_data) == ("10crop", "imagenet_v2/matched-frequency")


@pytest.mark.parametrize(
    ("scoring", "kind", "options"),
    [
        (Scoring("10crop"), " by the protocol 10crop", r" --data\.eval_split='test\[:60\]' --protocol=10crop"),
        (Scoring(set_name="v2"), " of ImageNet-V2, matched frequency", " --set=v2"),
        (Scoring("10crop", "v2"), " of ImageNet-V2, matched frequency by the protocol 10crop",
         " --set=v2 --protocol=10crop"),
    ],
)  # fmt: skip
def test_runs_without_the_predictions_are_named_with_the_command_that_stores_them(tmp_path, scoring, kind, options):
    a, b = pair(tmp_path, **{f"{SPLIT}test_split": "test[:60]"})
    commands = [rf"\n  main\.py evaluate --workdir={workdir} --checkpoint=1000.*" for workdir in (a, b)]
    with pytest.raises(UserError, match=f"2 runs have no stored predictions{kind}. To store them:{''.join(commands)}"):
        gathered(a, b, allow_mixed=True, scoring=scoring)
    with pytest.raises(
        UserError, match=rf"(?s)1 run has no .*--workdir={b} --checkpoint=1000{options}$".replace("  ", " ")
    ):
        gathered(b, scoring=scoring)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"step": 900}, "by the protocol 10crop at step 900"),
        ({"protocol": {"name": "crop"}}, "by the protocol crop at step 1000"),
        ({"config": {"seed": 7}}, "with other settings than the run in .*: seed 7 instead of 0"),
        ({"config": {"data": {"image_size": 288}}}, "other settings .*: data.image_size 288 instead of 224"),
    ],
)
def test_predictions_by_other_settings_or_of_another_step_are_refused(tmp_path, source, message):
    run = finished_runs.one()
    workdir = finished_runs.write(tmp_path / "a", run, **{f"{SPLIT}image_size": 224})
    protocol = source.pop("protocol", {"name": "10crop"})["name"]
    store_evaluation(workdir, run, "made_up_validation_10crop_step1000.npz", protocol=protocol, **source)
    with pytest.raises(
        UserError, match=rf"(?s){message}.*\nTo store them again: main.py evaluate .*--protocol=10crop"
    ):
        gathered(workdir, scoring=Scoring(protocol="10crop"))


def test_an_unknown_protocol_is_named_with_the_nearest_one(tmp_path):
    workdir = finished_runs.write(tmp_path / "a", finished_runs.one())
    with pytest.raises(UserError, match=r"--protocol=10crops: there is no '10crops'; .*10crop"):
        gathered(workdir, scoring=Scoring(protocol="10crops"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"set_name": "v3"}, "--set=v3: there is no such set"),
        ({"set_name": "real"}, "several right labels, or none.*main.py score --set=real"),
        ({"set_name": "multilabel"}, "a mean over classes.*main.py score --set=multilabel"),
        ({"set_name": "c"}, "a collection of data sets.*main.py score --set=c"),
        ({"protocol": "crop,10crop"}, "a page has the numbers of one protocol"),
    ],
)
def test_scorings_that_a_page_cannot_show_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Scoring(**options)


def test_sets_are_compared_although_the_runs_were_scored_on_different_splits(tmp_path):
    runs = [finished_runs.one(k, name=name) for k, name in enumerate(("alexnet_2012", "zfnet"))]
    splits = ({}, {f"{SPLIT}eval_split": "train[90%:]", f"{SPLIT}test_split": "validation"})
    workdirs = [
        finished_runs.write(tmp_path / str(k), run, **changes)
        for k, (run, changes) in enumerate(zip(runs, splits, strict=True))
    ]
    for workdir, run in zip(workdirs, runs, strict=True):
        store_evaluation(workdir, run, "imagenet_v2_matched-frequency_test_step1000.npz",
                         guesses=on_other_images(run.guesses))  # fmt: skip
    actual = gathered(*workdirs, allow_mixed=True, scoring=Scoring(set_name="v2"))
    assert actual.same_images
    assert all("scored split" not in sentence for sentence in actual.mixed)


# --- classes in another order -----------------------------------------------------------------------------------

ORDER = np.array([7, 2, 9, 0, 1, 3, 8, 5, 6, 4])
NAMES = [f"class {number}" for number in range(10)]


def in_another_order(guesses):
    """Return guesses that count the classes in `ORDER`."""
    place = np.argsort(ORDER)
    label, top5 = (np.where(part < 0, part, place[part]).astype(np.int32) for part in (guesses.label, guesses.top5))
    return dataclasses.replace(guesses, label=label, top5=top5)


def test_runs_with_classes_in_another_order_are_aligned_by_name(tmp_path):
    a, b = pair(tmp_path)
    expected, notes = gathered(a, b), []
    other = finished_runs.one(1, name="zfnet")
    names = [NAMES[number] for number in ORDER]
    c = finished_runs.write(tmp_path / "c", other, guesses=in_another_order(other.guesses), classes=names)
    actual = collect(group_runs([a, c]), say=notes.append)
    assert notes == [
        f"the run in {c} has the classes of the others in another order: index 0 is 'class 7' and not 'class 0'; they"
        " are aligned by name"
    ]
    assert actual.class_names == tuple(NAMES)
    assert actual.same_images
    for one, known in zip(actual.systems, expected.systems, strict=True):
        for key in ("id", "label", "top5"):
            np.testing.assert_array_equal(getattr(one.runs[0].guesses, key), getattr(known.runs[0].guesses, key))


def test_stored_predictions_that_name_their_classes_are_read_by_name(tmp_path):
    run = finished_runs.one()
    workdir = finished_runs.write(tmp_path / "a", run)
    name = "imagenet_v2_matched-frequency_test_step1000.npz"
    names = [NAMES[number] for number in ORDER]
    store_evaluation(workdir, run, name, guesses=in_another_order(run.guesses), classes=names)
    actual = gathered(workdir, scoring=Scoring(set_name="v2")).systems[0].runs[0].guesses
    np.testing.assert_array_equal(actual.label, run.guesses.label)
    np.testing.assert_array_equal(actual.top5, run.guesses.top5)
    store_evaluation(workdir, run, name, classes=[*NAMES[:9], "z"])
    with pytest.raises(
        UserError, match=r"(?s)_step1000.npz and the run in .* do not have the same .*To store them ag"
    ):
        gathered(workdir, scoring=Scoring(set_name="v2"))


def test_equal_ids_and_labels_are_in_memory_once(tmp_path):
    comparison = gathered(*finished_runs.systems(tmp_path, count=3, seeds=2))
    runs = [run for system in comparison.systems for run in system.runs]
    assert len({id(run.guesses.id) for run in runs}) == 1
    assert len({id(run.guesses.label) for run in runs}) == 1
    assert len({id(run.guesses.top5) for run in runs}) == 6

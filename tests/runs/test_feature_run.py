"""Tests of complete runs of a system of features from the command line, compared with a run of a network."""

import functools
import json
import random
import signal
import time

import numpy as np
import pytest

from imagenet_repro.config import FeatureConfig, config_to_dict, load_config, resolve_config
from imagenet_repro.errors import UserError
from imagenet_repro.runs import feature_run
from imagenet_repro.training.clock import StopSignal
from imagenet_repro.training.systems import FeatureSystem
from tests import command_line


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    return command_line.prepare_fractal(tmp_path_factory.mktemp("data"), train_images=50)


train_arguments = functools.partial(command_line.train_arguments, recipe="tests/feature_recipe.py")


@pytest.fixture(scope="session")
def whole_run(data_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    out, _ = command_line.run(*train_arguments(data_dir, workdir))
    return workdir, out


def test_a_run_leaves_its_numbers_stages_and_pictures(whole_run):
    workdir, out = whole_run
    result = json.loads((workdir / "result.json").read_text())
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    evaluations = [row for row in rows if row["kind"] == "eval"]
    assert [row["step"] for row in evaluations] == [10, 19, 29]  # three epochs of 300 images, 32 at a time
    assert result["system"] == "small_features"
    assert result["spent"]["images"] == 29 * 32
    assert result["rates"]["images"] == 42
    assert result["rates"]["top1_wrong"] == evaluations[-1]["top1_wrong"] < 0.7 * 42
    stages = result["stages"]
    assert set(stages) == {
        *(f"edges.{stage}" for stage in ("sample", "vocabulary", "quantiser", "codes")),
        *(f"texture.{stage}" for stage in ("sample", "vocabulary", "codes")),
        "SVM",
    }
    assert result["spent"]["seconds"] == pytest.approx(sum(stage["seconds"] for stage in stages.values()))
    assert result["spent"]["flops"] == pytest.approx(sum(stage["flops"] for stage in stages.values()))
    assert stages["edges.codes"]["bytes"] == 300 * (4 * 2 * 4 * 8 // 8 + 4 + 4)  # code, label, checksum
    assert "edges.codes" in out
    assert "| small_features |" in (workdir / "table.md").read_text()
    for picture in ("curves.png", "descriptors.png"):
        assert (workdir / picture).stat().st_size > 10_000
    with np.load(workdir / result["predictions"]) as file:
        assert len(set(file["id"])) == 42
        assert int(np.sum(file["top5"][:, 0] != file["label"])) == result["rates"]["top1_wrong"]


def test_it_is_evaluated_and_compared_as_a_network_is(whole_run, data_dir, tmp_path):
    workdir, _ = whole_run
    result = json.loads((workdir / "result.json").read_text())
    out, _ = command_line.call("evaluate", f"--workdir={workdir}", f"--out={tmp_path / 'again.npz'}")
    assert f"top-1 error {100 * result['rates']['top1_error']:.1f} " in out
    with np.load(tmp_path / "again.npz") as again, np.load(workdir / result["predictions"]) as before:
        np.testing.assert_array_equal(again["top5"], before["top5"])
    network = [
        "model.name=lenet5",
        "model.options={}",
        "budget=3ep",
        "batch_size=32",
        "data.name=fractal/c6_n50_v7_s32",
    ]
    network += ["evaluate_every=3ep", "augment.cutmix=0"]
    recipe = ["train", f"--config=tests/recipe.py:{data_dir}", f"--workdir={tmp_path / 'network'}"]
    command_line.call(*recipe, *[f"--config.{setting}" for setting in network])
    out, _ = command_line.call("compare", workdir, tmp_path / "network", f"--out={tmp_path / 'compared'}")
    assert "small_features" in out
    assert "lenet5" in out
    assert (tmp_path / "compared/figures/gains.png").stat().st_size > 10_000
    assert "ifs_003" in (tmp_path / "compared/tables/classes.md").read_text()
    command_line.call(
        "evaluate", f"--workdir={workdir}", "--checkpoint=19"
    )  # next to the predictions from the end of the run
    with np.load(workdir / result["predictions"]) as stored:
        assert int(np.sum(stored["top5"][:, 0] != stored["label"])) == result["rates"]["top1_wrong"]
    assert len(list((workdir / "predictions").iterdir())) == 2
    _, err = command_line.call("export", f"--workdir={workdir}", f"--out={tmp_path / 'x.safetensors'}", code=2)
    assert "only networks' weights can be exported" in err


def test_the_same_command_again_computes_nothing(whole_run, data_dir):
    workdir, _ = whole_run
    out, _ = command_line.call(*train_arguments(data_dir, workdir))
    assert "3ep, is spent" in out
    assert "descriptors" not in out


def test_features_that_exceed_the_budget_are_stored_for_another_run(data_dir, tmp_path):
    cache = tmp_path / "cache"
    out, err = command_line.run(*train_arguments(data_dir, tmp_path / "a", cache_dir=cache, budget="1e6flop"), code=2)
    assert "learning a vocabulary" in out
    assert "1e+06flop was spent before the SVM saw an image: the features of 1 of 2 channels took" in err
    (costs,) = (np.load(path)["costs"] for path in cache.rglob("edges.*/vocabulary.npz"))
    out, _ = command_line.call(
        *train_arguments(data_dir, tmp_path / "b", cache_dir=cache, budget="5st", svm__rate=0.1)
    )
    assert "over 8 x cpu" in out
    assert "edges: learning a vocabulary" not in out
    assert "texture: learning a vocabulary" in out  # the first run had no budget left for these
    stages = json.loads((tmp_path / "b" / "result.json").read_text())["stages"]
    assert (
        stages["edges.vocabulary"] == json.loads(str(costs))["vocabulary"]
    )  # charged as if this run had computed them


def killed(arguments, workdir, after):
    """Kill a run with SIGKILL as soon as `after(workdir)` is true."""
    process = command_line.start(*arguments)
    deadline = time.monotonic() + 1500
    while process.poll() is None and not after(workdir):
        assert time.monotonic() < deadline, "the run makes no progress"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()


MOMENTS = {
    "a vocabulary is there": lambda workdir: any(workdir.rglob("vocabulary.npz")),
    "a quantiser is there": lambda workdir: any(workdir.rglob("quantiser.npz")),
    "codes are there": lambda workdir: len(list(workdir.rglob("codes.json"))) == 2,
    "a checkpoint is there": lambda workdir: any((workdir / "checkpoints").glob("1*")),
}


def assert_same_end(workdir, uninterrupted):
    actual, expected = command_line.arrays(workdir, 29), command_line.arrays(uninterrupted, 29)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


def test_a_run_killed_in_its_stages_and_in_training_ends_like_an_undisturbed_one(whole_run, data_dir, tmp_path):
    arguments = train_arguments(data_dir, tmp_path)
    for moment in ("a quantiser is there", "a checkpoint is there"):
        killed(arguments, tmp_path, MOMENTS[moment])
    out, _ = command_line.run(*arguments)
    assert "learning a vocabulary" not in out
    assert_same_end(tmp_path, whole_run[0])


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_killed_at_any_moment_ends_like_an_undisturbed_one(whole_run, data_dir, tmp_path, moment):
    arguments = train_arguments(data_dir, tmp_path)
    killed(arguments, tmp_path, MOMENTS[moment])
    begun = time.monotonic()
    wait = random.Random(moment).uniform(0, 8)
    killed(arguments, tmp_path, lambda _: time.monotonic() - begun > wait)
    command_line.run(*arguments)
    assert_same_end(tmp_path, whole_run[0])


def test_sigterm_in_a_stage_saves_the_finished_work(whole_run, data_dir, tmp_path):
    arguments = train_arguments(data_dir, tmp_path)
    event = (int(signal.SIGTERM), "edges: codes")
    out, _ = command_line.run(*event, *arguments, program=("-c", command_line.SIGNALLED), code=75)
    assert "stopped by SIGTERM, finished stages are kept" in out
    assert MOMENTS["a vocabulary is there"](tmp_path)
    command_line.run(*arguments)
    assert_same_end(tmp_path, whole_run[0])


def settings(**changes):
    base = {"channels": {"a": {"patch": 16}}, "data": {"image_size": 32}}
    return base | changes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": {"a": {"patches": 16}}}, r"config.channels.a.patches: no such key; did you mean 'patch'"),
        ({"channels": {"a": {"descriptor": "shift"}}}, r"config.channels.a.descriptor: 'shift' .* 'sift'"),
        ({"channels": {"a": {"code": {"name": "fischer"}}}}, r"config.channels.a.code.name: .* 'fisher'"),
        ({"channels": {"a": {"code": {"name": "llc", "components": 3}}}}, r"no such key for name='llc'"),
        ({"channels": {}}, r"config.channels: sections by name are needed here, at least one"),
        ({"channels": {"a b": {}}}, r"'a b' cannot be a name"),
        ({"eval_crop": {"name": "inception"}}, r"config.eval_crop.name: 'inception' is not valid"),
        ({"sample": {"codes": 100}}, r"config.sample.codes: 100 is out of range"),
        ({"model": {"name": "resnet18"}}, r"config.model: no such key"),
    ],
)
def test_a_configuration_of_features_is_as_strict(change, message):
    with pytest.raises(UserError, match=message):
        resolve_config(settings(**change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"image_size": 32, "repeats": 2}}, r"config.data.repeats: .* it must be 1"),
        ({"data": {"image_size": 12}}, r"config.channels.a: an image of 12 x 12 pixels has no room"),
        ({"channels": {"a": {"patch": 16, "pyramid": ("2",)}}}, r"config.channels.a: a pyramid has divisions"),
    ],
)
def test_an_impossible_system_is_refused_before_any_computation(change, message):
    with pytest.raises(UserError, match=message):
        FeatureSystem.create(resolve_config(settings(**change)), 10)


def test_a_configuration_of_features_is_read_back_as_it_was():
    config = load_config("tests/feature_recipe.py:somewhere", {"channels.edges.code.components": "8"})
    assert isinstance(config, FeatureConfig)
    assert config.channels["edges"].code.components == 8
    assert resolve_config(config_to_dict(config)) == config


def test_the_seconds_of_a_channel_are_counted_over_its_stages_batch_by_batch(monkeypatch):
    now, counted = [0.0], []
    monkeypatch.setattr(feature_run.time, "monotonic", lambda: now[0])
    watcher = feature_run._Watcher(StopSignal(), counted.append)
    for stage, seconds in (("a: sample", 5), ("a: sample", 7), ("a: codes", 20), ("a: codes", 23)):
        now[0] = float(seconds)
        watcher.show(stage, seconds, 100)
    assert counted == [0.0, 2.0, 2.0, 5.0]  # what is compiled between two stages does not count
    watcher.start_channel()
    watcher.show("b: sample", 1, 100)
    assert counted[-1] == 0.0
    watcher.close()


def test_a_budget_of_seconds_ends_within_a_channel():
    run = feature_run.FeatureRun.__new__(feature_run.FeatureRun)
    run.config = resolve_config({"channels": {"a": {}, "b": {}}, "budget": "10s"})
    run.learned = {}
    run._check_budget(9.9)
    with pytest.raises(UserError, match=r"budget: 10s was spent before .* features of 1 of 2 channels"):
        run._check_budget(10.0)

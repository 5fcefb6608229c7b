"""Tests of a run and its weights on data whose classes have another order or other names, or changed since.

The network has its initial parameters, so its guesses are poor. That does not matter: an image's guess must not depend
on the order of the classes in the data set, and its label must be the class of the same name.
"""

import dataclasses
import json
import pickle
import shutil

import numpy as np
import pytest

import main
from imagenet_repro import pretrained
from imagenet_repro.config import resolve_config
from imagenet_repro.data.prepare import fingerprint
from imagenet_repro.errors import InterruptedRunError, UserError
from imagenet_repro.inference import evaluation_sets
from imagenet_repro.runs import restore
from imagenet_repro.runs.train import RUNS, train
from imagenet_repro.scoring import predictions, sets, wordnet
from imagenet_repro.storage.workdir import CONFIG, Workdir
from imagenet_repro.training import checkpoint, devices
from imagenet_repro.training.systems import NetworkSystem
from tests.data.memory_split import make_split
from tests.scoring import synthetic_sets

CLASSES = ("cat", "dog", "fish")
REORDERED = ("fish", "cat", "dog")
IMAGES = 14


def write_data(directory, name, classes, *, spelled=None):
    """Write the same images under a list of class names, or under other names in its order."""
    order = [classes.index(CLASSES[number % 3]) for number in range(IMAGES)]
    rows = [(f"{number}.png", 3000 * number, {"label": label}) for number, label in enumerate(order)]
    synthetic_sets.write(directory, name, "train", rows, classes=spelled or classes)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    write_data(directory, "animals", CLASSES)
    write_data(directory, "reordered", REORDERED)
    write_data(directory, "renamed", CLASSES, spelled=("cat", "dog", "hen"))
    write_data(directory, "numbered", CLASSES, spelled=("0", "1", "2"))
    return directory


def configure(data_dir, **data):
    keys = {"name": "animals", "data_dir": str(data_dir), "train_split": "train", "eval_split": "train"}
    return resolve_config(
        {
            "batch_size": 8,
            "precision": "float32",
            "budget": "1st",
            "model": {"name": "lenet5"},
            "data": keys | {"image_size": 32, "threads": 1, "workers": 0} | data,
        }
    )


@pytest.fixture(scope="module")
def workdir(data_dir, tmp_path_factory):
    """Return the workdir of a run that has saved its first checkpoint."""
    run, config = Workdir(tmp_path_factory.mktemp("runs") / "run"), configure(data_dir)
    run.lock()
    run.record_config(config, {"classes": list(CLASSES)})
    checkpoints = checkpoint.Checkpoints(run.checkpoints, 1)
    checkpoints.save(1, NetworkSystem.create(config, len(CLASSES)).initial_state(), {"steps": 1, "seconds": 0.0})
    checkpoints.close()
    return run.path


@pytest.fixture
def call(monkeypatch, capsys):
    """Return a function that runs a command in this process, where JAX has started, and returns its output."""
    monkeypatch.setattr(devices, "start", lambda: None)

    def run(*arguments, code=0):
        assert main.main([*map(str, arguments)]) == code
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    return run


@pytest.fixture
def looked_at(monkeypatch):
    """Return the list of the data sets for which a command checked whether their source has changed."""
    names = []
    monkeypatch.setattr(fingerprint, "say_what_changed", lambda split: names.append(split.name))
    return names


def assert_same(one, other):
    for key in ("id", "label", "top5", "logits"):
        np.testing.assert_array_equal(getattr(one, key), getattr(other, key))
    assert one.provenance["classes"] == other.provenance["classes"]


# --- evaluation -------------------------------------------------------------------------------------------------


def test_a_run_is_scored_by_name_on_classes_in_another_order(workdir, call, tmp_path, looked_at):
    out = call("evaluate", f"--workdir={workdir}", "--data.name=reordered", f"--out={tmp_path / 'r.npz'}")
    assert (
        f"data set reordered, split train, has the classes of the run in {workdir} in another order: index 0 is 'fish'"
        " and not 'cat'; they are aligned by name" in out
    )
    stored = predictions.load(tmp_path / "r.npz")
    assert stored.provenance["classes"] == list(CLASSES)
    labels = dict(zip(stored.id.tolist(), stored.label.tolist(), strict=True))
    assert labels == {f"{number}.png": number % 3 for number in range(IMAGES)}
    assert str(stored.error_rates()) in out
    assert looked_at == ["reordered"]


@pytest.mark.slow
def test_exported_weights_name_their_classes_and_score_like_the_run(workdir, data_dir, call, tmp_path, looked_at):
    call("evaluate", f"--workdir={workdir}", f"--out={tmp_path / 'own.npz'}")
    call("evaluate", f"--workdir={workdir}", "--data.name=reordered", f"--out={tmp_path / 'r.npz'}")
    own = predictions.load(tmp_path / "own.npz")
    assert_same(predictions.load(tmp_path / "r.npz"), own)
    file = tmp_path / "run.safetensors"
    call("export", f"--workdir={workdir}", f"--out={file}")
    assert pretrained.read(file).class_names == CLASSES
    keys = {"name": "reordered", "data_dir": data_dir, "eval_split": "train", "workers": 0, "eval_batch_size": 8}
    data = [f"--data.{key}={value}" for key, value in keys.items()]
    out = call("evaluate", f"--weights={file}", *data, f"--out={tmp_path / 'w.npz'}")
    assert f"data set reordered, split train, has the classes of {file} in another order" in out
    assert looked_at[-1] == "reordered"
    assert_same(predictions.load(tmp_path / "w.npz"), own)


@pytest.mark.parametrize("command", ["evaluate", "localize"])
def test_other_classes_are_refused_before_anything_is_computed(command, workdir, call, tmp_path, monkeypatch):
    monkeypatch.setattr(NetworkSystem, "create", lambda *arguments, **options: pytest.fail("it was built"))
    (tmp_path / "boxes.csv").write_text("file,class,x_min,y_min,x_max,y_max\n0.png,cat,1,1,2,2\n")
    options = {"localize": [f"--boxes={tmp_path / 'boxes.csv'}", "--method=cam"]}.get(command, [])
    error = call(command, f"--workdir={workdir}", "--data.name=renamed", *options, code=2)
    assert f"data set renamed, split train, and the run in {workdir} do not have the same classes" in error
    assert "only data set renamed, split train, has 'hen'; only the run" in error


@pytest.mark.parametrize(
    ("classes", "label", "note"),
    [
        (("e", "a"), {0: 4, 1: 0}, "of the run; they are aligned by name, and guesses are among all 5"),
        (("0", "1"), None, "memory, split train, has 2 classes and the run 5; without names they cannot be aligned"),
        (tuple("01234"), {0: 0, 4: 4}, "was not checked: data set memory, split train, has no names for its classes"),
    ],
)
def test_labels_of_a_split_count_the_classes_of_the_run(classes, label, note):
    split = make_split(10)
    split = dataclasses.replace(
        split, class_names=classes, records=[one._replace(label=one.label % len(classes)) for one in split.records]
    )
    notes = []
    if label is None:
        with pytest.raises(UserError, match=note):
            evaluation_sets.with_classes(split, tuple("abcde"), "the run", notes.append)
        return
    aligned = evaluation_sets.with_classes(split, tuple("abcde"), "the run", notes.append)
    assert notes[0].endswith(note)
    pairs = zip(split.records, pickle.loads(pickle.dumps(aligned.records)), strict=True)
    found = {one.label: other.label for one, other in pairs}
    assert found == {old: label.get(old, old) for old in found}


def test_a_network_of_other_classes_is_refused_on_an_evaluation_set():
    opened = evaluation_sets.OpenSet(sets.find_set("v2"), ())
    evaluation_sets.align_classes(opened, wordnet.readable_names(sets.imagenet_wnids()), "weights")
    with pytest.raises(
        UserError, match="weights does not have ImageNet's 1,000 classes: it has them in another order"
    ):
        evaluation_sets.align_classes(opened, sets.imagenet_wnids()[::-1], "weights")


# --- a data set that changed since the run began ----------------------------------------------------------------


class StoppedRun:
    """A run that stops before it computes anything."""

    def __init__(self, config, workdir, splits):
        self.classes = splits.train.class_names

    def go(self):
        raise InterruptedRunError("stopped")


def test_a_run_records_its_classes_and_refuses_others(data_dir, workdir, tmp_path, monkeypatch, call):
    monkeypatch.setattr(devices, "start", lambda: None)
    monkeypatch.setitem(RUNS, NetworkSystem, StoppedRun)
    with pytest.raises(InterruptedRunError):
        train(configure(data_dir), str(tmp_path / "new"))
    assert Workdir(tmp_path / "new").classes() == CLASSES
    run = shutil.copytree(workdir, tmp_path / "run")
    with pytest.raises(InterruptedRunError):
        train(configure(data_dir), str(run))
    write_data(tmp_path, "animals", REORDERED)
    with pytest.raises(
        UserError, match=r"data set animals has the classes of the run in .*/run, when it began, in ano"
    ):
        train(configure(tmp_path), str(run))
    renamed = tmp_path / "renamed"
    write_data(renamed, "animals", CLASSES, spelled=("cat", "dog", "hen"))
    with pytest.raises(UserError, match="only data set animals has 'hen'"):
        train(configure(renamed), str(run))
    error = call("evaluate", f"--workdir={run}", f"--data.data_dir={renamed}", code=2)
    assert f"data set animals, split train, and the run in {run} do not have the same classes" in error


def test_a_run_without_a_record_has_the_classes_of_its_data_set(workdir, tmp_path, capsys):
    run = Workdir(shutil.copytree(workdir, tmp_path / "run"))
    (run.path / CONFIG).write_text(json.dumps(json.loads((run.path / CONFIG).read_text()) | {"provenance": {}}))
    assert restore.trained_classes(run) == CLASSES
    assert (
        "has no record of its classes; they are taken to be those that data set animals has" in capsys.readouterr().out
    )
    (run.path / "result.json").write_text(json.dumps({"classes": REORDERED}))
    assert restore.trained_classes(run) == REORDERED

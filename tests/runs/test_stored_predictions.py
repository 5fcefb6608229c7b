import os

import pytest

from imagenet_repro.errors import UserError
from imagenet_repro.runs import stored_predictions
from imagenet_repro.scoring import predictions
from tests import finished_runs
from tests.scoring import synthetic_predictions
from tests.scoring.synthetic_predictions import replace


def test_predictions_of_a_run_and_of_a_file(tmp_path):
    (workdir,) = finished_runs.systems(tmp_path, count=1, images=60)
    of_run = stored_predictions.load(workdir)
    of_file = stored_predictions.load(of_run.path)
    assert of_run.path.parent.parent == tmp_path / "nec_uiuc_2010-0"
    assert of_run.predictions.id.tolist() == of_file.predictions.id.tolist()
    assert stored_predictions.class_names(of_file) == tuple(f"class {c}" for c in range(10))
    assert of_file.network == ""  # these files do not state it


def test_classes_without_names_are_numbers(tmp_path):
    predictions.save(tmp_path / "a.npz", synthetic_predictions.members(1)[0])  # for a missing data set
    assert stored_predictions.class_names(stored_predictions.load(tmp_path / "a.npz")) == tuple(
        f"class {c}" for c in range(8)
    )
    predictions.save(
        tmp_path / "b.npz",
        replace(synthetic_predictions.members(1)[0], provenance={"config": "none"}),
    )
    assert stored_predictions.class_names(stored_predictions.load(tmp_path / "b.npz")) == tuple(
        f"class {c}" for c in range(8)
    )
    assert stored_predictions.load(tmp_path / "a.npz").network == "googlenet"


def test_the_protocol_is_read_from_the_file(tmp_path):
    config = synthetic_predictions.config(0)
    assert of(tmp_path, config=config).protocol == "crop"
    assert of(tmp_path, config=config, protocol={"name": "10crop"}).protocol == "10crop"
    assert of(tmp_path, system="human").protocol == ""
    assert of(tmp_path, system="human").network == "human"


@pytest.mark.parametrize(
    ("places", "names"),
    [
        (["runs/a/predictions/x.npz", "runs/b/predictions/x.npz"], ("a", "b")),
        (["runs/a/x.npz", "runs/a/y.npz"], ("x", "y")),
        (["runs/a/v1.5.npz"], ("v1.5",)),
        (["runs/a", "runs/a/predictions/x.npz"], ("a", "a/predictions/x")),
        (["p/a/x.npz", "q/a/x.npz", "q/b/x.npz"], ("p/a", "q/a", "q/b")),
    ],
)
def test_short_names_distinguish_paths(places, names):
    assert stored_predictions.short_names(places) == names


def test_the_same_file_twice_is_refused(tmp_path):
    (tmp_path / "a.npz").write_text("")
    os.symlink(tmp_path / "a.npz", tmp_path / "b.npz")
    with pytest.raises(UserError, match=r"b\.npz is the same file as .*a.npz"):
        stored_predictions.short_names([tmp_path / "a.npz", tmp_path / "b.npz"])


def of(tmp_path, **provenance):
    return stored_predictions.StoredPredictions(
        tmp_path / "made.npz",
        replace(synthetic_predictions.members(1)[0], provenance=provenance),
    )


def test_files_of_different_models_are_refused(tmp_path):
    config = synthetic_predictions.config(0)
    one = of(tmp_path, config=config, step=100)
    stored_predictions.check_same_model(one, of(tmp_path, config=config | {"model": {"name": "googlenet"}}, step=100))
    stored_predictions.check_same_model(one, of(tmp_path))
    for other in (
        {"config": config | {"seed": 1}, "step": 100},
        {"config": config, "step": 200},
        {"config": config | {"model": {"name": "vgg16"}}},
        {"config": {"system": "xrce_2011"}},
        {"config": config, "step": 100, "protocol": {"name": "10crop"}},
    ):
        with pytest.raises(UserError, match="must differ only in their images"):
            stored_predictions.check_same_model(one, of(tmp_path, **other))


def test_images_that_were_trained_on_are_refused(tmp_path):
    for split, train, refused in (
        ("train[99%:]", "train", True),
        ("train", "train", True),
        ("train[99%:]", "train[:99%]", False),
        ("validation", "train", False),
    ):
        one = of(tmp_path, config=synthetic_predictions.config(0, split, train))
        if not refused:
            stored_predictions.check_not_trained_on(one)
            continue
        with pytest.raises(UserError, match="was trained on all of train: "):
            stored_predictions.check_not_trained_on(one)

"""Tests of classifiers on frozen features as runs: their budget, their result, and what is refused."""

import dataclasses

import numpy as np
import pytest

import imagenet_repro
from imagenet_repro import models, pretrained
from imagenet_repro.config import FrozenConfig, resolve_config
from imagenet_repro.data import sources
from imagenet_repro.errors import UserError
from imagenet_repro.report.collect import collect, group_runs
from imagenet_repro.runs import train
from imagenet_repro.scoring import predictions
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.training import devices, systems
from tests.scoring import synthetic_sets

CLASSES = ("cat", "dog", "fish")
ROWS = [(f"{number}.png", 3000 * number, {"label": number % 3}) for number in range(30)]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    synthetic_sets.write(directory, "animals", "train", ROWS, classes=CLASSES)
    weights = directory / "lenet.safetensors"
    pretrained.write(models.create("lenet5", 5, seed=1), weights)
    data = {"name": "animals", "data_dir": str(directory), "train_split": "train[:20]", "eval_split": "train[20:]"}
    return {
        "classifier": "knn",
        "batch_size": 8,
        "model": {"name": "lenet5", "weights": str(weights)},
        "data": data | {"image_size": 32, "workers": 0, "threads": 1},
        "probe": {"knn": {"k": (1,)}, "held_out": 0.2},
    }


@pytest.fixture
def run(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "start", lambda: None)

    def call(name, **changes):
        config = resolve_config(settings | changes)
        result = train.train(config, tmp_path / name).to_dict()
        assert result == Workdir(tmp_path / name).result()
        return result

    return call


@pytest.mark.parametrize(
    ("budget", "images"),
    [("1ep", 20), ("12img", 12), ("1st", 8), ("100ep", 20)],
)
def test_a_budget_pays_for_images_each_once(budget, images, run):
    spent = run("run", budget=budget)["spent"]
    assert spent["images"] == images
    assert spent["flops"] == pytest.approx(images * 2 * run("run", budget=budget)["multiply_adds"])


def test_operations_and_a_seed_choose_the_images(run, tmp_path):
    cost = 2 * run("first", budget="12img")["multiply_adds"]
    assert run("second", budget=f"{12.5 * cost}flop", seed=1)["spent"]["images"] == 12
    images = [trained_on(tmp_path / name) for name in ("first", "second")]
    assert len(images[0]) == len(images[1]) == 1
    assert images[0] != images[1]


def trained_on(workdir):
    """Return the ids of the 12 training images whose features a run stored."""
    arrays = [np.load(path) for path in workdir.rglob("00000.npz")]
    return sorted(array["id"].tolist() for array in arrays if len(array["id"]) == 12)


def test_the_nearest_image_decides_and_runs_are_compared(run, settings, tmp_path):
    results = [run(f"seed{seed}", seed=seed) for seed in (0, 1)]
    assert results[0]["classifier"] == {"name": "knn", "setting": "k = 1"}
    comparison = collect(group_runs([tmp_path / "seed0", tmp_path / "seed1"]))
    assert [len(system.runs) for system in comparison.systems] == [2]
    stored = predictions.load(tmp_path / "seed0" / results[0]["predictions"])
    # The features of the network without its head, from Python, and the most similar of them.
    net = imagenet_repro.load(settings["model"]["weights"], image_size=32)
    net.config = dataclasses.replace(net.config, eval_crop=FrozenConfig().eval_crop)
    data = resolve_config(settings).data
    fitted, scored = (sources.open_split(data, split).records for split in (data.train_split, data.eval_split))
    features = net.features([record.image for record in (*fitted, *scored)]).astype(np.float16).astype(np.float64)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    nearest = np.argmax(features[20:] @ features[:20].T, axis=1)
    expected = {record.id: fitted[int(index)].label for record, index in zip(scored, nearest, strict=True)}
    found = dict(zip(stored.id.tolist(), stored.top5[:, 0].tolist(), strict=True))
    assert found == expected


def test_linear_heads_depend_on_the_seed(run):
    probe = {"linear": {"steps": 3, "batch_size": 8}, "held_out": 0.2}
    results = [run(f"seed{seed}", classifier="linear", probe=probe, seed=seed) for seed in (0, 1)]
    entropies = [result["rates"]["cross_entropy"] for result in results]
    assert np.isfinite(entropies).all()
    assert entropies[0] != entropies[1]


def test_what_cannot_be_fitted_is_refused(settings, run):
    with pytest.raises(UserError, match="pays for 1 training images"):
        run("one", budget="1img")
    with pytest.raises(UserError, match="name one"):
        systems.check_config(resolve_config(settings | {"model": {"name": "lenet5"}}))
    with pytest.raises(UserError, match="no steps and no checkpoints"):
        systems.create_system(resolve_config(settings), ("a", "b", "c"))
    with pytest.raises(UserError, match="says that it is of lenet5"):
        run("other", model=settings["model"] | {"name": "resnet20_cifar"})
    with pytest.raises(UserError, match="an image cannot have more neighbours"):
        run("neighbours", probe={"knn": {"k": (50,)}, "held_out": 0.2})

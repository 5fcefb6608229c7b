"""Tests of networks loaded from Python: their images and logits are those of `evaluate`, and what is refused."""

import io
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import imagenet_repro
from imagenet_repro import models, pretrained
from imagenet_repro.config import resolve_config
from imagenet_repro.data import sources
from imagenet_repro.errors import UserError
from imagenet_repro.models.spec import Preprocessing
from imagenet_repro.runs.evaluate import evaluate
from imagenet_repro.scoring import predictions
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.training import checkpoint, devices
from imagenet_repro.training.systems import NetworkSystem
from tests.scoring import synthetic_sets

CLASSES = ("cat", "dog", "fish")
ROWS = [(f"{number}.png", 3000 * number, {"label": number % 3}) for number in range(7)]
COLOURS = Preprocessing(36, 0.9, "bicubic", (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), antialias=False)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    synthetic_sets.write(directory, "animals", "train", ROWS, classes=CLASSES)
    return directory


@pytest.fixture(scope="module")
def config(split):
    data = {"name": "animals", "data_dir": str(split), "eval_split": "train", "image_size": 32, "workers": 0}
    model = {"name": "lenet5"}
    return resolve_config({"batch_size": 8, "precision": "float32", "budget": "1st", "model": model, "data": data})


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    workdir = Workdir(tmp_path_factory.mktemp("runs") / "run")
    workdir.lock()
    workdir.record_config(config, {"classes": list(CLASSES)})
    checkpoints = checkpoint.Checkpoints(workdir.checkpoints, 1)
    checkpoints.save(1, NetworkSystem.create(config, 3).initial_state(), {"steps": 1, "seconds": 0.0})
    checkpoints.close()
    return workdir.path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "lenet.safetensors"
    pretrained.write(models.create("lenet5", 3, seed=1), path, preprocessing=COLOURS, class_names=CLASSES)
    return path


@pytest.fixture
def encoded(split):
    data = resolve_config({"data": {"name": "animals", "data_dir": str(split)}}).data
    return [record.image for record in sources.open_split(data, "train").records]


def test_a_run_gives_the_logits_of_evaluation(run, encoded, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(devices, "start", lambda: None)
    evaluate(str(run), which="last", data={}, out=str(tmp_path / "out.npz"))
    precision = jax.config.jax_default_matmul_precision
    net = imagenet_repro.load(run, which="last", batch_size=8)
    assert jax.config.jax_default_matmul_precision == precision
    np.testing.assert_array_equal(predictions.to_float16(net(encoded)), predictions.load(tmp_path / "out.npz").logits)
    assert net.class_names == CLASSES
    assert "step 1 of the run" in net.notes[0]


def test_images_of_every_kind_are_prepared_as_the_file_states(weights, encoded, tmp_path):
    net = imagenet_repro.load(weights, batch_size=4)
    pixels = np.array(Image.open(io.BytesIO(encoded[1])).convert("RGB"))
    (tmp_path / "one.png").write_bytes(encoded[1])
    kinds = [encoded[1], pixels, Image.fromarray(pixels), tmp_path / "one.png", str(tmp_path / "one.png")]
    prepared = [net.preprocess(kind) for kind in kinds]
    for other in prepared[1:]:
        np.testing.assert_array_equal(prepared[0], other)
    plain = np.asarray(prepared[0]) * np.float32(COLOURS.std) + np.float32(COLOURS.mean)
    assert prepared[0].shape == (36, 36, 3)
    assert plain.min() > -1e-6
    assert plain.max() < 1 + 1e-6
    assert np.abs(plain * 255 - np.round(plain * 255)).max() < 1e-3
    np.testing.assert_array_equal(net(kinds), net(np.stack(prepared)))  # 5 images, in two batches


def test_features_lead_to_the_logits(weights, encoded):
    net = imagenet_repro.load(weights)
    features = net.features(encoded)
    np.testing.assert_allclose(np.asarray(net.network.output(jnp.asarray(features))), net(encoded), atol=1e-5)
    assert net.image_size == 36
    assert imagenet_repro.load(weights, image_size=32).image_size == 32


def test_the_best_classes_come_first(weights):
    net = imagenet_repro.load(weights)
    (best,) = net.top(np.log([[0.2, 0.5, 0.3]]), k=2)
    assert [name for name, _ in best] == ["dog", "fish"]
    np.testing.assert_allclose([share for _, share in best], [0.5, 0.3])


def test_a_file_without_classes_has_those_of_its_head(tmp_path):
    pretrained.write(models.create("lenet5", 7), tmp_path / "seven.safetensors")
    assert imagenet_repro.load(tmp_path / "seven.safetensors").class_names == tuple("0123456")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: net("cat.jpg"), "put a single image into a list"),
        (lambda net: net([]), "at least one image"),
        (lambda net: net(["nowhere.jpg"]), "nowhere.jpg cannot be read: No such file"),
        (lambda net: net([b"GIF89a"]), "the image cannot be decoded"),
        (lambda net: net([np.zeros((4, 4), np.uint8)]), r"an array of uint8 \(4, 4\) is no image"),
        (lambda net: net([np.zeros((4, 4, 3), np.float32)]), "is taken as the result of net.preprocess"),
        (lambda net: net(np.zeros((36, 36, 3), np.float32)), r"has the shape \[n, h, w, 3\]"),
        (lambda net: net([7]), "7 is no image"),
        (lambda net: net.features([np.zeros((4, 4, 3), np.uint8)], layer="poled"), "pooled"),
        (lambda net: net.top(np.zeros((1, 4))), "3 classes"),
    ],
)
def test_what_is_no_image_or_layer_is_refused(call, message, weights):
    with pytest.raises(UserError, match=message):
        call(imagenet_repro.load(weights))


def test_sources_that_do_not_fit_are_refused(weights, run, tmp_path):
    with pytest.raises(UserError, match="says that it is of lenet5"):
        imagenet_repro.load(weights, model="resnet20_cifar")
    with pytest.raises(UserError, match="leave out model"):
        imagenet_repro.load(run, model="lenet5")
    with pytest.raises(UserError, match="no checkpoint"):
        imagenet_repro.load(run, which="7")
    with pytest.raises(UserError, match="batch_size=0"):
        imagenet_repro.load(weights, batch_size=0)
    (tmp_path / "config.json").write_text(json.dumps({"config": {}, "provenance": {"classes": ["a", "b"]}}))
    with pytest.raises(UserError, match="train first"):
        imagenet_repro.load(tmp_path)


def test_importing_the_package_stays_light():
    code = "import sys, imagenet_repro; assert 'load' in dir(imagenet_repro); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert all(callable(getattr(imagenet_repro, name)) for name in imagenet_repro.__all__ if name != "__version__")
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        imagenet_repro.lode  # noqa: B018

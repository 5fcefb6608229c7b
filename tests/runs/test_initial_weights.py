"""Tests of the sources that a run starts from: a file and another run, and those that do not fit."""

import numpy as np
import pytest

from imagenet_repro import models, pretrained
from imagenet_repro.config import Model, resolve_config
from imagenet_repro.errors import UserError
from imagenet_repro.pretrained import tensors
from imagenet_repro.runs import initial_weights
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.training import checkpoint
from imagenet_repro.training.systems import NetworkSystem


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = Workdir(tmp_path_factory.mktemp("runs") / "run")
    workdir.lock()
    config = resolve_config({"batch_size": 8, "precision": "float32", "model": {"name": "lenet5"}, "seed": 3})
    workdir.record_config(config, {"classes": ["cat", "dog"]})
    checkpoints = checkpoint.Checkpoints(workdir.checkpoints, 1)
    checkpoints.save(1, NetworkSystem.create(config, 2).initial_state(), {"steps": 1, "seconds": 0.0}, 0.5)
    checkpoints.close()
    return str(workdir.path)


def test_a_run_is_a_source_like_its_weights(run):
    weights = initial_weights.read_source(run)
    model = models.create("lenet5", 5, seed=0)
    report = pretrained.load(model, weights, class_names=["a", "b", "c", "d", "e"])
    assert "step 1 of the run" in report.notes[0]
    expected = tensors.to_torch(models.create("lenet5", 2, seed=3))
    for name, array in tensors.to_torch(model).items():
        if name not in report.replaced:
            np.testing.assert_array_equal(array, expected[name])
    assert report.replaced  # the head for other classes
    described = initial_weights.describe_source(run)
    assert described["path"] == run
    assert described == initial_weights.describe_source(run)


def test_sources_are_checked_against_their_network(run, tmp_path):
    initial_weights.check_fits(run, Model("lenet5"))
    with pytest.raises(UserError, match="says that it is of lenet5"):
        initial_weights.check_fits(run, Model("resnet20_cifar"))
    with pytest.raises(UserError, match="none"):
        initial_weights.check_fits(str(tmp_path / "none.pth"), Model("lenet5"))

"""VGG: counts, maps and initial values; test_goldens.py compares its logits with the reference."""

import numpy as np
import pytest
from flax import nnx

from imagenet_repro import models
from imagenet_repro.errors import UserError
from tests.models import probe


def test_each_block_halves_the_map():
    maps = probe.maps("vgg11", 224)
    assert maps == [
        (224, 224, 64),
        (112, 112, 128),
        *[(56, 56, 256)] * 2,
        *[(28, 28, 512)] * 2,
        *[(14, 14, 512)] * 2,
    ]


def test_configuration_c_ends_its_last_blocks_with_one_by_one():
    model = models.abstract("vgg16c")
    kernels = [layer.weight.shape[0] for layer in model.features_ if hasattr(layer, "weight")]
    assert kernels == [3, 3, 3, 3, 3, 3, 1, 3, 3, 1, 3, 3, 1]
    assert probe.maps("vgg16c", 64) == probe.maps("vgg16", 64)


def test_names_of_the_reference():
    model = models.abstract("vgg11_bn")
    params, stats = nnx.state(model, nnx.Param), nnx.state(model, nnx.BatchStat)
    assert [index for index in params["features_"] if index != "_length"] == [
        *(0, 1, 4, 5, 8, 9, 11, 12),
        *(15, 16, 18, 19, 22, 23, 25, 26),
    ]
    assert list(params["classifier"]) == [0, 3, 6]
    assert set(stats["features_"][26]) == {"running_mean", "running_var"}


def test_initial_values():
    def pick(model):
        return model.features_[3].weight, model.classifier[6].weight, model.features_[3].bias, model.classifier[0].bias

    conv, linear, *biases = probe.initial("vgg11", pick)
    np.testing.assert_allclose(conv.std(), np.sqrt(2 / (9 * 128)), rtol=0.02)
    np.testing.assert_allclose(linear.std(), 0.01, rtol=0.01)
    assert all((bias == 0).all() for bias in biases)


def test_sizes_and_features():
    assert probe.shapes("vgg11", (32, 70)) == (2, 10)
    assert probe.shapes("vgg11_bn", (224, 224), num_classes=0) == (2, 4096)
    with pytest.raises(UserError, match="at least 32 "):
        probe.shapes("vgg11", (70, 31))

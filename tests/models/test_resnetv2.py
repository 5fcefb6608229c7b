"""ResNets with pre-activation; test_goldens.py compares their logits with timm's."""

import numpy as np

from imagenet_repro import models
from imagenet_repro.models.resnetv2 import PreActBottleneck
from tests.models import probe
from tests.models.residual import apply, make, numbers, parameter_shapes

PLAIN = {"stride": 1, "drop_path": 0.0, "zero_init_last": False}


def test_resnetv2_200_normalises_in_the_stem_and_in_its_first_block():
    shapes = parameter_shapes("resnetv2_200")
    assert shapes["stem.norm.weight"] == shapes["stages.0.blocks.0.norm1.weight"] == (64,)
    assert "stem.norm.weight" not in parameter_shapes("resnetv2_50")


def test_nothing_follows_the_addition():
    x = numbers((1, 4, 4, 32)) - 1  # some negative numbers, which a ReLU would take away
    block = make(PreActBottleneck, 32, 8, **PLAIN | {"zero_init_last": True})
    np.testing.assert_array_equal(apply(block, x), x)


def test_a_projection_reads_the_activated_input():
    block = make(PreActBottleneck, 16, 8, **PLAIN | {"zero_init_last": True, "stride": 2})
    x = numbers((1, 5, 5, 16)) - 1
    expected = np.maximum(x / np.sqrt(1 + 1e-5), 0)[:, ::2, ::2] @ np.asarray(block.downsample.conv.weight[0, 0])
    np.testing.assert_allclose(apply(block, x, training=False), expected, rtol=1e-4, atol=1e-5)


def test_stochastic_depth_drops_branches_of_images_in_training_only():
    block = make(PreActBottleneck, 32, 8, **PLAIN | {"drop_path": 0.5})
    x = numbers((64, 2, 2, 32))
    dropped = [np.array_equal(y, image) for y, image in zip(apply(block, x), x, strict=True)]
    assert 16 < sum(dropped) < 48
    undropped = make(PreActBottleneck, 32, 8, **PLAIN)
    np.testing.assert_array_equal(apply(block, x, training=False), apply(undropped, x, training=False))


def test_stochastic_depth_rises_linearly_over_all_blocks():
    model = models.abstract("resnetv2_50", drop_path=0.15)
    rates = [block.drop_path.rate for stage in model.stages for block in stage.blocks]
    np.testing.assert_allclose(rates, np.linspace(0, 0.15, 16))


def test_sizes_and_features():
    assert probe.shapes("resnetv2_50", (1, 1)) == (2, 10)
    assert probe.shapes("resnetv2_50", (47, 33), num_classes=0) == (2, 2048)

"""RegNets: stages, names and blocks; tests/pretrained/test_peers.py compares logits with torchvision's."""

import jax
import numpy as np
import pytest

from imagenet_repro import models
from imagenet_repro.models.nn.initialisers import initialise
from imagenet_repro.models.nn.network import tensor_name
from imagenet_repro.models.regnet import Block, RegNet, Rule
from tests.models.residual import apply, numbers, parameter_shapes


@pytest.mark.parametrize(
    ("rule", "stages"),  # of RegNetY-16GF and RegNetY-400MF, as torchvision's networks have them
    [
        (Rule(18, 200, 106.23, 2.48, 112), [(224, 2), (448, 4), (1232, 11), (3024, 1)]),
        (Rule(16, 48, 27.89, 2.09, 8), [(48, 1), (104, 3), (208, 6), (440, 6)]),
    ],
)
def test_five_numbers_give_the_stages(rule, stages):
    assert rule.stages() == stages


def test_names_are_timms_and_squeeze_has_a_quarter_of_the_input():
    shapes = parameter_shapes("regnet_y_16gf")
    assert shapes["stem.conv.weight"] == (3, 3, 3, 32)
    assert shapes["s1.b1.se.fc1.weight"] == (1, 1, 224, 8)
    assert shapes["s3.b11.conv2.conv.weight"] == (3, 3, 112, 1232)
    assert shapes["s3.b11.se.fc1.weight"] == (1, 1, 1232, 308)
    assert shapes["s4.b1.downsample.conv.weight"] == (1, 1, 1232, 3024)
    assert "s4.b2.conv1.conv.weight" not in shapes
    assert models.spec("regnety_160") is models.spec("regnet_y_16gf")


def test_names_of_blocks_count_from_one():
    assert tensor_name(("s1", "b_from_1", 0, "conv", "weight")) == "s1.b1.conv.weight"
    assert tensor_name(("s1", "b_from_1")) == "s1"  # the prefix of the names of its blocks
    assert tensor_name(("features_", "0")) == "features.0"


@pytest.mark.slow
def test_a_zero_last_scale_makes_a_block_the_identity():
    options = {"stride": 1, "last_scale": 0.0, "drop_path": 0.0, "dtype": np.float32}
    block, x = (
        initialise(lambda rngs: Block(16, 16, 8, rngs=rngs, **options), jax.random.key(0)),
        numbers((1, 4, 4, 16)),
    )
    np.testing.assert_array_equal(apply(block, x), x)


@pytest.mark.slow
def test_a_loop_over_equal_blocks_changes_nothing():
    rule, x = Rule(4, 24, 0.0, 2.0, 8), numbers((2, 32, 32, 3))
    results = []
    for scan in (False, True):
        network = initialise(
            lambda rngs, scan=scan: RegNet(rule, rngs=rngs, num_classes=3, scan=scan, drop_path=0.1), jax.random.key(0)
        )
        assert len(network.s1.b_from_1) == 4
        results.append(apply(network, x, training=False))
    np.testing.assert_allclose(*results, rtol=1e-5)

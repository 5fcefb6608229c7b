"""ResNets: stems, shortcuts and strides; test_goldens.py compares their logits with the reference."""

import numpy as np
import pytest

from imagenet_repro import models
from imagenet_repro.errors import UserError
from imagenet_repro.models.resnet import BasicBlock, Bottleneck, PaddedIdentity
from tests.models import probe
from tests.models.residual import apply, count, count_and_work, make, numbers, parameter_shapes

PLAIN = {"stride": 1, "shortcut": "B", "last_scale": 1.0, "drop_path": 0.0}


@pytest.mark.parametrize("stem", ["imagenet", "small"])
@pytest.mark.parametrize("size", [(1, 1), (33, 64)])
def test_any_size_is_valid(stem, size):
    assert probe.shapes("resnet18", size, stem=stem) == (2, 10)


def test_the_small_stem_has_7680_fewer_parameters_and_16_times_the_work():
    (large, little), (small, much) = (count_and_work("resnet18", 64, stem=stem) for stem in ("imagenet", "small"))
    assert large - small == 3 * 64 * (49 - 9)
    assert 14 < much / little < 17


@pytest.mark.parametrize(("name", "features"), [("resnet18", 512), ("resnet50", 2048)])
def test_features_without_a_head(name, features):
    assert probe.shapes(name, (64, 64), num_classes=0) == (2, features)


def test_option_c_has_13_projections_more_than_b():
    width, repeats = np.array([64, 128, 256, 512]), np.array([3, 3, 5, 2])  # blocks that do not change the shape
    assert count("resnet34", shortcut="C") == 21_797_672 + np.sum(repeats * (width**2 + 2 * width))


def test_parameter_names_do_not_depend_on_the_place_of_the_stride():
    assert parameter_shapes("resnet50_v1") == parameter_shapes("resnet50")


def test_v1_halves_the_map_in_the_first_1x1():
    for name, first, second in (("resnet50", 1, 2), ("resnet50_v1", 2, 1)):
        block = models.abstract(name).layer2[0]
        assert (block.conv1.stride[0], block.conv2.stride[0], block.conv3.stride[0]) == (first, second, 1), name
        assert block.downsample[0].stride == (2, 2)


def test_option_a_takes_every_second_pixel_and_pads_channels_with_zeros():
    shortcut = PaddedIdentity(2, 4)
    x = numbers((2, 5, 6, 4))
    y = shortcut(x)
    assert y.shape == (2, 3, 3, 8)
    np.testing.assert_array_equal(y[..., :4], x[:, ::2, ::2])
    assert not y[..., 4:].any()


@pytest.mark.parametrize(("option", "projected"), [("A", 0), ("B", 3), ("C", 8)])
def test_the_number_of_projected_shortcuts_follows_the_option(option, projected):
    names = parameter_shapes("resnet18", shortcut=option)
    assert sum("downsample.0" in name for name in names) == projected


def test_a_shortcut_that_does_not_exist():
    with pytest.raises(UserError, match="no shortcut 'D'"):
        models.abstract("resnet18", shortcut="D")


@pytest.mark.parametrize(("block", "width"), [(BasicBlock, 64), (Bottleneck, 16)])
def test_zero_initialised_last_scale_makes_every_block_the_identity(block, width):
    x = numbers((1, 8, 8, 64))
    np.testing.assert_array_equal(apply(make(block, 64, width, **PLAIN | {"last_scale": 0.0}), x), x)


def test_zero_init_last_reaches_every_block():
    model = models.create("resnet18", 10, zero_init_last=True)
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        for block in stage:
            np.testing.assert_array_equal(block.bn2.weight[...], 0)
            np.testing.assert_array_equal(block.bn1.weight[...], 1)


def test_stochastic_depth_drops_branches_of_images_in_training_only():
    block = make(BasicBlock, 8, 8, **PLAIN | {"drop_path": 0.5})
    x = numbers((64, 4, 4, 8))
    trained = apply(block, x)
    dropped = [np.array_equal(y, image) for y, image in zip(trained, x, strict=True)]
    assert 16 < sum(dropped) < 48
    undropped = make(BasicBlock, 8, 8, **PLAIN)
    np.testing.assert_array_equal(apply(block, x, training=False), apply(undropped, x, training=False))


def test_stochastic_depth_rises_linearly_over_all_blocks():
    model = models.abstract("resnet18", drop_path=0.14)
    stages = (model.layer1, model.layer2, model.layer3, model.layer4)
    np.testing.assert_allclose([block.drop_path.rate for stage in stages for block in stage], np.arange(8) / 50)


def test_dropout_before_the_head_acts_in_training_only():
    model = models.abstract("resnet18", 0, dropout=0.5)
    assert models.abstract("resnet18").dropout is None
    assert (model.dropout.rate, model.dropout.deterministic) == (0.5, False)
    assert model.eval().dropout.deterministic


def test_initial_values():
    model = models.create("resnet18", 10)
    np.testing.assert_array_equal(model.layer1[0].bn2.weight[...], 1)
    for weight in (model.conv1.weight[...], model.layer4[1].conv2.weight[...]):
        height, width, _, out = weight.shape
        np.testing.assert_allclose(np.std(weight), np.sqrt(2 / (height * width * out)), rtol=0.03)
        assert abs(np.mean(weight)) < 0.02 * np.std(weight) + 1e-3

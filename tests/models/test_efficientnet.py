"""EfficientNets: blocks, scaling and padding; test_goldens.py compares their logits with the reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from imagenet_repro import models
from imagenet_repro.errors import UserError
from imagenet_repro.models import efficientnet
from imagenet_repro.models.nn.layers import Conv, relu6
from imagenet_repro.pretrained import tensors
from tests.models import probe

LAYERS = efficientnet.Layers(0.01, jnp.float32, nnx.Rngs(0))


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_scaling_gives_the_widths_and_depths_of_b7():
    stages = efficientnet.scale(efficientnet.B0, 2.0, 3.1)
    assert [stage.features for stage in stages] == [32, 48, 80, 160, 224, 384, 640]
    assert [stage.repeats for stage in stages] == [4, 7, 7, 10, 10, 13, 4]
    assert [efficientnet.round_features(width) for width in (1, 11, 12, 19.2, 35.2)] == [8, 16, 16, 24, 32]


def test_lite_networks_keep_stem_head_and_the_depth_of_the_first_and_the_last_stage():
    stages, stem, head = models.spec("efficientnet_lite4").sizes
    assert [stage.features for stage in stages] == [24, 32, 56, 112, 160, 272, 448]
    assert [stage.repeats for stage in stages] == [1, 4, 4, 6, 6, 8, 1]
    assert (stem, head) == (32, 1280)
    assert not any("se.conv" in name for name in tensors.shapes(models.abstract("efficientnet_lite0")))


def test_relu6_is_flat_at_both_ends():
    x = jnp.array([-1.0, 0.0, 3.0, 6.0, 7.0])
    np.testing.assert_array_equal(relu6(x), [0, 0, 3, 6, 6])
    np.testing.assert_array_equal(jax.vmap(jax.grad(relu6))(x), [0, 0, 1, 0, 0])


def test_symmetric_padding_is_equal_on_both_sides():
    layers = LAYERS._replace(padding="symmetric", epsilon=1e-5)
    conv = layers.conv(1, 1, 3, stride=2)
    conv.weight.set_value(jnp.arange(1.0, 10.0).reshape(3, 3, 1, 1))
    even = conv(jnp.ones((1, 4, 4, 1)))[0, :, :, 0]
    np.testing.assert_array_equal(even, [[5 + 6 + 8 + 9, 4 + 5 + 6 + 7 + 8 + 9], [2 + 3 + 5 + 6 + 8 + 9, 45]])
    with pytest.raises(UserError, match="no padding 'valid': valid: same, symmetric"):
        models.abstract("efficientnet_b0", padding="valid")


def test_the_crop_leaves_32_pixels():
    for number in range(8):
        preprocessing = models.spec(f"efficientnet_b{number}").preprocessing
        resized = preprocessing.image_size / preprocessing.crop_ratio
        assert resized == pytest.approx(preprocessing.image_size + 32)


def test_drop_path_rises_from_0_and_stays_below_the_rate():
    stages = models.abstract("efficientnet_b0", drop_path=0.8).blocks
    blocks = [(position, block) for stage in stages for position, block in enumerate(stage)]
    assert len(blocks) == 16
    for index, (position, block) in enumerate(blocks):
        if position:  # the first block of a stage changes the shape, so that it has no shortcut
            assert block.drop_path.rate == pytest.approx(0.8 * index / 16)
        else:
            assert block.drop_path is None
    assert sum(block.drop_path is not None for _, block in blocks) == 9


def test_dropout_of_each_variant():
    dropouts = {name: models.spec(name).options["dropout"] for name in efficientnet.VARIANTS}
    lite = [0.2, 0.2, 0.3, 0.3, 0.3]
    assert list(dropouts.values()) == [0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5, 0.5, *lite, 0.2, 0.3, 0.4, 0.4]
    assert models.abstract("efficientnet_b0", dropout=0.7).dropout.rate == 0.7


@pytest.mark.parametrize("size", [(1, 1), (33, 50)])
def test_any_size_is_valid(size):
    assert probe.shapes("efficientnet_b0", size) == (2, 10)


def test_features_without_a_head():
    assert probe.shapes("efficientnet_b3", (32, 32), num_classes=0) == (2, 1536)


def test_squeeze_excitation_gates_channels():
    gate = efficientnet.SqueezeExcite(6, 2, layers=LAYERS)
    for seed, conv in enumerate((gate.conv_reduce, gate.conv_expand)):
        conv.bias.set_value(jnp.asarray(normal(seed, *conv.bias.shape)))
    x = normal(2, 3, 4, 5, 6)
    hidden = x.mean((1, 2)) @ gate.conv_reduce.weight[0, 0] + gate.conv_reduce.bias
    hidden = hidden / (1 + np.exp(-hidden))
    gates = 1 / (1 + np.exp(-(hidden @ gate.conv_expand.weight[0, 0] + gate.conv_expand.bias)))
    np.testing.assert_allclose(jax.jit(gate.__call__)(x), x * gates[:, None, None, :], rtol=1e-5, atol=1e-6)


def test_padding_is_at_the_end_where_it_is_odd():
    conv = LAYERS.conv(1, 1, 3, stride=2)
    conv.weight.set_value(jnp.arange(1.0, 10.0).reshape(3, 3, 1, 1))
    even = conv(jnp.ones((1, 4, 4, 1)))[0, :, :, 0]  # nothing before, one row and one column of zeros after
    np.testing.assert_array_equal(even, [[45, 1 + 2 + 4 + 5 + 7 + 8], [1 + 2 + 3 + 4 + 5 + 6, 1 + 2 + 4 + 5]])
    odd = conv(jnp.ones((1, 3, 3, 1)))[0, :, :, 0]  # one on each side
    np.testing.assert_array_equal(odd, [[5 + 6 + 8 + 9, 4 + 5 + 7 + 8], [2 + 3 + 5 + 6, 1 + 2 + 4 + 5]])


def test_stochastic_depth_returns_the_input_in_training_only():
    block = efficientnet.FusedMBConv1(efficientnet.BlockShape(4, 4, 3, 1, 1), 0.5, layers=LAYERS)
    x = jnp.asarray(normal(0, 32, 3, 3, 4))
    changed = np.abs(np.asarray(block(x) - x)).max((1, 2, 3)) > 0
    assert 4 < changed.sum() < 28
    block.eval()
    np.testing.assert_array_equal(block(x), x + block.branch(x))


def test_initial_values():
    model = models.create("efficientnet_b0", 10)
    block = model.blocks[5][1]
    for conv, fan_out in ((block.conv_dw, 25), (block.conv_pw, 1152), (block.se.conv_expand, 1152)):
        assert isinstance(conv, Conv)
        np.testing.assert_allclose(np.std(conv.weight[...]), np.sqrt(2 / fan_out), rtol=0.03)
    assert not block.se.conv_expand.bias[...].any()
    np.testing.assert_allclose(np.abs(model.classifier.weight[...]).max(), 10**-0.5, rtol=0.01)
    assert not model.classifier.bias[...].any()

"""Vision transformers: tokens, positions and options; test_goldens.py compares their logits with timm's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from imagenet_repro import models
from imagenet_repro.errors import UserError
from imagenet_repro.models import vit
from imagenet_repro.models.nn.network import WithAuxiliary
from imagenet_repro.zoo import counting


def test_registers_have_no_positions_and_nothing_else_changes():
    plain, registers = (
        counting.parameter_count(models.abstract(f"vit_small_patch14_{name}", 0)) for name in ("dinov2", "reg4_dinov2")
    )
    assert registers - plain == 4 * 384 - 384  # four tokens more, no position of the class token


def answer(name, images, training=False, **options):
    """Return the logits of a new network of two blocks."""
    model = models.create(name, options.pop("num_classes", 7), depth=2, **options)
    graphdef, state = nnx.split(model if training else model.eval())
    return jax.jit(lambda s, x: nnx.merge(graphdef, s)(x))(state, images), model


def images(height=32, width=32, number=4):
    return jnp.asarray(np.random.default_rng(0).normal(size=(number, height, width, 3)), jnp.float32)


def test_any_multiple_of_the_patch_is_valid():
    logits, _ = answer("vit_tiny_patch16", images(48, 80), image_size=32)
    assert (logits.shape, logits.dtype) == ((4, 7), jnp.float32)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize(
    ("size", "message"),
    [((224, 230), r"224 x 230.*multiples of 16, such as 224 x 224"), ((8, 33), r"such as 16 x 32")],
)
def test_other_sizes_are_refused_and_the_nearest_named(size, message):
    model = models.abstract("vit_tiny_patch16", depth=1)
    graphdef, state = nnx.split(model)
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda s, x: nnx.merge(graphdef, s)(x), state, images(*size))


@pytest.mark.parametrize("options", [{"image_size": 230}, {"pool": "max"}, {"positions": "sincos"}])
def test_errors_name_the_mistake(options):
    with pytest.raises(UserError, match=r"such as 224 x 224|avg|sincos2d"):
        models.abstract("vit_tiny_patch16", **options)


@pytest.mark.parametrize("new", [(4, 5), (11, 9), (7, 16)])
def test_positions_are_interpolated_as_pillow_does_and_the_class_token_keeps_its_own(new):
    positions = np.random.default_rng(0).normal(size=(1, 1 + 7 * 7, 3)).astype(np.float32)
    result = vit.resize_positions(jnp.asarray(positions), (7, 7), new)
    np.testing.assert_array_equal(result[:, 0], positions[:, 0])
    for channel in range(3):
        grid = Image.fromarray(positions[0, 1:, channel].reshape(7, 7), "F")
        expected = np.asarray(grid.resize(new[::-1], Image.Resampling.BICUBIC))
        np.testing.assert_allclose(np.asarray(result[0, 1:, channel]).reshape(new), expected, atol=1e-5)


def test_sincos2d_encodes_rows_and_columns_at_four_frequencies():
    table = vit.sincos2d((3, 5), 16)
    assert table.shape == (15, 16)
    row, column, frequencies = 2, 4, [1.0, 10 ** (-4 / 3), 10 ** (-8 / 3), 1e-4]
    parts = [f(at * w) for at in (column, row) for f in (np.sin, np.cos) for w in frequencies]
    np.testing.assert_allclose(table[row * 5 + column], parts, rtol=1e-5)


def test_mean_pooling_reads_only_patches_and_has_no_class_token():
    plain, pooled = (
        models.abstract("vit_tiny_patch16", image_size=32, **options)
        for options in ({}, {"pool": "avg", "positions": "sincos2d"})
    )
    assert counting.parameter_count(plain) - counting.parameter_count(pooled) == 192 + 5 * 192
    logits, _ = answer("vit_tiny_patch16", images(), pool="avg", positions="sincos2d", image_size=32)
    assert logits.shape == (4, 7)


def test_training_returns_both_heads_and_evaluation_their_mean():
    options = {"image_size": 32}
    apart, _ = answer("deit_tiny_distilled_patch16", images(), training=True, **options)
    mean, model = answer("deit_tiny_distilled_patch16", images(), **options)
    assert isinstance(apart, WithAuxiliary)
    assert apart.weight == 1.0
    np.testing.assert_allclose((apart.logits + apart.auxiliary[0]) / 2, mean, atol=1e-6)
    assert not np.allclose(apart.logits, apart.auxiliary[0], atol=1e-3)
    assert model.head_dist.weight.shape == (192, 7)


def test_features_without_a_head_are_the_normalised_class_token():
    features, model = answer("vit_small_patch14_reg4_dinov2", images(28, 28), num_classes=0, image_size=28)
    assert features.shape == (4, 384)
    np.testing.assert_allclose(features, jax.jit(model.features)(images(28, 28))[:, 0], atol=1e-5)


def test_initial_values():
    model = models.create("vit_tiny_patch16", 10, depth=1, image_size=32, head_bias=-6.9)
    np.testing.assert_array_equal(model.head_.bias[...], np.float32(-6.9))
    np.testing.assert_array_equal(model.blocks[0].mlp.fc1.bias[...], 0)
    for weight in (model.blocks[0].attn.qkv.weight, model.blocks[0].mlp.fc2.weight, model.head_.weight):
        assert np.std(weight[...]) == pytest.approx(0.02, rel=0.05)


def test_layers_for_layer_wise_decay():
    layer = models.spec("vit_large_patch16").layers(models.abstract("vit_large_patch16"))
    assert {layer(name) for name in ("patch_embed.proj.weight", "cls_token", "pos_embed", "dist_token")} == {0}
    assert [layer(f"blocks.{i}.norm1.bias") for i in (0, 23)] == [1, 24]
    assert {layer(name) for name in ("norm.weight", "head.bias", "head_dist.weight")} == {25}


def test_the_number_of_layers_is_the_requested_depth():
    layer = models.spec("vit_tiny_patch16").layers(models.abstract("vit_tiny_patch16", depth=2))
    assert [layer(name) for name in ("blocks.0.norm1.bias", "blocks.1.norm1.bias", "head.weight")] == [1, 2, 3]


def test_deep_variants_scan_by_default():
    for options, scan in (({}, True), ({"scan": False}, False), ({"depth": 4}, False)):
        assert models.abstract("vit_large_patch16", **options).blocks.scan == scan

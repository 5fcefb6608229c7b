"""ConvNeXts: blocks and layers; test_goldens.py compares their logits with the reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from imagenet_repro import models, pretrained
from imagenet_repro.errors import UserError
from imagenet_repro.models import convnext
from imagenet_repro.zoo import counting
from tests.models import probe


def test_32_pixels_are_valid_and_fewer_are_refused():
    assert probe.shapes("convnext_tiny", (32, 32), 10) == (2, 10)
    assert probe.shapes("convnext_tiny", (33, 63), 0) == (2, 768)
    with pytest.raises(UserError, match="at least 32"):
        probe.shapes("convnext_tiny", (31, 64), 10)


def test_drop_path_rises_linearly_to_the_rate_of_the_variant():
    rates = [models.spec(name).options["drop_path"] for name in convnext.VARIANTS]
    assert rates == [0.1, 0.4, 0.5, 0.5, 0.2, 0.1, 0.1, 0.1, 0.1, 0.2, 0.1, 0.1, 0.1]
    blocks = [block for stage in models.abstract("convnext_tiny").stages for block in stage.blocks]
    assert [block.drop_path.rate for block in blocks] == pytest.approx(np.linspace(0, 0.1, 18))


def test_stochastic_depth_returns_the_input_in_training_only():
    block = convnext.Block(4, layer_scale=1.0, drop_path=0.5, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((32, 2, 2, 4)), jnp.float32)
    changed = np.abs(np.asarray(block(x) - x)).max((1, 2, 3)) > 0
    assert 4 < changed.sum() < 28
    block.eval()
    residual = np.asarray(block(x) - x)
    assert (np.abs(residual).max((1, 2, 3)) > 0).all()


def test_the_initial_scale_of_branches():
    model = models.abstract("convnext_tiny", layer_scale=0)
    assert model.stages[0].blocks[0].gamma is None
    full = counting.parameter_count(models.abstract("convnext_tiny"))
    assert full - counting.parameter_count(model) == 3 * 96 + 3 * 192 + 9 * 384 + 3 * 768
    block = convnext.Block(4, layer_scale=1e-6, drop_path=0, dtype=jnp.float32, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(block.gamma[...], np.float32(1e-6))


def test_initial_values():
    block = convnext.Block(64, layer_scale=1e-6, drop_path=0, dtype=jnp.float32, rngs=nnx.Rngs(0))
    for module in (block.conv_dw, block.mlp.fc1, block.mlp.fc2):
        np.testing.assert_allclose(np.std(module.weight[...]), 0.02, rtol=0.05)
        assert not module.bias[...].any()


def test_layers_of_the_authors_fine_tuning():
    layer = models.spec("convnext_base").layers(None)
    names = pretrained.to_torch(nnx.clone(convnext_of_zeros()))
    assert {layer(name) for name in names} == set(range(14))
    expected = {
        "stem.1.bias": 0,
        "stages.0.blocks.2.gamma": 1,
        "stages.1.downsample.1.weight": 2,
        "stages.1.blocks.0.norm.weight": 2,
        "stages.2.downsample.0.weight": 3,
        "stages.2.blocks.2.mlp.fc1.bias": 3,
        "stages.2.blocks.3.conv_dw.weight": 4,
        "stages.2.blocks.26.gamma": 11,
        "stages.3.downsample.1.bias": 12,
        "stages.3.blocks.0.gamma": 12,
        "head.norm.weight": 13,
        "head.fc.bias": 13,
    }
    assert {name: layer(name) for name in expected} == expected
    assert expected.keys() <= names.keys()


def test_in_small_networks_of_the_second_version_every_block_is_a_layer():
    layer = models.spec("convnextv2_nano").layers(None)
    expected = {
        "stem.0.weight": 0,
        "stages.0.blocks.0.mlp.grn.weight": 0,
        "stages.0.blocks.1.norm.bias": 1,
        "stages.1.downsample.1.weight": 2,
        "stages.2.blocks.7.conv_dw.bias": 11,
        "stages.3.downsample.0.bias": 12,
        "stages.3.blocks.1.mlp.fc1.weight": 13,
        "head.norm.weight": 14,
    }
    assert {name: layer(name) for name in expected} == expected
    assert models.spec("convnextv2_base").layers(None) is convnext.layer


def test_the_second_version_has_response_norms_and_no_scales():
    old, new = (models.abstract(f"convnext{version}_tiny") for version in ("", "v2"))
    blocks = [block for stage in new.stages for block in stage.blocks]
    assert all(block.gamma is None for block in blocks)
    widths = [width for width, depth in zip((96, 192, 384, 768), (3, 3, 9, 3), strict=True) for _ in range(depth)]
    assert [block.mlp.grn.weight.shape for block in blocks] == [(4 * width,) for width in widths]
    extra = counting.parameter_count(new) - counting.parameter_count(old)
    assert extra == sum(2 * 4 * width - width for width in widths)


def convnext_of_zeros():
    """Return a network with the depths of the base variant and four channels."""
    model = nnx.eval_shape(lambda: convnext.ConvNeXt((3, 3, 27, 3), 4, rngs=nnx.Rngs(0), num_classes=2))
    graphdef, state = nnx.split(model)
    return nnx.merge(graphdef, jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), state))

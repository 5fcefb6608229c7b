"""DINOv3: sizes of images, features and biases; test_goldens.py compares its features with timm's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from imagenet_repro import models
from imagenet_repro.errors import UserError
from imagenet_repro.models.nn.network import tensor_name
from imagenet_repro.zoo import counting
from tests.models import probe

SMALL = "vit_small_patch16_dinov3"


def test_any_multiple_of_16_pixels_is_valid_and_the_same_parameters_serve_all():
    assert "image_size" not in models.spec(SMALL).options
    for size in ((16, 16), (32, 80)):
        assert probe.shapes(SMALL, size, 0, depth=2) == (2, 384)
    with pytest.raises(UserError, match="such as 32 x 48"):
        probe.shapes(SMALL, (40, 48), 0, depth=2)


def test_features_are_class_tokens_and_the_mean_over_patches_after_the_registers():
    model = models.create(SMALL, 0, depth=2, scan=True).eval()
    graphdef, state = nnx.split(model)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 32, 48, 3)), jnp.float32)

    @jax.jit
    def outputs(state, images):
        model = nnx.merge(graphdef, state)
        return model(images), model.features(images), model.feature_parts(images)

    features, tokens, parts = outputs(state, images)
    assert tokens.shape == (1, 1 + 4 + 6, 384)
    np.testing.assert_allclose(features, tokens[:, 0], atol=1e-6)
    np.testing.assert_allclose(parts["class_token_1"], tokens[:, 0], atol=1e-5)
    np.testing.assert_allclose(parts["patch_mean"], tokens[:, 5:].mean(1), atol=1e-5)
    assert set(parts) == {"class_token_1", "class_token_2", "patch_mean"}


def test_biases_of_queries_and_values_are_an_option():
    plain, biased = (models.abstract(SMALL, 0, depth=3, qkv_bias=qkv_bias) for qkv_bias in (False, True))
    assert counting.parameter_count(biased) - counting.parameter_count(plain) == 3 * 2 * 384
    names = {tensor_name(path) for path, _ in nnx.to_flat_state(nnx.state(biased, nnx.Param))}
    assert {"blocks.2.attn.q_bias", "blocks.2.attn.v_bias"} <= names

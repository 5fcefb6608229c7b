"""Tests that bfloat16 changes no more top-1 guesses than rounding explains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from imagenet_repro import models

# The smallest network of each family with its image size in pixels; two of them are always tested.
QUICK = [("resnet18", 64), ("vit_tiny_patch16", 64)]
SLOW = [
    ("efficientnet_b0", 64),
    ("lenet5", 32),
    ("alexnet_2012", 99),
    ("zfnet", 96),
    ("vgg11", 64),
    ("googlenet", 96),
    ("googlenet_bn", 64),
    ("bn_inception", 64),
    ("inception_v3", 128),
    ("inception_v4", 128),
    ("inception_resnet_v2", 128),
    ("resnetv2_50", 64),
    ("resnext50_32x4d", 64),
    ("resnet20_cifar", 32),
    ("seresnet50", 64),
    ("senet154", 64),
    ("efficientnetv2_s", 64),
    ("convnext_tiny", 64),
    ("deit_tiny_distilled_patch16", 64),
    ("vit_small_patch14_dinov2", 70),
    ("convnextv2_atto", 64),
    ("eva02_tiny_patch14", 56),
    ("vit_small_patch16_dinov3", 64),
]


def logits(name, dtype, state, images):
    """Return the logits in evaluation mode."""
    model = models.abstract(name, 100, dtype=dtype).eval()
    graphdef, _, unused = nnx.split(model, (nnx.Param, nnx.BatchStat), ...)
    return np.asarray(jax.jit(lambda s, x: nnx.merge(graphdef, s, unused)(x))(state, images), np.float64)


@pytest.mark.parametrize(("name", "size"), [*QUICK, *(pytest.param(*row, marks=pytest.mark.slow) for row in SLOW)])
def test_top1_changes_on_no_more_images_than_rounding_explains(name, size):
    model = models.create(name, 100)
    state = nnx.state(model, (nnx.Param, nnx.BatchStat))
    images = jnp.asarray(np.random.default_rng(0).standard_normal((64, size, size, 3)), jnp.float32)
    exact, rounded = (logits(name, dtype, state, images) for dtype in (jnp.float32, jnp.bfloat16))

    # The relative error of eight bits of mantissa, amplified by the depth of the network.
    centred = exact - exact.mean()
    error = (rounded - exact).std()
    assert error < 0.1 * centred.std()

    # The probability that an image's first two logits swap, if their errors were independent and normal.
    first, second = np.sort(exact, -1)[:, -1], np.sort(exact, -1)[:, -2]
    expected = stats.norm.sf((first - second) / (np.sqrt(2) * error)).sum()
    changed = (exact.argmax(-1) != rounded.argmax(-1)).sum()
    assert changed <= expected + 4 * np.sqrt(expected) + 1

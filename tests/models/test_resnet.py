"""What is particular to ResNet; its output is compared with the reference's in tests/test_pretrained.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from imagenet_repro import models
from imagenet_repro.models import counting


def output_shape(name, size, num_classes=10, **options):
    graphdef, state = nnx.split(models.abstract(name, num_classes, **options).eval())
    images = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    return jax.eval_shape(lambda state, images: nnx.merge(graphdef, state)(images), state, images).shape


@pytest.mark.parametrize("stem", ["imagenet", "small"])
@pytest.mark.parametrize("size", [(1, 1), (33, 64)])
def test_takes_any_size(stem, size):
    assert output_shape("resnet18", size, stem=stem) == (2, 10)


def test_the_small_stem_has_7680_parameters_fewer_and_16_times_the_work():
    count = {stem: counting.parameter_count(models.abstract("resnet18", stem=stem)) for stem in ("imagenet", "small")}
    assert count["imagenet"] - count["small"] == 3 * 64 * (49 - 9)
    work = {stem: counting.multiply_adds("resnet18", 64, stem=stem) for stem in ("imagenet", "small")}
    assert 14 < work["small"] / work["imagenet"] < 17


@pytest.mark.parametrize(("name", "features"), [("resnet18", 512), ("resnet50", 2048)])
def test_features_without_a_head(name, features):
    assert output_shape(name, (64, 64), num_classes=0) == (2, features)


def test_zero_initialised_last_scale_makes_every_block_the_identity():
    x = jnp.abs(jnp.asarray(np.random.default_rng(0).standard_normal((1, 8, 8, 64)), jnp.float32))
    graphdef, state = nnx.split(models.create("resnet18", 10, zero_init_last=True).layer1[0])
    np.testing.assert_array_equal(jax.jit(lambda s: nnx.merge(graphdef, s)(x))(state), x)


def test_initial_values():
    model = models.create("resnet18", 10)
    np.testing.assert_array_equal(model.layer1[0].bn2.weight[...], 1)
    for weight in (model.conv1.weight[...], model.layer4[1].conv2.weight[...]):
        height, width, _, out = weight.shape
        np.testing.assert_allclose(np.std(weight), np.sqrt(2 / (height * width * out)), rtol=0.03)
        assert abs(np.mean(weight)) < 0.02 * np.std(weight) + 1e-3


def test_bfloat16_answers_as_float32_does():
    images = jnp.asarray(np.random.default_rng(0).standard_normal((16, 64, 64, 3)), jnp.float32)
    logits, state = [], nnx.state(models.create("resnet18", 10))
    for dtype in (jnp.float32, jnp.bfloat16):
        graphdef = nnx.graphdef(models.abstract("resnet18", 10, dtype=dtype))
        logits.append(np.asarray(jax.jit(lambda s, x, g=graphdef: nnx.merge(g, s)(x))(state, images)))
    exact, rounded = logits
    assert np.linalg.norm(rounded - exact) / np.linalg.norm(exact) < 0.05
    ranked = np.sort(exact, -1)
    certain = ranked[:, -1] - ranked[:, -2] > 2 * np.abs(rounded - exact).max()
    assert np.array_equal(rounded.argmax(-1)[certain], exact.argmax(-1)[certain])

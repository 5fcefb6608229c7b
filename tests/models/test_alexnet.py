"""What is particular to AlexNet; its output is compared with the reference's in tests/test_pretrained.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from imagenet_repro import models
from imagenet_repro.errors import UserError
from imagenet_repro.models import counting


def output_shape(size, num_classes=10, **options):
    graphdef, state = nnx.split(models.abstract("alexnet", num_classes, **options).eval())
    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    return jax.eval_shape(lambda state, images: nnx.merge(graphdef, state)(images), state, images).shape


@pytest.mark.parametrize(("stem", "smallest"), [("imagenet", 63), ("small", 29)])
def test_takes_any_size_that_leaves_a_pixel(stem, smallest):
    assert output_shape((smallest, smallest + 40), stem=stem) == (1, 10)
    with pytest.raises(UserError, match=f"at least {smallest} "):
        output_shape((smallest + 40, smallest - 1), stem=stem)


def test_the_small_stem_changes_no_parameter():
    counts = {counting.parameter_count(models.abstract("alexnet", stem=stem)) for stem in ("imagenet", "small")}
    assert counts == {61_100_840}


def test_features_without_a_head():
    assert output_shape((64, 64), num_classes=0) == (1, 4096)
    assert counting.parameter_count(models.abstract("alexnet", 0)) == 61_100_840 - 4_097_000


def test_dropout_acts_in_training_alone():
    images = jnp.asarray(np.random.default_rng(0).standard_normal((2, 64, 64, 3)), jnp.float32)
    state = nnx.state(models.create("alexnet", 10))

    def run(model):
        graphdef = nnx.graphdef(model)
        return jax.jit(lambda state, images: nnx.merge(graphdef, state)(images))(state, images)

    quiet = run(models.abstract("alexnet", 10, dropout=0.9).eval())
    assert np.abs(run(models.abstract("alexnet", 10, dropout=0.9)) - quiet).max() > 1e-3
    np.testing.assert_allclose(run(models.abstract("alexnet", 10, dropout=0.0)), quiet, atol=1e-5)

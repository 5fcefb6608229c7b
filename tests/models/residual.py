"""Helpers of the tests of residual networks."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from imagenet_repro import models
from imagenet_repro.models.nn.initialisers import initialise
from imagenet_repro.models.nn.network import tensor_name
from imagenet_repro.zoo import counting


def count(name, num_classes=1000, **options):
    """Return the number of trainable parameters."""
    return counting.parameter_count(models.abstract(name, num_classes, **options))


def count_and_work(name, size=224, num_classes=1000, **options):
    """Return the number of trainable parameters, and multiply-adds in units of 1e9."""
    model = models.abstract(name, num_classes, **options)
    return counting.parameter_count(model), counting.multiply_adds(model, size) / 1e9


def parameter_shapes(name, num_classes=10, **options):
    """Return our shape of every parameter by its name."""
    state = nnx.to_flat_state(nnx.state(models.abstract(name, num_classes, **options), nnx.Param))
    return {tensor_name(path): variable.shape for path, variable in state}


def numbers(shape, seed=0):
    """Return numbers that are not negative, like the output of a ReLU."""
    return jnp.abs(jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32))


def make(block, *sizes, **options):
    """Return a block with parameters."""
    return initialise(lambda rngs: block(*sizes, rngs=rngs, dtype=jnp.float32, **options), jax.random.key(0))


def apply(module, x, *, training=True):
    """Return the module's output from a compiled call; the module does not change."""
    module = nnx.clone(module)
    module.train() if training else module.eval()
    graphdef, state = nnx.split(module)
    return np.asarray(jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))(state, x))

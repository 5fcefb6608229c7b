"""Intermediate values of a network, and NumPy versions of the operations between its convolutions."""

from collections.abc import Callable
from contextlib import contextmanager
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from imagenet_repro import models
from imagenet_repro.models.nn import layers


def shapes(name, size, num_classes=10, *, training=False, channels=3, **options):
    """Return the shapes of a network's output for two images of `size`, without allocating anything."""
    model = models.abstract(name, num_classes, **options)
    return shapes_of(model.train() if training else model.eval(), size, channels=channels)


def shapes_of(model, size, *, channels=3):
    """Return the shapes as `shapes` does, for an existing network in its current mode."""
    graphdef, state = nnx.split(model)
    images = jax.ShapeDtypeStruct((2, *size, channels), jnp.float32)
    result = jax.eval_shape(lambda state, images: nnx.merge(graphdef, state)(images), state, images)
    return jax.tree.map(lambda leaf: leaf.shape, result)


@contextmanager
def _recording():
    calls, original = [], layers.Conv.__call__

    def call(conv, x):
        y = original(conv, x)
        calls.append((x, y))
        return y

    with mock.patch.object(layers.Conv, "__call__", call):
        yield calls


def maps(name, size, **options):
    """Return (height, width, features) of every convolution's output in evaluation mode, in the order of the calls."""
    with _recording() as calls:
        shapes(name, (size, size), **options)
    return [y.shape[1:] for _, y in calls]


def between(name, images, *layers, **options):
    """Return the output of each convolution in `layers` and the input of the next, in a new network.

    The compiler removes all layers after the last of them, so large networks cost little.
    """

    @jax.jit
    def run(images):
        with _recording() as calls:
            models.build(name, rngs=nnx.Rngs(0), **options).eval()(images)
        return [(calls[layer][1], calls[layer + 1][0]) for layer in layers]

    return jax.tree.map(lambda x: np.asarray(x, np.float64), run(jnp.asarray(images, jnp.float32)))


def initial(name, pick: Callable, **options):
    """Return the initial values of the variables that `pick` selects from the network; no others are computed."""
    picked = jax.jit(lambda: [variable[...] for variable in pick(models.build(name, rngs=nnx.Rngs(0), **options))])()
    return [np.asarray(value) for value in picked]


def photograph(size):
    """Return one image of noise with mean 0, on the scale of 256 levels."""
    return np.random.default_rng(0).normal(0, 60, (1, size, size, 3))


def responses(x, size, alpha, beta, k):
    """Return the local response normalisation, computed map by map."""
    y, half = np.empty_like(x), size // 2
    for i in range(x.shape[-1]):
        total = np.square(x[..., max(i - half, 0) : i + half + 1]).sum(-1)
        y[..., i] = x[..., i] / (k + alpha * total) ** beta
    return y


def maxima(x, window, stride, *, ceil=False):
    """Return the maximum pooling without padding, by position; with `ceil`, windows may reach over the end."""
    n = x.shape[1]
    places = (n - window + (stride - 1 if ceil else 0)) // stride + 1
    spans = [slice(position * stride, position * stride + window) for position in range(places)]
    return np.stack([np.stack([x[:, down, across].max((1, 2)) for across in spans], 1) for down in spans], 1)

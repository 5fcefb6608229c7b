"""Real photographs for tests of descriptors, from scikit-learn."""

import jax
import numpy as np
from sklearn.datasets import load_sample_image

from imagenet_repro.features.descriptors import grid


def photograph(name="china.jpg", size=None, at=(100, 200)):
    """Return uint8 RGB: a square of `size` pixels from `at`, or the complete picture (427 x 640)."""
    image = load_sample_image(name)
    return image if size is None else np.ascontiguousarray(image[at[0] : at[0] + size, at[1] : at[1] + size])


def photographs(size):
    """Return two squares of the photographs."""
    return np.stack([photograph("china.jpg", size), photograph("flower.jpg", size)])


def without_ties(images, seed=0):
    """Return images in [0, 1] with noise of half a grey level; where values tie, rounding would decide."""
    noise = np.random.default_rng(seed).uniform(0, 0.5, images.shape)
    return ((images + noise) / 256).astype(np.float32)


def describe(images, where, descriptor, *, luma):
    """Return `grid.describe`, compiled, because uncompiled calls take seconds."""
    return np.asarray(jax.jit(lambda x: grid.describe(x, where, descriptor, luma=luma))(images))

"""Channels: the composition of codes, their independence of the batch size, and flat images."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_repro.config import BagOfWords, Channel, FisherVector, Llc, SuperVector
from imagenet_repro.errors import UserError
from imagenet_repro.features import channel_encoder
from imagenet_repro.features.channel_encoder import ChannelEncoder
from imagenet_repro.features.descriptors import grid, sift
from imagenet_repro.features.encoding import fisher, mixture, pca, pyramid
from tests.features import photographs

SIZE = 32
FISHER = FisherVector(components=4, iterations=3)
CHANNEL = Channel(patch=16, step=8, scales=(0.75, 1.0), components=6, code=FISHER, pyramid=("1x1", "3x1"))
CODES = {
    "fisher": (FISHER, 2 * 4 * 6),
    "fisher with weights": (dataclasses.replace(FISHER, weights=True), 4 * (2 * 6 + 1)),
    "super_vector": (SuperVector(words=5, iterations=3), 5 * 7),
    "llc": (Llc(words=9, iterations=3), 9),
    "llc by steps": (Llc(words=9, iterations=20, batch=16), 9),
    "bag": (BagOfWords(words=7, iterations=3), 7),
    "soft bag": (BagOfWords(words=7, iterations=3, sigma=0.3), 7),
}


def photograph_batch(size):
    return jnp.asarray(photographs.photographs(size))


@functools.cache
def describe(descriptor, scales):
    """Return the descriptors of the photographs in a variant of CHANNEL."""
    encoder = ChannelEncoder(dataclasses.replace(CHANNEL, descriptor=descriptor, scales=scales), SIZE)
    return np.asarray(jax.jit(encoder.describe)(photograph_batch(SIZE))).reshape(-1, encoder.numbers)


def vocabulary_of(encoder):
    x = describe(encoder.channel.descriptor, encoder.channel.scales)
    moments = pca.Moments(encoder.numbers)
    moments.add(x)
    reduction = encoder.reduce(moments)
    return reduction | encoder.learn(encoder.project(jnp.asarray(x), reduction), jax.random.key(0))


def wide(words):
    """Return Gaussians that do not depend on the order of sums; learned from 26 descriptors, some have no variance."""
    return words | {"mixture.variances": jnp.maximum(words["mixture.variances"], 0.01)}


@pytest.mark.parametrize("kind", CODES)
def test_codes_have_the_stated_length_and_cells_of_unit_length(kind):
    code, features = CODES[kind]
    encoder = ChannelEncoder(dataclasses.replace(CHANNEL, code=code, quantise=0), SIZE)
    images = photograph_batch(SIZE)
    codes = np.asarray(encoder.encode(images, vocabulary_of(encoder)))
    assert encoder.features == 4 * features
    assert codes.shape == (2, 4 * features)
    lengths = np.linalg.norm(codes.reshape(2, 4, features), axis=-1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)


def test_a_code_equals_the_composition_of_its_parts():
    # Square roots of numbers near zero would amplify rounding errors.
    encoder = ChannelEncoder(dataclasses.replace(CHANNEL, code=dataclasses.replace(FISHER, power=1.0)), SIZE)
    images = photograph_batch(SIZE)
    words = wide(vocabulary_of(encoder))
    points = grid.Grid(16, 8, (0.75, 1.0))
    layout = pyramid.layout(pyramid.Pyramid(((1, 1), (3, 1))).members(points.places(SIZE, SIZE)))
    x = jnp.asarray(photographs.describe(images, points, sift.sift, luma=True))
    x = (x - words["pca.mean"]) @ words["pca.components"].T
    parts = (words[f"mixture.{name}"] for name in ("weights", "means", "variances"))
    expected = fisher.encode(x[:, layout.order], mixture.Mixture(*parts), layout, power=1.0).reshape(2, -1)
    np.testing.assert_allclose(encoder.encode(images, words), expected, atol=2e-5)


def test_codes_do_not_depend_on_the_batch_size(monkeypatch):
    encoder = ChannelEncoder(dataclasses.replace(CHANNEL, code=dataclasses.replace(FISHER, power=1.0)), SIZE)
    images = jnp.concatenate([photograph_batch(SIZE)] * 3)
    words = wide(vocabulary_of(encoder))
    together = encoder.encode(images, words)
    monkeypatch.setattr(channel_encoder, "MAX_INTERMEDIATE", 2 * encoder.points * encoder.numbers)
    assert encoder._batch_size(6) == 2
    np.testing.assert_allclose(encoder.encode(images, words), together, atol=2e-5)


@pytest.mark.parametrize("descriptor", channel_encoder.DESCRIPTORS)
@pytest.mark.parametrize("kind", ["fisher", "llc", "super_vector"])
def test_a_flat_image_has_a_finite_code(descriptor, kind):
    channel = dataclasses.replace(CHANNEL, descriptor=descriptor, code=CODES[kind][0], scales=(1.0,), quantise=0)
    encoder = ChannelEncoder(channel, SIZE)
    grey = jnp.full((1, SIZE, SIZE, 3), 100, jnp.uint8)
    assert np.isfinite(np.asarray(encoder.encode(grey, vocabulary_of(encoder)))).all()


def test_hog_and_lbp_of_a_patch_are_concatenated():
    images = photograph_batch(SIZE)
    both, hog, lbp = (
        np.asarray(ChannelEncoder(dataclasses.replace(CHANNEL, descriptor=name), SIZE).describe(images))
        for name in ("hog_lbp", "hog", "lbp")
    )
    np.testing.assert_array_equal(both, np.concatenate([hog, lbp], -1))


def test_a_blank_vocabulary_has_the_shapes_of_a_learned_one():
    for code, _ in CODES.values():
        for components in (0, 6):
            encoder = ChannelEncoder(dataclasses.replace(CHANNEL, code=code, components=components, quantise=0), SIZE)
            learned = jax.eval_shape(
                lambda encoder=encoder: encoder.learn(jnp.zeros((50, encoder.reduced)), jax.random.key(0))
            )
            blank = encoder.blank()
            assert {name: blank[name].shape for name in learned} == {k: x.shape for k, x in learned.items()}
            assert ("pca.mean" in blank) == (components > 0)


@pytest.mark.parametrize(
    ("change", "size", "message"),
    [
        ({"patch": 40}, SIZE, "no room for a patch of 40 pixels"),
        ({"patch": 18, "descriptor": "hog"}, SIZE, "not a multiple of 4"),
        ({"components": 129}, SIZE, "129 principal components of vectors of 128 numbers"),
        ({"quantise": 7}, SIZE, "cannot be cut into parts of 7"),
        ({"pyramid": ("1x1", "3by1")}, SIZE, "divisions such as '1x1'"),
        ({"pyramid": ()}, SIZE, "divisions such as '1x1'"),
    ],
)
def test_impossible_channels_are_refused_before_any_computation(change, size, message):
    with pytest.raises(UserError, match=message):
        ChannelEncoder(dataclasses.replace(CHANNEL, **change), size)


def test_more_gaussians_than_descriptors_are_refused():
    encoder = ChannelEncoder(dataclasses.replace(CHANNEL, code=FisherVector()), SIZE)
    with pytest.raises(UserError, match="256 clusters of 100 descriptors"):
        encoder.learn(jnp.zeros((100, encoder.reduced)), jax.random.key(0))

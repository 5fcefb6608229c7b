"""Tests of the pass over the images: evaluation mode, resumption, undecodable images, and what features depend on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from imagenet_repro import models
from imagenet_repro.config import resolve_config
from imagenet_repro.data.augment import augment
from imagenet_repro.errors import UserError
from imagenet_repro.inference.feature_extractor import FeatureExtractor
from imagenet_repro.probes import stored_features
from imagenet_repro.training.functional import FunctionalNetwork
from tests.data import memory_split

NETWORK, IMAGES, BAD = "resnet20_cifar", 37, (5, 20)
CONFIG = resolve_config(
    {
        "model": {"name": NETWORK},
        "precision": "float32",
        "data": {"image_size": 16, "threads": 1, "workers": 0, "max_bad_share": 0.1},
        "batch_size": 16,
    }
)


@pytest.fixture(scope="module")
def network():
    """Return a network with running statistics that no batch has, and its functional form."""
    model = models.create(NETWORK, num_classes=0, seed=1)
    rng = np.random.default_rng(0)
    state = nnx.state(model, nnx.BatchStat)
    nnx.update(model, jax.tree.map(lambda x: x * 0.7 + 0.1 * rng.random(x.shape).astype(np.float32), state))
    return model, FunctionalNetwork(model)


@pytest.fixture(scope="module")
def extractor(network):
    _, functional = network
    return FeatureExtractor(
        CONFIG, models.abstract(NETWORK, 0), functional.params, functional.stats, say=lambda text: None
    )


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(stored_features, "SHARD", 10)
    monkeypatch.setattr("imagenet_repro.inference.feature_extractor.SHARD", 10)


def call(model, pixels):
    graphdef, state = nnx.split(model)
    return np.asarray(jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))(state, pixels))


def read(stored):
    (block,) = stored.rows(("pooled",)).blocks()
    order = np.argsort(block.index)
    return block.features[order], block.label[order], block.index[order]


def test_features_are_those_of_the_network_in_evaluation_mode(extractor, network, small_shards, tmp_path):
    split = memory_split.make_split(IMAGES, bad=BAD)
    stored = extractor.open(split, tmp_path)
    done = extractor.extract(split, stored, IMAGES)
    features, labels, index = read(stored)
    assert done.images == IMAGES
    assert np.array_equal(index, np.setdiff1d(np.arange(IMAGES), BAD))
    assert np.array_equal(labels, index % 5)
    model, _ = network
    images = np.stack([np.asarray(memory_split.cropped(split, number, CONFIG)) for number in index[:6].tolist()])
    pixels = augment.normalize(jnp.asarray(images), CONFIG.augment)
    expected = call(model.eval(), pixels)
    # In training mode a normalisation uses the batch's statistics, and these features would be others.
    np.testing.assert_allclose(features[:6].astype(np.float32), expected, rtol=2e-3, atol=2e-3)
    assert np.abs(features[:6].astype(np.float32) - call(model.train(), pixels)).max() > 0.1


def test_only_what_is_missing_is_computed(extractor, small_shards, tmp_path):
    split = memory_split.make_split(IMAGES)
    stored = extractor.open(split, tmp_path)
    assert extractor.extract(split, stored, 12).images == 20  # whole shards
    assert extractor.extract(split, stored, IMAGES).images == 17
    before = read(stored)[0]
    (stored.directory / "00001.npz").unlink()
    again = extractor.open(split, tmp_path)
    assert extractor.extract(split, again, IMAGES).images == 10
    assert extractor.extract(split, again, IMAGES).images == 0
    np.testing.assert_array_equal(read(again)[0], before)


def test_other_images_parameters_or_crops_have_another_directory(extractor, network, tmp_path):
    split = memory_split.make_split(IMAGES)
    _, functional = network
    params = functional.params | {"conv1.weight": functional.params["conv1.weight"] + 1e-3}
    others = [
        extractor.open(dataclasses.replace(split, version="1.0.1"), tmp_path),
        FeatureExtractor(CONFIG, models.abstract(NETWORK, 0), params, functional.stats).open(split, tmp_path),
        FeatureExtractor(
            dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, image_size=24)),
            models.abstract(NETWORK, 0),
            functional.params,
            functional.stats,
        ).open(split, tmp_path),
    ]
    assert len({stored.directory for stored in [extractor.open(split, tmp_path), *others]}) == 4


def test_random_crops_change_from_epoch_to_epoch_and_leave_the_held_out_rows(extractor):
    split = memory_split.make_split(IMAGES)
    batches = list(extractor.random_batches(split, ("pooled",), batch_size=8, seed=0, first_row=29, steps=2))
    (first, labels), (second, _) = batches
    kept = stored_features.row_order(IMAGES)[29:]
    assert sorted(np.asarray(labels).tolist()) == sorted((kept % 5).tolist())
    assert first.shape == second.shape == (8, extractor.widths["pooled"])
    assert not np.allclose(np.sort(first, axis=0), np.sort(second, axis=0), atol=1e-3)


def test_features_that_are_not_finite_are_an_error(network, tmp_path):
    _, functional = network
    params = functional.params | {"conv1.weight": jnp.full_like(functional.params["conv1.weight"], jnp.nan)}
    split = memory_split.make_split(8)
    one = FeatureExtractor(CONFIG, models.abstract(NETWORK, 0), params, functional.stats)
    with pytest.raises(UserError, match=r"features of resnet20_cifar \(pooled\) are not finite for image img_"):
        one.extract(split, one.open(split, tmp_path), 8)
    assert one.open(split, tmp_path).missing(8) == [range(8)]

"""Tests of features on disk: order, resumption, damage and what they belong to."""

import numpy as np
import pytest

from imagenet_repro.errors import UserError
from imagenet_repro.probes.stored_features import SHARD, StoredFeatures, check_same_network, row_order, take
from tests.probes.stored import DESCRIPTION, clusters, store

IMAGES = 2 * SHARD + 300


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    x, labels = clusters(IMAGES, 4, 5)
    return store(tmp_path_factory.mktemp("features"), labels, bad=(7, 1900), first=x[:, :1], rest=x[:, 1:]), x, labels


def test_rows_are_read_once_in_a_fixed_random_order_without_undecodable_images(stored):
    features, x, labels = stored
    blocks = list(features.rows(("first", "rest")).blocks())
    index = np.concatenate([block.index for block in blocks])
    expected = row_order(IMAGES)
    assert np.array_equal(index, expected[~np.isin(expected, (7, 1900))])
    assert np.array_equal(np.concatenate([block.features for block in blocks]), x[index])
    assert np.array_equal(np.concatenate([block.label for block in blocks]), labels[index])


def test_parts_of_the_rows_join_to_the_whole(stored):
    rows = stored[0].rows(("rest",))
    split = [stored[0].rows(("rest",), stop=SHARD + 7), stored[0].rows(("rest",), start=SHARD + 7)]
    assert np.array_equal(np.concatenate([part.labels()[1] for part in split]), rows.labels()[1])


def test_columns_of_a_layer(stored):
    rows = stored[0].rows(("first", "rest"))
    assert (rows.columns(("first",)), rows.columns(("rest",)), rows.width) == (slice(0, 1), slice(1, 4), 4)


def test_images_are_taken_by_their_number(stored):
    features, x, _ = stored
    index = np.array([2000, 3, 512, 4])
    assert np.array_equal(take(features.rows(("first", "rest")), index), x[index])
    with pytest.raises(UserError, match="image 7 of the split has no features"):
        take(features.rows(("first",)), np.array([7]))


def test_only_missing_shards_are_computed_again(tmp_path):
    x, labels = clusters(IMAGES, 2, 3)
    features = store(tmp_path, labels, pooled=x)
    assert features.missing(IMAGES) == []
    (tmp_path / "00001.npz").unlink()
    assert features.missing(IMAGES) == [range(SHARD, 2 * SHARD)]
    assert features.missing(SHARD) == []
    (tmp_path / "00002.npz").unlink()
    assert features.missing(IMAGES) == [range(SHARD, IMAGES)]


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_a_damaged_shard_is_named(tmp_path, damage):
    x, labels = clusters(100, 8, 3)
    features = store(tmp_path, labels, pooled=x)
    path = tmp_path / "00000.npz"
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content[:900] if damage == "cut" else content)
    if damage == "missing":
        path.unlink()
    with pytest.raises(UserError, match=r"00000\.npz is missing or damaged .*; remove it"):
        list(features.rows(("pooled",)).blocks())


@pytest.mark.parametrize(("key", "value"), [("parameters", "of another network"), ("data", ["other images"])])
def test_features_of_another_network_or_split_are_refused(tmp_path, key, value):
    store(tmp_path, np.zeros(3), pooled=np.zeros((3, 2), np.float16))
    with pytest.raises(UserError, match=f"holds features of a network on invented images.* they differ in {key}"):
        StoredFeatures(tmp_path, DESCRIPTION | {key: value}, 3, {"pooled": 2})


def test_features_of_two_networks_are_not_used_together(tmp_path):
    train = StoredFeatures(tmp_path / "a", DESCRIPTION, 3, {"pooled": 2})
    other_images = StoredFeatures(tmp_path / "b", DESCRIPTION | {"data": ["others"]}, 5, {"pooled": 2})
    other_network = StoredFeatures(tmp_path / "c", DESCRIPTION | {"parameters": "d"}, 3, {"pooled": 4})
    check_same_network(train, other_images)
    with pytest.raises(UserError, match="cannot be used together: they differ in parameters, widths"):
        check_same_network(train, other_network)

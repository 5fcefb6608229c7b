"""The index of a split's ids and sizes, and how many records it saves reading."""

import collections
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_repro.config import Data, resolve_config
from imagenet_repro.data import image_index, sources, thumbnails
from imagenet_repro.inference import protocol_evaluator, protocols
from imagenet_repro.training import parallel, state
from tests.data.test_sources import NamedPhotos
from tests.inference.test_protocols import WEIGHTS, Linear

COUNT = 23  # images, of 8 to 30 x 12 pixels


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    NamedPhotos(data_dir=root, file_format="array_record").download_and_prepare()
    return root


@pytest.fixture
def opened(prepared, tmp_path, monkeypatch):
    """Return a function that opens the split anew, from a copy without an index, and the reads of each record."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(prepared, tmp_path / "data")
    reads = collections.Counter()
    read = sources.StoredRecords.__getitem__

    def counted(records, index):
        reads[index] += 1
        return read(records, index)

    monkeypatch.setattr(sources.StoredRecords, "__getitem__", counted)
    return lambda split="train": sources.open_split(Data("named_photos", str(tmp_path / "data")), split), reads


def evaluate(split, protocol):
    config = resolve_config({"data": {"image_size": 32, "threads": 1, "workers": 0}, "batch_size": 8})
    spread = parallel.create("shard_map")
    one = protocol_evaluator.ProtocolEvaluator(protocols.parse(protocol), Linear(config), spread)
    trained = state.TrainState(
        jnp.zeros((), jnp.int32), {"w": jnp.asarray(WEIGHTS)}, {}, (), {}, jnp.zeros(2, jnp.uint32)
    )
    return one.predict(split, spread.put_state(trained), {})[1]


def test_an_evaluation_stores_the_index_and_later_readers_read_no_record(opened):
    open_split, reads = opened
    assert image_index.find(open_split()) is None
    scored = evaluate(open_split(), "crop").id.tolist()
    assert reads == dict.fromkeys(range(COUNT), 1)
    split = open_split()
    index = image_index.find(split)
    assert index.id.tolist() == [record.id for record in split.records]
    assert index.size.tolist() == [[8 + int(id[6:9]), 12] for id in index.id.tolist()]
    reads.clear()
    spoken = []
    positions = thumbnails.sample_positions(split, spoken.append)
    wanted = scored[3:9:2]
    assert set(thumbnails.thumbnails_by_id(split, wanted, spoken.append)) == set(wanted)
    assert reads == {positions[id]: 1 for id in wanted}
    assert spoken == []
    assert image_index.find(open_split("train[:50%]")) is None  # the index is that of the complete split


def test_thumbnails_without_an_index_read_the_split_once_and_say_so(opened):
    open_split, reads = opened
    spoken = []
    for _ in range(2):
        assert set(thumbnails.thumbnails_by_id(open_split(), ["train_004.JPEG"], spoken.append)) == {"train_004.JPEG"}
    assert len(spoken) == 1
    assert "reading the records of named_photos train" in spoken[0]
    assert sum(reads.values()) == COUNT + 2


def test_dense_protocols_read_each_record_once(opened, monkeypatch):
    monkeypatch.setattr(protocol_evaluator, "WIDE", (1.0,))  # so that one program is compiled
    open_split, reads = opened
    first = evaluate(open_split(), "vgg_dense1")  # reads sizes, and keeps what it has read
    assert reads == dict.fromkeys(range(COUNT), 1)
    reads.clear()
    again = evaluate(open_split(), "vgg_dense1")  # knows the sizes
    assert reads == dict.fromkeys(range(COUNT), 1)
    np.testing.assert_array_equal(first.logits, again.logits)


def test_prepared_anew_or_damaged_a_split_has_no_index(opened, tmp_path):
    open_split, _ = opened
    split = open_split()
    image_index.store(split, image_index.read(split, 2))
    (stored,) = (tmp_path / "data").rglob(f"{image_index.DIRECTORY}/*.npz")
    stored.write_bytes(stored.read_bytes()[:-30])
    assert image_index.find(open_split()) is None
    stored.unlink()
    image_index.store(split, image_index.read(split, 2))
    shard = next((tmp_path / "data").rglob("*-train.array_record*"))
    shard.write_bytes(shard.read_bytes() + b"more")
    assert image_index.find(split) is None


def test_data_that_cannot_be_written_has_its_index_in_the_cache(opened, tmp_path):
    open_split, _ = opened
    split = open_split()
    (tmp_path / "data/named_photos/1.2.0" / image_index.DIRECTORY).write_text("")  # a file where a directory must be
    image_index.store(split, image_index.read(split, 2))
    assert len(list((tmp_path / "cache").rglob("*.npz"))) == 1
    assert image_index.find(split).size.shape == (COUNT, 2)

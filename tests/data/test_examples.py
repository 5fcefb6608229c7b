import time

import numpy as np
import pytest

from imagenet_repro.data.examples import COUNT, ClassExamples
from imagenet_repro.data.sources import Record, Split
from imagenet_repro.errors import UserError


class Records(list):
    """Counts what is read; None stands for a record that cannot be."""

    read = 0

    def __getitem__(self, index):
        self.read += 1
        if super().__getitem__(index) is None:
            raise UserError("record cannot be read")
        return super().__getitem__(index)


def split(labels, version="1.0.0"):
    records = Records(None if label is None else Record(b"", int(label), f"id{i}") for i, label in enumerate(labels))
    return Split("photos", "train", version, ("a", "b", "c"), len(records), records)


def looked(of, path):
    """The examples, once no more will be found."""
    examples = ClassExamples(of, path)
    examples.start()
    for _ in range(500):
        if all(examples.is_complete(label) for label in range(3)):
            break
        time.sleep(0.01)
    examples.stop()
    return examples


def test_thirteen_of_each_class_and_no_more_is_read_than_that_needs(tmp_path):
    labels = np.random.default_rng(0).permutation(np.arange(3000) % 3)
    photos = split(labels)
    examples = looked(photos, tmp_path / "examples.json")
    for label in range(3):
        found = examples.indices(label)
        assert len(set(found)) == COUNT == 13
        assert all(labels[found] == label)
        assert examples.record(found[0]).label == label
    assert photos.records.read < 100


def test_fewer_where_there_are_no_more(tmp_path):
    examples = looked(split([0] * 20 + [1] * 4 + [None, -1]), tmp_path / "examples.json")
    assert [len(examples.indices(label)) for label in range(3)] == [13, 4, 0]
    assert examples.is_complete(2)


def test_what_was_found_is_kept(tmp_path):
    labels = np.arange(300) % 3
    before = looked(split(labels), tmp_path / "examples.json")
    again = split(labels)
    after = looked(again, tmp_path / "examples.json")
    assert [after.indices(label) for label in range(3)] == [before.indices(label) for label in range(3)]
    assert again.records.read == 0


@pytest.mark.parametrize("damage", ["other version", "text"])
def test_what_is_of_another_data_set_or_damaged_is_found_anew(tmp_path, damage):
    path = tmp_path / "examples.json"
    looked(split(np.arange(300) % 3, version="2.0.0"), path)
    if damage == "text":
        path.write_text("{")
    assert [len(looked(split([0, 1, 1]), path).indices(label)) for label in range(3)] == [1, 2, 0]

import time

import numpy as np
import pytest

from imagenet_repro.data.examples import COUNT, ClassExamples
from imagenet_repro.data.sources import Record, Split
from imagenet_repro.errors import UserError


class Records(list):
    """Records that count how many are read; None stands for one that cannot be read."""

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
    """Return the examples after the search has ended."""
    examples = ClassExamples(of, path)
    examples.start()
    for _ in range(6000):
        if all(examples.is_complete(label) for label in range(3)):
            break
        time.sleep(0.01)
    examples.stop()
    return examples


def test_thirteen_images_of_each_class_are_found_and_no_more_is_read(tmp_path):
    labels = np.random.default_rng(0).permutation(np.arange(3000) % 3)
    photos = split(labels)
    examples = looked(photos, tmp_path / "examples.json")
    for label in range(3):
        result = examples.indices(label)
        assert len(set(result)) == COUNT == 13
        assert all(labels[result] == label)
        assert examples.record(result[0]).label == label
    assert photos.records.read < 100


def test_small_classes_have_fewer_examples(tmp_path):
    examples = looked(split([0] * 20 + [1] * 4 + [None, -1]), tmp_path / "examples.json")
    assert [len(examples.indices(label)) for label in range(3)] == [13, 4, 0]
    assert examples.is_complete(2)


def test_found_examples_are_saved(tmp_path):
    labels = np.arange(300) % 3
    before = looked(split(labels), tmp_path / "examples.json")
    again = split(labels)
    after = looked(again, tmp_path / "examples.json")
    assert [after.indices(label) for label in range(3)] == [before.indices(label) for label in range(3)]
    assert again.records.read == 0


@pytest.mark.parametrize("damage", ["other version", "text"])
def test_examples_of_another_data_set_or_in_a_damaged_file_are_ignored(tmp_path, damage):
    path = tmp_path / "examples.json"
    looked(split(np.arange(300) % 3, version="2.0.0"), path)
    if damage == "text":
        path.write_text("{")
    assert [len(looked(split([0, 1, 1]), path).indices(label)) for label in range(3)] == [1, 2, 0]

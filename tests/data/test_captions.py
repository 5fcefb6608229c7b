"""Tests of captions: which one an image gets, that it depends on seed, epoch and image alone, and empty ones."""

import dataclasses

import numpy as np
import pytest

from imagenet_repro.data import captions, prompts
from imagenet_repro.data.captions import ClassNameCaptioner, StoredCaptioner
from imagenet_repro.data.loader import train_batches
from imagenet_repro.data.sources import Record, RecordSubset
from imagenet_repro.data.tokenizers import ByteTokenizer
from imagenet_repro.errors import UserError
from tests.data.memory_split import CROP, DATA, make_split

LENGTH = 12


class Captioned:
    """Records with three captions each, "INDEX of NUMBER"."""

    def __init__(self, records):
        self._records = records

    def __len__(self):
        return len(self._records)

    def __getitem__(self, index):
        return self._records[index]._replace(captions=tuple(f"{index} of {number}" for number in range(3)))


def batches(split, captioner, **options):
    settings = {"batch_size": 8, "seed": 3, "num_steps": 6} | options
    return list(train_batches(split, DATA, CROP, captioner=captioner, **settings))


def text(row):
    return bytes(int(token) - 1 for token in row if 1 <= token <= 256).decode()


def test_each_use_of_an_image_draws_one_of_its_captions_by_the_seed():
    split = make_split(20)
    split = dataclasses.replace(split, records=Captioned(split.records))
    stored = StoredCaptioner(ByteTokenizer(), LENGTH)
    run = batches(split, stored)
    drawn = {}
    for batch in run:
        for row, epoch, index in zip(batch["tokens"], batch["epoch"], batch["index"], strict=True):
            number, _, choice = text(row).partition(" of ")
            assert int(number) == index
            drawn[int(epoch), int(index)] = int(choice)
    assert len(drawn) == 48
    assert set(drawn.values()) == {0, 1, 2}
    assert any(drawn[0, index] != drawn[1, index] for index in range(20))
    for one, other in zip(run[2:], batches(split, stored, start_step=2, num_steps=4), strict=True):
        np.testing.assert_array_equal(one["tokens"], other["tokens"])
    without = batches(split, None)  # captions leave the crops as they are
    np.testing.assert_array_equal(run[0]["image"], without[0]["image"])


def test_class_names_are_looked_up_by_the_label():
    table, _ = prompts.class_tokens("abcde", ["{name}", "a {name}"], ByteTokenizer(), LENGTH, "config.x")
    for batch in batches(make_split(20), ClassNameCaptioner(table)):
        assert [text(row)[-1] for row in batch["tokens"]] == ["abcde"[label] for label in batch["label"]]
    record = Record(b"", -1, "train/7")
    with pytest.raises(UserError, match="train/7 has no label"):
        ClassNameCaptioner(table).tokens(record, np.random.default_rng(0))


@pytest.mark.parametrize("texts", [(), ("",), ("a dog", "  ")])
def test_records_without_a_text_are_named(texts):
    record = Record(b"", -1, "train/7", texts)
    with pytest.raises(UserError, match=r"record train/7 has \d captions, \d of them not empty"):
        StoredCaptioner(ByteTokenizer(), LENGTH).tokens(record, np.random.default_rng(0))


def test_truncated_captions_are_counted():
    split = make_split(12)
    split = dataclasses.replace(split, records=Captioned(split.records))
    assert captions.count_truncated(split, StoredCaptioner(ByteTokenizer(), 8)) == (6, 36)  # "10 of 0" to "11 of 2"
    one = dataclasses.replace(split, num_examples=1, records=RecordSubset(split.records, (10,)))
    assert captions.count_truncated(one, StoredCaptioner(ByteTokenizer(), 9)) == (0, 3)

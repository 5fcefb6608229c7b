"""Records that cannot be decoded are replaced, counted and named, and too many stop a run."""

import dataclasses

import numpy as np
import pytest

from imagenet_repro.config import CenterCrop
from imagenet_repro.data.bad_records import BadRecords
from imagenet_repro.data.loader import eval_batches
from imagenet_repro.errors import UserError
from tests.data.memory_split import DATA, joined, make_split, train


def test_an_undecodable_record_is_replaced_by_the_next():
    split = make_split(20, bad=(4, 5, 19))
    complete, broken = train(make_split(20), num_steps=10), train(split, num_steps=10)
    undamaged, index, replaced = joined(complete, "index"), joined(broken, "index"), joined(broken, "replaced")
    stands_for = {4: 6, 5: 6, 19: 0}
    np.testing.assert_array_equal(index, [stands_for.get(i, i) for i in undamaged.tolist()])
    np.testing.assert_array_equal(replaced, [i if i in stands_for else -1 for i in undamaged.tolist()])
    np.testing.assert_array_equal(joined(broken, "label"), index % 5)
    assert (joined(broken, "weight") == 1).all()
    assert joined(broken, "image").any((1, 2, 3)).all()


def test_an_undecodable_record_of_evaluation_has_no_weight():
    (batch,) = eval_batches(make_split(6, bad=(2,)), DATA, CenterCrop(), batch_size=8)
    assert batch["weight"].tolist() == [1, 1, 0, 1, 1, 1, 0, 0]
    assert batch["replaced"].tolist() == [-1, -1, 2, -1, -1, -1, -1, -1]
    assert batch["index"].tolist() == [0, 1, 2, 3, 4, 5, -1, -1]
    assert batch["label"][2] == 2


def test_bad_records_are_counted_once_and_named():
    split = make_split(20, bad=(4, 5, 19))
    lines = []
    bad = BadRecords(split, DATA, report=lines.append)
    for batch in train(split, num_steps=10):
        bad.update(batch)
        bad.check()  # 3 of 20 are below a share of 0.2
    assert len(bad) == 3
    assert sorted(bad.names) == ["img_04", "img_05", "img_19"]
    assert len(lines) == 3
    assert all("cannot decode img_" in line and "PNG of 90 bytes" in line for line in lines)


def test_records_known_from_before_a_resumption_are_counted_and_are_not_new():
    split = make_split(20, bad=(4, 5, 19))
    bad = BadRecords(split, DATA, known=[4, 7])
    assert bad.indices == [4, 7]
    new = [each for batch in train(split, num_steps=10) for each in bad.update(batch)]
    assert sorted(new) == [(5, "img_05"), (19, "img_19")]
    assert bad.indices == [4, 5, 7, 19]


def test_too_many_bad_records_stop_the_run():
    data = dataclasses.replace(DATA, max_bad_share=0.05)
    split = make_split(20, bad=(3, 9))
    bad = BadRecords(split, data)
    for batch in train(split, data, num_steps=3):
        bad.update(batch)
    with pytest.raises(UserError, match=r"2 of the 20 records .* data.max_bad_share allows 1") as caught:
        bad.check()
    assert "img_03: PNG of 90 bytes" in str(caught.value)
    assert "img_09: PNG of 90 bytes" in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_split_without_a_decodable_image_stops_at_once(workers):
    data = dataclasses.replace(DATA, max_bad_share=0.2, workers=workers)
    with pytest.raises(UserError, match="5 of the 20 records"):
        train(make_split(20, bad=tuple(range(20))), data)


def test_a_share_of_zero_allows_no_bad_record():
    with pytest.raises(UserError, match=r"1 of the 20 records(?s:.*)img_04"):
        train(make_split(20, bad=(4,)), dataclasses.replace(DATA, max_bad_share=0.0), num_steps=10)

"""Codes on disk: what was settled is there after any end, rows come back in any order, bad records are passed over."""

import numpy as np
import pytest

from imagenet_repro.data.order import epoch_order
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.features import stored_codes
from imagenet_repro.features.stored_codes import ROWS, UNDECODABLE, StoredCodes


def filled(directory, images=10, numbers=3, dtype=np.uint8, bad=()):
    made = StoredCodes(directory, images, numbers, dtype)
    directory.mkdir(exist_ok=True)
    values = np.arange(images * numbers).reshape(images, numbers).astype(dtype)
    labels = np.where(np.isin(np.arange(images), bad), UNDECODABLE, np.arange(images) % 4).astype(np.int32)
    made.write(0, values[:4], labels[:4])
    made.commit(4, {"seconds": 1.0})
    made.write(4, values[4:], labels[4:])
    return made, values, labels


@pytest.mark.parametrize("dtype", [np.uint8, np.float16])
def test_rows_come_back_in_any_order(tmp_path, dtype):
    made, values, labels = filled(tmp_path / "codes", dtype=dtype)
    made.commit(10, {})
    index = np.asarray([7, 0, 7, 9])
    found, known = StoredCodes(tmp_path / "codes", 10, 3, dtype).read(index)
    np.testing.assert_array_equal(found, values[index])
    np.testing.assert_array_equal(known, labels[index])


def test_only_what_was_settled_counts_after_a_kill(tmp_path):
    made, _, _ = filled(tmp_path / "codes")
    again = StoredCodes(tmp_path / "codes", 10, 3, np.uint8)
    assert (again.n_stored, again.is_complete, again.note) == (4, False, {"seconds": 1.0})
    made.commit(10, {})
    assert StoredCodes(tmp_path / "codes", 10, 3, np.uint8).is_complete


@pytest.mark.parametrize("damage", ["rows cut", "note damaged", "note missing"])
def test_codes_that_are_not_whole_are_computed_again(tmp_path, damage):
    made, _, _ = filled(tmp_path / "codes")
    made.commit(10, {})
    if damage == "rows cut":
        (tmp_path / "codes" / ROWS).write_bytes(b"short")
    elif damage == "note damaged":
        (tmp_path / "codes" / stored_codes.PROGRESS).write_text('{"images": ')
    else:
        (tmp_path / "codes" / stored_codes.PROGRESS).unlink()
    assert StoredCodes(tmp_path / "codes", 10, 3, np.uint8).n_stored == 0


def test_a_file_that_ends_too_soon_is_named(tmp_path):
    made, _, _ = filled(tmp_path / "codes")
    with pytest.raises(UserError, match=r"codes in .* cannot be read: the file ends before image 11; remove that"):
        made.read(np.asarray([11]))


def test_a_full_disk_is_found_before_the_work(tmp_path):
    with pytest.raises(SaveError, match=r"codes need 4,\d{3},\d{3}\.\d GB, .* config\.cache_dir"):
        StoredCodes(tmp_path / "codes", 10**9, 2**22, np.uint8).check_space()


def test_batches_have_the_images_that_networks_see(tmp_path):
    made, values, labels = filled(tmp_path / "a")
    other, _, _ = filled(tmp_path / "b", dtype=np.float16)
    order = np.concatenate([epoch_order(5, epoch, 10) for epoch in range(3)])
    batches = stored_codes.train_batches({"a": made, "b": other}, batch_size=4, seed=5, start_step=1, num_steps=6)
    for step, batch in enumerate(batches, start=1):
        expected = order[4 * step : 4 * step + 4]
        np.testing.assert_array_equal(batch["index"], expected)
        np.testing.assert_array_equal(batch["label"], labels[expected])
        np.testing.assert_array_equal(batch["codes"]["a"], values[expected])
        np.testing.assert_array_equal(batch["codes"]["b"], values[expected])
        assert (batch["replaced"] == -1).all()
    assert step == 6


def test_the_next_image_stands_for_one_that_cannot_be_decoded(tmp_path):
    made, values, _ = filled(tmp_path / "codes", bad=(3, 4, 9))
    (batch,) = stored_codes.train_batches({"a": made}, batch_size=10, seed=0, start_step=0, num_steps=1)
    order = epoch_order(0, 0, 10)
    stands_for = {3: 5, 4: 5, 9: 0}
    expected = np.asarray([stands_for.get(i, i) for i in order.tolist()])
    np.testing.assert_array_equal(batch["index"], expected)
    np.testing.assert_array_equal(batch["codes"]["a"], values[expected])
    np.testing.assert_array_equal(batch["replaced"], np.where(np.isin(order, [3, 4, 9]), order, -1))

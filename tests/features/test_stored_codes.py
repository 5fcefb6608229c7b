"""Codes on disk: committed rows survive any end, are read in any order, and bad records are replaced."""

import numpy as np
import pytest

from imagenet_repro.data.order import epoch_order
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.features import stored_codes
from imagenet_repro.features.stored_codes import ROWS, UNDECODABLE, StoredCodes


def filled(directory, images=10, numbers=3, dtype=np.uint8, bad=()):
    codes = StoredCodes(directory, images, numbers, dtype)
    directory.mkdir(exist_ok=True)
    values = np.arange(images * numbers).reshape(images, numbers).astype(dtype)
    labels = np.where(np.isin(np.arange(images), bad), UNDECODABLE, np.arange(images) % 4).astype(np.int32)
    codes.write(0, values[:4], labels[:4])
    codes.commit(4, {"seconds": 1.0})
    codes.write(4, values[4:], labels[4:])
    return codes, values, labels


@pytest.mark.parametrize("dtype", [np.uint8, np.float16])
def test_rows_come_back_in_any_order(tmp_path, dtype):
    codes, values, labels = filled(tmp_path / "codes", dtype=dtype)
    codes.commit(10, {})
    index = np.asarray([7, 0, 7, 9])
    result, known = StoredCodes(tmp_path / "codes", 10, 3, dtype).read(index)
    np.testing.assert_array_equal(result, values[index])
    np.testing.assert_array_equal(known, labels[index])


def test_only_committed_rows_count_after_a_kill(tmp_path):
    codes, _, _ = filled(tmp_path / "codes")
    again = StoredCodes(tmp_path / "codes", 10, 3, np.uint8)
    assert (again.n_stored, again.is_complete, again.note) == (4, False, {"seconds": 1.0})
    codes.commit(10, {})
    assert StoredCodes(tmp_path / "codes", 10, 3, np.uint8).is_complete


@pytest.mark.parametrize("damage", ["rows cut", "note damaged", "note missing"])
def test_damaged_codes_are_computed_again(tmp_path, damage):
    codes, _, _ = filled(tmp_path / "codes")
    codes.commit(10, {})
    if damage == "rows cut":
        (tmp_path / "codes" / ROWS).write_bytes(b"short")
    elif damage == "note damaged":
        (tmp_path / "codes" / stored_codes.PROGRESS).write_text('{"images": ')
    else:
        (tmp_path / "codes" / stored_codes.PROGRESS).unlink()
    assert StoredCodes(tmp_path / "codes", 10, 3, np.uint8).n_stored == 0


def test_a_file_that_ends_too_soon_is_named(tmp_path):
    codes, _, _ = filled(tmp_path / "codes")
    with pytest.raises(UserError, match=r"codes in .* cannot be read: the file ends before image 11; remove that"):
        codes.read(np.asarray([11]))


def test_too_little_disk_space_is_reported_before_the_work(tmp_path):
    with pytest.raises(SaveError, match=r"codes need 4,\d{3},\d{3}\.\d GB, .* config\.cache_dir"):
        StoredCodes(tmp_path / "codes", 10**9, 2**22, np.uint8).check_space()


def test_batches_have_the_images_of_the_networks_batches(tmp_path):
    codes, values, labels = filled(tmp_path / "a")
    other, _, _ = filled(tmp_path / "b", dtype=np.float16)
    order = np.concatenate([epoch_order(5, epoch, 10) for epoch in range(3)])
    batches = stored_codes.train_batches({"a": codes, "b": other}, batch_size=4, seed=5, start_step=1, num_steps=6)
    for step, batch in enumerate(batches, start=1):
        expected = order[4 * step : 4 * step + 4]
        np.testing.assert_array_equal(batch["index"], expected)
        np.testing.assert_array_equal(batch["label"], labels[expected])
        np.testing.assert_array_equal(batch["codes"]["a"], values[expected])
        np.testing.assert_array_equal(batch["codes"]["b"], values[expected])
        assert (batch["replaced"] == -1).all()
    assert step == 6


def test_the_next_image_replaces_one_that_cannot_be_decoded(tmp_path):
    codes, values, _ = filled(tmp_path / "codes", bad=(3, 4, 9))
    (batch,) = stored_codes.train_batches({"a": codes}, batch_size=10, seed=0, start_step=0, num_steps=1)
    order = epoch_order(0, 0, 10)
    stands_for = {3: 5, 4: 5, 9: 0}
    expected = np.asarray([stands_for.get(i, i) for i in order.tolist()])
    np.testing.assert_array_equal(batch["index"], expected)
    np.testing.assert_array_equal(batch["codes"]["a"], values[expected])
    np.testing.assert_array_equal(batch["replaced"], np.where(np.isin(order, [3, 4, 9]), order, -1))

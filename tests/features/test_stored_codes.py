"""Codes on disk: committed rows survive any end, are read in any order, and bad records are replaced."""

import zlib

import numpy as np
import pytest

from imagenet_repro.data.order import epoch_order
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.features import stored_codes
from imagenet_repro.features.stored_codes import ROWS, UNDECODABLE, StoredCodes


def filled(directory, images=10, numbers=3, dtype=np.uint8, bad=()):
    codes = StoredCodes(directory, images, numbers, dtype, 4)
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
    result, known = StoredCodes(tmp_path / "codes", 10, 3, dtype, 4).read(index)
    np.testing.assert_array_equal(result, values[index])
    np.testing.assert_array_equal(known, labels[index])


def test_only_committed_rows_count_after_a_kill(tmp_path):
    codes, _, _ = filled(tmp_path / "codes")
    again = StoredCodes(tmp_path / "codes", 10, 3, np.uint8, 4)
    assert (again.n_stored, again.is_complete, again.note) == (4, False, {"seconds": 1.0})
    codes.commit(10, {})
    assert StoredCodes(tmp_path / "codes", 10, 3, np.uint8, 4).is_complete


def flip(path, position, bit=0):
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


ROW = 3 + 4 + 4  # bytes of code, label and checksum


@pytest.mark.parametrize("position", range(ROW))
def test_a_flipped_bit_of_a_row_is_named_when_it_is_read(tmp_path, position):
    codes, values, _ = filled(tmp_path / "codes")
    codes.commit(10, {})
    flip(tmp_path / "codes" / ROWS, 6 * ROW + position)
    again = StoredCodes(tmp_path / "codes", 10, 3, np.uint8, 4)
    np.testing.assert_array_equal(again.read(np.asarray([5, 7]))[0], values[[5, 7]])
    for _ in range(2):
        with pytest.raises(UserError, match=rf"{ROWS} is damaged: the code of image 6 .* remove {tmp_path / 'codes'}"):
            again.read(np.asarray([5, 6]))


def test_exchanged_rows_are_named(tmp_path):
    codes, _, _ = filled(tmp_path / "codes")
    codes.commit(10, {})
    path = tmp_path / "codes" / ROWS
    content = path.read_bytes()
    path.write_bytes(content[ROW : 2 * ROW] + content[:ROW] + content[2 * ROW :])
    with pytest.raises(UserError, match="the code of image 1"):
        StoredCodes(tmp_path / "codes", 10, 3, np.uint8, 4).read(np.asarray([1]))


@pytest.mark.parametrize("label", [-2, 4, 2**31 - 1])
def test_a_label_outside_the_classes_is_refused(tmp_path, label):
    codes, values, labels = filled(tmp_path / "codes")
    labels[3] = label
    codes.write(0, values, labels)
    with pytest.raises(UserError, match=r"image 3 .* not one of the 4 classes"):
        codes.read(np.asarray([2, 3]))


def test_a_row_is_checked_once(tmp_path, monkeypatch):
    codes, _, _ = filled(tmp_path / "codes")
    seen, crc32 = [], zlib.crc32
    monkeypatch.setattr(stored_codes.zlib, "crc32", lambda data, number: seen.append(number) or crc32(data, number))
    for index in ([1, 2], [2, 3], [1, 3]):
        codes.read(np.asarray(index))
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("position", [2, 12, 20, 30, 40, -3])
def test_a_flipped_bit_of_the_progress_is_noticed(tmp_path, position):
    codes, _, _ = filled(tmp_path / "codes")
    codes.commit(10, {"seconds": 12.5, "flops": 100})
    path = tmp_path / "codes" / stored_codes.PROGRESS
    flip(path, position)
    again = StoredCodes(tmp_path / "codes", 10, 3, np.uint8, 4)
    assert again.n_stored == 0
    assert str(path) in again.problem


def test_codes_of_an_older_version_are_computed_again_and_said_so(tmp_path):
    codes, _, _ = filled(tmp_path / "codes")
    codes.commit(10, {})
    (tmp_path / "codes" / stored_codes.PROGRESS).write_text('{"images": 10, "known": {}}')
    again = StoredCodes(tmp_path / "codes", 10, 3, np.uint8, 4)
    assert again.n_stored == 0
    assert "was written by another version of this software (format 1)" in again.problem


@pytest.mark.parametrize("damage", ["rows cut", "note damaged", "note missing"])
def test_damaged_codes_are_computed_again(tmp_path, damage):
    codes, _, _ = filled(tmp_path / "codes")
    assert not codes.problem
    codes.commit(10, {})
    if damage == "rows cut":
        (tmp_path / "codes" / ROWS).write_bytes(b"short")
    elif damage == "note damaged":
        (tmp_path / "codes" / stored_codes.PROGRESS).write_text('{"images": ')
    else:
        (tmp_path / "codes" / stored_codes.PROGRESS).unlink()
    again = StoredCodes(tmp_path / "codes", 10, 3, np.uint8, 4)
    assert again.n_stored == 0
    assert again.problem


def test_a_file_that_ends_too_soon_is_named(tmp_path):
    codes, _, _ = filled(tmp_path / "codes")
    with pytest.raises(UserError, match=r"codes in .* cannot be read: the file ends before image 11; remove that"):
        codes.read(np.asarray([11]))


def test_too_little_disk_space_is_reported_before_the_work(tmp_path):
    with pytest.raises(SaveError, match=r"codes need 4,\d{3},\d{3}\.\d GB, .* config\.cache_dir"):
        StoredCodes(tmp_path / "codes", 10**9, 2**22, np.uint8, 4).check_space()


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

"""Tests of atomic writes."""

import contextlib

import pytest

from imagenet_repro.errors import SaveError
from imagenet_repro.storage import files


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "file"
    with files.atomic_write(path, "text") as file:
        file.write(b"1")
        assert not path.exists()
    assert path.read_bytes() == b"1"
    assert list(path.parent.iterdir()) == [path]


def test_an_older_file_survives_a_failure(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with contextlib.suppress(KeyboardInterrupt), files.atomic_write(path, "text") as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_an_error_with_its_content_and_path(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SaveError, match=r"could not write a table to .*file/table: "):
        files.atomic_write(tmp_path / "file" / "table", "a table").__enter__()

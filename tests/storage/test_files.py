"""Tests of atomic writes."""

import contextlib
import errno
import os
import subprocess
import sys

import pytest

from imagenet_repro.errors import SaveError
from imagenet_repro.storage import files
from tests.conftest import REPOSITORY


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


def test_derived_names_are_bounded_in_bytes_and_stay_different():
    long = "猫" * 100
    names = [files.bounded_name(long + end, ".npz") for end in ("a", "b")]
    assert names[0] != names[1]
    for name in names:
        assert len(name.encode()) <= files.DERIVED_NAME_BYTES
        assert name.startswith("猫" * 50)
        assert name.endswith(".npz")
    assert files.bounded_name("short", ".npz") == "short.npz"


def test_a_name_of_the_longest_length_can_be_written(tmp_path):
    path = tmp_path / ("n" * 255)
    files.require_writable_file(path, "--out")
    with files.atomic_write(path, "text") as file:
        file.write(b"1")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("n" * 256, "the name has 256 bytes, and the file system takes up to 255"),
        ("猫" * 86, "the name has 258 bytes"),
        ("new/" + "n" * 256 + "/file", "the name has 256 bytes"),
        ("/".join(["n" * 200] * 25), "the path is longer than 4096 bytes"),
        ("file/new/out", "file is a file; a directory is needed; write elsewhere"),
        ("directory", "it is a directory; a file is needed"),
        ("pipe", "it is a device or a pipe"),
        ("dangling/out", "dangling is no directory"),
    ],
)
def test_a_place_that_cannot_take_a_file_is_named_before_work_starts(tmp_path, name, reason):
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "missing")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SaveError, match=f"(?s)--out=.* cannot be written: .*{reason}"):
        files.require_writable_file(tmp_path / name, "--out", "write elsewhere")
    assert sorted(tmp_path.iterdir()) == before


def test_a_full_disk_is_named_before_work_starts(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SaveError, match=r"the page: .* cannot be written: No space left on device"):
        files.require_writable_directory(tmp_path / "new", "the page")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path):
    (tmp_path / "file").write_text("old")
    files.require_writable_file(tmp_path / "file", "--out")
    files.require_writable_file(tmp_path / "new" / "file", "--out")
    files.require_writable_directory(tmp_path, "--out")
    files.require_writable_directory(tmp_path / "new", "--out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(SaveError, match="is a file; a directory is needed"):
        files.require_writable_directory(tmp_path / "file", "--out")


def test_a_directory_without_permission_is_named_before_work_starts(tmp_path):
    """Root may write anywhere, so another user's process tries."""
    if os.geteuid() != 0:
        tmp_path.chmod(0o555)
        with pytest.raises(SaveError, match="Permission denied"):
            files.require_writable_file(tmp_path / "file", "--out")
        return
    tmp_path.chmod(0o700)
    child = os.fork()
    if not child:
        os.setuid(12345)
        try:
            files.require_writable_file(tmp_path / "new" / "file", "--out")
        except SaveError as error:
            os._exit(0 if "Permission denied" in str(error) else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


def test_the_first_error_is_reported_if_cleaning_up_fails_too(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.unlink", fail)
    with pytest.raises(SaveError, match="No space left"), files.atomic_write(tmp_path / "file", "text"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(KeyError), files.atomic_write(tmp_path / "file", "text"):
        raise KeyError


KILLED = """
import os, pathlib, signal, sys
from imagenet_repro.storage import files
with files.atomic_write(pathlib.Path(sys.argv[1]), "text") as file:
    file.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_partial_file_of_a_killed_process_is_removed_and_one_being_written_stays(tmp_path):
    names = ["file", "n" * 255]
    for name in names:
        subprocess.run([sys.executable, "-c", KILLED, tmp_path / name], cwd=REPOSITORY, check=False)
    assert len(list(tmp_path.iterdir())) == 2
    with files.atomic_write(tmp_path / names[0], "text"):
        assert len(list(tmp_path.iterdir())) == 2  # the leftover of the same file was removed
        files.remove_parts(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [files.part_path(tmp_path / names[0]).name]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    files.remove_parts(tmp_path / "missing")


@pytest.mark.parametrize("block", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("content", [b"", b"a", b"a\n", b"\n\nab\n", b"one\ntwo\n\nthree", b"\n"])
def test_the_lines_of_a_file_from_its_end_are_its_lines(tmp_path, monkeypatch, block, content):
    monkeypatch.setattr(files, "BLOCK", block)
    (tmp_path / "log").write_bytes(content)
    lines = list(files.lines_from_end(tmp_path / "log"))
    assert lines[::-1] == content.split(b"\n")
    assert list(files.lines_from_end(tmp_path / "none")) == []

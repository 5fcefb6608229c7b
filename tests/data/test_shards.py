"""Many shards under a low limit on open files, each in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]  # compiled

from imagenet_repro.data import shards
from imagenet_repro.errors import UserError
from tests.data.test_sources import NamedPhotos

COUNT = 300
READ = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, int(sys.argv[2])))
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from imagenet_repro.config import Data
from imagenet_repro.data.sources import open_split
split = open_split(Data(name="named_photos", data_dir=sys.argv[1]), "train")
order = np.random.default_rng(0).permutation(np.tile(np.arange(split.num_examples), 3)).tolist()
with ThreadPoolExecutor(8) as pool:
    ids = list(pool.map(lambda index: split.records[index].id, order))
assert ids == [f"train_{index % 23:03d}.JPEG" for index in order]
print(len(os.listdir("/proc/self/fd")), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
split = open_split(Data(name="named_photos", data_dir=sys.argv[1]), "train")  # the other's files are closed
held = []
try:
    while True:
        held.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
try:
    split.records[0]
except Exception as error:
    print(type(error).__name__, error)
try:
    open_split(Data(name="named_photos", data_dir=sys.argv[1]), "train")
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    """Return the directory of a data set of 300 files, in the size of ImageNet's number for a limit of 64."""
    root = tmp_path_factory.mktemp("data")
    NamedPhotos(data_dir=root, file_format="array_record").download_and_prepare()
    directory = root / "named_photos" / "1.2.0"
    files = sorted(directory.glob("*train*"))
    records = [record for path in files for record in array_record_module.ArrayRecordReader(str(path)).read_all()]
    names = {int(record.split(b"train_")[1][:3]): record for record in records}
    for path in files:
        path.unlink()
    for number in range(COUNT):
        path = directory / f"named_photos-train.array_record-{number:05d}-of-{COUNT:05d}"
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        writer.write(names[number % 23])
        writer.close()
    info = json.loads((directory / "dataset_info.json").read_text())
    next(split for split in info["splits"] if split["name"] == "train")["shardLengths"] = ["1"] * COUNT
    (directory / "dataset_info.json").write_text(json.dumps(info))
    return root


def read(data_dir: Path, hard_limit: int) -> list[str]:
    """Return the lines of a process that reads every record three times under a soft limit of 64 files."""
    command = [sys.executable, "-c", READ, str(data_dir), str(hard_limit)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_more_shards_than_files_that_may_be_open(data_dir):
    counts, while_reading, at_the_start = read(data_dir, 64)
    n_open, limit = map(int, counts.split())
    assert limit == 64
    assert n_open <= 32 + 16  # half of the limit, and the process's own
    for line in (while_reading, at_the_start):
        assert line.startswith("UserError")
        assert "too many files open. Its limit is 64 files" in line
        assert "not damaged" in line
        assert "ulimit -n" in line
        assert "remove" not in line


def test_the_limit_is_raised_where_that_is_allowed(data_dir):
    n_open, limit = map(int, read(data_dir, 1000)[0].split())
    assert limit == 1000
    assert n_open >= COUNT


@pytest.fixture
def files(tmp_path) -> list[str]:
    paths = [str(tmp_path / f"{number}.array_record") for number in range(6)]
    for number, path in enumerate(paths):
        writer = array_record_module.ArrayRecordWriter(path, "group_size:1")
        writer.write(b"%d" % number)
        writer.close()
    return paths


def open_files(paths: list[str]) -> set[int]:
    """Return the numbers of the paths that this process has open."""
    links = {os.readlink(link.path) for link in os.scandir("/proc/self/fd") if os.path.islink(link.path)}
    return {number for number, path in enumerate(paths) if path in links}


def test_the_least_recently_used_shard_is_closed(files):
    opened = shards.OpenShards(3)
    for number in (0, 1, 2, 0, 3):
        assert opened.read(7, files[number], 0) == b"%d" % number
    assert open_files(files) == {0, 2, 3}
    opened.read(8, files[5], 0)
    opened.forget(7)
    assert open_files(files) == {5}


def test_fewer_shards_are_open_after_the_process_had_too_many(files, monkeypatch):
    opened, reader = shards.OpenShards(4), shards._open
    for path in files:
        opened.read(0, path, 0)

    def limited(path):
        if len(open_files(files)) >= 2:
            raise RuntimeError("open() failed: Too many open files")
        return reader(path)

    monkeypatch.setattr(shards, "_open", limited)
    assert [opened.read(0, path, 0) for path in files] == [b"%d" % number for number in range(6)]
    assert opened.bound == 1 or len(open_files(files)) <= 2


def test_other_errors_are_those_of_the_reader(files, tmp_path):
    opened = shards.OpenShards(1)
    with pytest.raises(Exception, match="No such file") as caught:
        opened.read(0, str(tmp_path / "none"), 0)
    assert not isinstance(caught.value, UserError)
    assert len(opened) == 0

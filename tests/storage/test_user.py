"""A user without a home directory or a name, as in a container: nothing needs one where paths are given."""

import grp
import os
import pwd
import tempfile
from pathlib import Path

import pytest
from etils import epath

from imagenet_repro.config import Data
from imagenet_repro.data import sources
from imagenet_repro.data.prepare.prepare_dataset import prepare_dataset
from imagenet_repro.errors import UserError
from imagenet_repro.storage import user


@pytest.fixture
def unknown_user(monkeypatch, tmp_path):
    """Remove the home directory and the names of all users and groups; temporary files are below `tmp_path`."""

    def look_up(number):
        raise KeyError(f"uid not found: {number}")

    for name in ("HOME", "USER", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", look_up)
    monkeypatch.setattr(grp, "getgrgid", look_up)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()


def test_a_data_set_is_prepared_and_opened(unknown_user, tmp_path):
    prepared = prepare_dataset(
        "fractal", data_dir=str(tmp_path), categories=2, train_images=2, size=16, validation_images=1
    )
    data = Data(name=prepared.name, data_dir=str(tmp_path))
    assert sources.open_split(data, "train").num_examples == 4


def test_an_unknown_owner_is_a_number(unknown_user, tmp_path):
    user.tolerate_unknown_owners()
    status = epath.Path(tmp_path).stat()
    assert (status.owner, status.group) == (str(os.getuid()), str(os.getgid()))
    assert status.is_directory


def test_the_default_directory_of_data_sets_is_asked_for(unknown_user):
    with pytest.raises(UserError, match="--data_dir=DIR"):
        sources.data_directory()


def test_a_path_below_a_missing_home_is_refused(unknown_user):
    with pytest.raises(UserError, match="~/runs/1: there is no home directory for ~"):
        user.expand("~/runs/1")
    with pytest.raises(UserError, match="no home directory for ~nobody_of_this_name"):
        user.expand("~nobody_of_this_name/runs")


def test_the_cache_is_a_private_directory(unknown_user, tmp_path):
    directory = user.cache_directory()
    assert directory == tmp_path / "tmp" / f"imagenet_repro-{os.getuid()}"
    assert directory.stat().st_mode & 0o777 == 0o700
    user.give_matplotlib_a_directory()
    assert os.environ["MPLCONFIGDIR"] == str(directory / "matplotlib")


def test_a_cache_that_others_can_write_is_refused(unknown_user):
    user.cache_directory().chmod(0o777)
    with pytest.raises(UserError, match="XDG_CACHE_HOME"):
        user.cache_directory()


def test_a_home_that_is_no_directory_is_not_used(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "nonexistent"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert user.cache_directory().parent == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user.cache_directory() == tmp_path / ".cache" / "imagenet_repro"
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert user.cache_directory() == Path("/elsewhere/imagenet_repro")

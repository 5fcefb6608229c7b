"""Tests of the lookup of recipes in a clone, beside the user, and in an installed package."""

import importlib
import sys

import pytest

from imagenet_repro.config import recipes
from imagenet_repro.config.load import load_config, read_settings
from imagenet_repro.errors import UserError


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Return the directory of installed recipes, for a process that starts elsewhere and sees no clone."""
    directory = tmp_path / "site-packages" / "imagenet_repro" / "configs"
    (directory / "sweeps").mkdir(parents=True)
    (directory / "sweeps" / "base.py").write_text("SEED = 3\n")
    (directory / "small.py").write_text("def get_config(seed=1):\n    return {'seed': int(seed)}\n")
    (directory / "sweeps" / "importing.py").write_text(
        "from configs.sweeps import base\n\ndef get_config():\n    return {'seed': base.SEED}\n"
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(recipes, "INSTALLED_RECIPES", directory)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "site-packages" in path or "python3" in path])
    for name in [name for name in sys.modules if name.split(".")[0] == "configs"]:
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()
    yield directory
    for name in [name for name in sys.modules if name.split(".")[0] == "configs"]:
        del sys.modules[name]


def test_an_installed_recipe_is_found_from_any_directory(installed):
    assert load_config("configs/small.py").seed == load_config("small.py").seed == 1
    assert load_config("sweeps/importing.py").seed == 3
    assert load_config("configs/small.py:7").seed == 7
    assert load_config("configs/sweeps/importing.py").seed == 3


def test_a_file_of_the_user_comes_before_an_installed_recipe(installed, tmp_path):
    own = tmp_path / "elsewhere" / "configs"
    (own / "sweeps").mkdir(parents=True)
    (own / "small.py").write_text("def get_config():\n    return {'seed': 5}\n")
    (own / "sweeps" / "base.py").write_text("SEED = 6\n")
    (own / "sweeps" / "importing.py").write_text((installed / "sweeps" / "importing.py").read_text())
    assert read_settings("configs/small.py") == {"seed": 5}
    assert read_settings("configs/sweeps/importing.py") == {"seed": 6}


def test_a_missing_recipe_is_an_error_that_names_it(installed):
    for name in ("configs/small.py", "small.py", "sweeps/base.py"):
        wrong = name[:-4] + ".py"
        with pytest.raises(UserError, match=rf"there is no file '{wrong}'.* '{name}'"):
            load_config(wrong)
    with pytest.raises(UserError, match=r"there is no file '\./small\.py'; there is no Python file"):
        load_config("./small.py")

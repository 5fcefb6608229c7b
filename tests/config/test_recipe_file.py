"""Tests of configuration files as Python modules, and of the message about every file that is none."""

import sys

import pytest

from imagenet_repro.config import load_config, read_settings
from imagenet_repro.config.recipe_file import split_spec
from imagenet_repro.errors import UserError


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a file of this text, and returns its path."""

    def write_file(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    return write_file


def test_a_file_imports_modules_and_packages_beside_it(write):
    write("helper.py", "from package.inner import SEED\n")
    write("package/__init__.py", "")
    write("package/inner.py", "from parts.number import SEED\n")
    write("parts/number.py", "SEED = 7\n")  # without __init__.py
    path = write(
        "conf.py", "import helper\ndef get_config():\n    from package import inner\n    return {'seed': inner.SEED}"
    )
    modules, search_path = set(sys.modules), list(sys.path)
    assert load_config(path).seed == 7
    assert set(sys.modules) == modules
    assert sys.path == search_path


def test_files_and_helpers_of_one_name_do_not_mix(write):
    for seed in (1, 2):
        write(f"{seed}/helper.py", f"SEED = {seed}\n")
        write(f"{seed}/conf.py", "import helper\nSTATE = []\ndef get_config():\n    return {'seed': helper.SEED}\n")
        write(f"{seed}/configs/base.py", f"SEED = {seed + 10}\n")
        write(
            f"{seed}/configs/conf.py", "from configs import base\ndef get_config():\n    return {'seed': base.SEED}\n"
        )
    root = write("x", "").removesuffix("x")
    assert [load_config(f"{root}{seed}/conf.py").seed for seed in (1, 2, 1)] == [1, 2, 1]
    assert [load_config(f"{root}{seed}/configs/conf.py").seed for seed in (1, 2, 1)] == [11, 12, 11]


def test_a_helper_comes_before_an_imported_module_of_its_name(write):
    write("yaml.py", "SEED = 3\n")  # a library that is imported already, and one that is not changed
    path = write("conf.py", "import json\nimport yaml\ndef get_config():\n    return {'seed': yaml.SEED}\n")
    write("json.py", "raise RuntimeError('the standard library is meant')\n")
    import yaml

    assert load_config(path).seed == 3
    assert sys.modules["yaml"] is yaml


def test_a_helper_that_was_changed_is_read_again(write):
    path = write("conf.py", "import helper\ndef get_config():\n    return {'seed': helper.SEED}\n")
    for seed in (1, 2):  # of one size, within one second
        write("helper.py", f"SEED = {seed}\n")
        assert load_config(path).seed == seed


def test_a_file_may_load_another_one(write):
    write("other/helper.py", "SEED = 5\n")
    other = write("other/conf.py", "import helper\ndef get_config():\n    return {'seed': helper.SEED}\n")
    write("helper.py", "SCALE = 2\n")
    text = f"""
import helper
from imagenet_repro.config import read_settings
def get_config():
    seed = read_settings({other!r})["seed"]
    import helper
    return {{"seed": seed * helper.SCALE}}
"""
    assert load_config(write("conf.py", text)).seed == 10


def test_a_file_may_define_dataclasses_with_postponed_annotations(write):
    text = """
from __future__ import annotations
import dataclasses, typing

@dataclasses.dataclass(kw_only=True)
class Base:
    seed: int = 4
    kind: typing.ClassVar[str] = "x"

def get_config():
    assert typing.get_type_hints(Base)["seed"] is int
    return dataclasses.asdict(Base())
"""
    assert load_config(write("conf.py", text)).seed == 4


def test_settings_belong_to_the_caller(write):
    text = """
from ml_collections import ConfigDict
SHARED = {"name": "lenet5"}
def get_config():
    return {"model": SHARED, "data": ConfigDict({"name": "a"}), "channels": {"a": SHARED, "b": SHARED}}
"""
    settings = read_settings(write("conf.py", text))
    settings["channels"]["a"]["name"] = "other"
    assert settings["channels"]["b"] == settings["model"] == {"name": "lenet5"}
    assert settings["data"] == {"name": "a"}


def test_paths_with_a_home_or_a_colon(write, tmp_path, monkeypatch):
    text = "def get_config(seed=1):\n    return {'seed': int(seed.split(':')[0]) if seed != 1 else 1}\n"
    for name in ("a:b/conf.py", "conf.py", "c:d.py"):
        write(name, text)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert load_config("~/conf.py:3").seed == 3
    assert load_config("a:b/conf.py:4").seed == 4
    assert load_config("a:b/conf.py").seed == 1
    assert load_config("./a:b/../c:d.py:5:6").seed == 5
    assert split_spec("a:b/none.py:7:8") == ("a:b/none.py", "7:8")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("conf.yaml", "seed: 1\n", "is YAML, and not a Python file"),
        ("conf.json", "{}", "is JSON, and not a Python file"),
        ("conf", "", "is not a Python file; its name must end in .py"),
        ("conf.py", "seed: 1\n  budget: 2\n", "conf.py, line 2 is not Python: unexpected indent"),
        ("conf.py", "", "defines no get_config(argument=None)"),
        ("conf.py", "get_config = 5\n", "defines no get_config(argument=None)"),
        (
            "conf.py",
            "def get_config():\n    {'seed': 1}\n",
            "returned None; is a `return` missing?",
        ),
        ("conf.py", "def get_config():\n    return ['seed']\n", "must return a dictionary, but returned ['seed']"),
        ("conf.py", "\nimport not_there\n", "conf.py, line 2: ModuleNotFoundError: No module named 'not_there'"),
        ("conf.py", "from . import x\n", "conf.py, line 1: ImportError: attempted relative import"),
        ("conf.py", "\n\nraise SystemExit(0)\n", "conf.py, line 3: SystemExit: 0"),
        ("conf.py", "def get_config():\n    exit()\n", "conf.py, line 2: SystemExit"),
        ("conf.py", "def get_config():\n    return 1 / 0\n", "conf.py, line 2: ZeroDivisionError: division by zero"),
        ("conf.py", "def get_config():\n    return get_config()\n", "RecursionError"),
        ("conf.py", "def get_config(depth):\n    return {}\n", "does not accept a call without an argument"),
        ("conf.py", "import json\njson.loads('x')\n", "conf.py, line 2: JSONDecodeError"),
        ("conf.py", "import helper\n", "helper.py, line 2: NameError: name 'x' is not defined"),
        ("conf.py", "import broken\n", "broken.py, line 1 is not Python"),
        ("conf.py", "D = {}\nD['a'] = D\ndef get_config():\n    return D\n", "or contain themselves"),
        ("conf.py", "s = '\ud800'\n", "conf.py"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_in_a_sentence(name, text, message, write, tmp_path):
    write("helper.py", "\nx\n")
    write("broken.py", "def\n")
    (tmp_path / name).write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(UserError) as error:
        load_config(str(tmp_path / name))
    assert message in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_an_argument_that_is_not_accepted_is_named_with_its_line(write):
    path = write("conf.py", "def get_config(depth='1'):\n    return {'1': {}}[depth]\n")
    with pytest.raises(UserError, match=r"does not accept the argument '5' \(.*conf\.py, line 2: KeyError: '5'\)"):
        load_config(f"{path}:5")


def test_ctrl_c_in_a_file_stops_the_command(write):
    with pytest.raises(KeyboardInterrupt):
        load_config(write("conf.py", "raise KeyboardInterrupt\n"))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{}", "is a directory; name a file in it"),
        ("{}/nowhere/conf.py:5", "there is no Python file in"),
        ("{}/con.py", "did you mean"),
        ("x" * 5000, "there is no file"),
        (":", "there is no file"),
    ],
)
def test_a_missing_file_is_named(spec, message, write, tmp_path):
    write("conf.py", "")
    with pytest.raises(UserError, match=message):
        load_config(spec.format(tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{'optimizer': {'name': []}}", "config.optimizer.name: [] is not valid"),
        ("{'precision': ['a']}", "config.precision: ['a'] is not valid"),
        ("{1: 2}", "returned settings that cannot be read: 1 cannot be a key"),
        ("{'model': {'options': {1: 2}}}", "1 cannot be a key"),
        ("{'budget': 90}", "config.budget: the number 90 is not valid; a text is needed, in quotes: '90'"),
        ("{'budget': '1e-400ep'}", "config.budget: '1e-400ep' is not an amount"),
        ("{'checkpoint': {'every': 'never'}}", "config.checkpoint.every: 'never' is not an amount"),
        ("{'clip_norm': math.inf}", "config.clip_norm: inf is out of range"),
        ("{'clip_norm': 10**400}", "config.clip_norm: 1000"),
        ("{'batch_size': 10**5000}", "config.batch_size: a value of type int is out of range"),
        ("{'model': {'options': {'dropout': math.nan}}}", "config.model.options.dropout: nan is out of range"),
        ("{'model': {'options': {'a': {1, 2}}}}", "config.model.options.a: {1, 2} is not valid"),
        ("{'model': {'options': 5}}", "config.model.options: 5 is not valid"),
    ],
)
def test_settings_that_no_configuration_can_hold_are_refused(settings, message, write):
    path = write("conf.py", f"import math\ndef get_config():\n    return {settings}\n")
    with pytest.raises(UserError) as error:
        load_config(path)
    assert message in str(error.value)

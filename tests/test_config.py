"""Configurations: what is valid, what is refused and how, and that every key is read by something."""

import ast
import dataclasses
import json
import subprocess
import sys

import pytest

from imagenet_repro import config as cfg
from imagenet_repro import models
from imagenet_repro.errors import UserError
from tests.conftest import REPOSITORY

RECIPES = [
    f"configs/{recipe}"
    for recipe in (
        *("alexnet.py", "alexnet.py:alexnet_owt", "zfnet.py", "zfnet.py:zfnet_wide", "vgg.py:16", "vgg.py:11_bn"),
        *("googlenet.py", "googlenet.py:googlenet_bn", "inception_v3.py", "inception_v3.py:bn_inception"),
        *("inception_v3.py:inception_v4", "inception_v3.py:inception_resnet_v2", "resnet.py:18", "resnet.py:152"),
        *("resnet.py:50_v1", "resnext.py", "resnext.py:101_64x4d", "senet.py", "senet.py:senet154"),
        *("resnet_cifar.py:20", "resnet_cifar.py:110", "efficientnet.py:b0", "efficientnet.py:b7"),
        *("efficientnetv2.py:s", "efficientnetv2.py:xl", "convnext.py:tiny", "convnext.py:xlarge", "deit.py:tiny"),
        *("deit.py:base", "vit.py:baseline", "vit.py:augreg", "rsb.py:a1", "rsb.py:a2", "rsb.py:a3,resnet18"),
        *("modern.py:vgg16", "demo.py:alexnet"),
    )
]


def sections():
    for value in vars(cfg).values():
        if isinstance(value, type) and dataclasses.is_dataclass(value):
            yield value


def test_defaults_survive_json_and_back():
    config = cfg.resolve({})
    assert cfg.resolve(json.loads(json.dumps(cfg.to_dict(config)))) == config


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_resolves_to_a_network_that_can_be_made(recipe):
    config = cfg.load(str(REPOSITORY / recipe))
    assert cfg.resolve(cfg.to_dict(config)) == config
    assert set(config.model.options) <= set(models.spec(config.model.name).options)


def test_every_recipe_is_tested():
    assert {path.name for path in (REPOSITORY / "configs").glob("*.py")} == {r[8:].split(":")[0] for r in RECIPES}


def test_overrides_are_literals_or_text():
    overrides = {
        "optimizer.learning_rate": "0.4",
        "budget": "300s",
        "augment.flip": "false",
        "train_crop.area": "(0.2,1)",
        "model.options": "{'stem': 'small'}",
        "data.name": "cifar10",
    }
    config = cfg.load(str(REPOSITORY / "configs/resnet.py:50"), overrides)
    assert (config.optimizer.learning_rate, config.budget, config.augment.flip) == (0.4, "300s", False)
    assert (config.train_crop.area, config.model.options, config.data.name) == (
        (0.2, 1.0),
        {"stem": "small"},
        "cifar10",
    )
    assert config.data.image_size == 224


def test_another_variant_starts_from_its_own_defaults():
    overrides = {"optimizer.name": "adamw", "optimizer.b2": "0.95"}
    config = cfg.load(str(REPOSITORY / "configs/resnet.py:50"), overrides)
    assert config.optimizer == cfg.AdamW(b2=0.95)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bach_size": 3}, r"config\.bach_size: no such key; did you mean 'batch_size'\?"),
        ({"optimizer": {"name": "sgd", "b1": 0.9}}, r"config\.optimizer\.b1: no such key for name='sgd'"),
        ({"optimizer": {"name": "adm"}}, r"config\.optimizer\.name: 'adm' is not valid; did you mean 'adamw'\?"),
        ({"train_crop": {"area": (0.5, 1.5)}}, r"config\.train_crop\.area: 1\.5 is out of range; .*in \[1e-06, 1\]"),
        ({"train_crop": {"area": (0.9, 0.5)}}, r"config\.train_crop\.area: the values must not decrease"),
        ({"train_crop": {"area": (0.9,)}}, r"config\.train_crop\.area: 2 values are needed here, not 1"),
        ({"model": 3}, r"config\.model: a section with keys is needed here, not 3"),
        ({"optimizer": "sgd"}, r"config\.optimizer: a section with keys is needed"),
        ({"batch_size": 0}, r"config\.batch_size: 0 is out of range; it must be at least 1"),
        ({"batch_size": 2.5}, r"config\.batch_size: 2\.5 is not valid; a value of type int is needed"),
        ({"seed": True}, r"config\.seed: True is not valid"),
        ({"clip_norm": float("nan")}, r"config\.clip_norm: nan is out of range"),
        ({"parallel": "pmp"}, r"config\.parallel: 'pmp' is not valid; did you mean 'pmap'\?"),
        ({"schedule": {"name": "steps", "boundaries": (0.5, 0.2)}}, r"boundaries: the values must not decrease"),
    ],
)
def test_what_is_not_valid_is_refused_by_name(settings, message):
    with pytest.raises(UserError, match=message):
        cfg.resolve(settings)


def test_a_file_that_is_no_recipe_is_refused(tmp_path):
    (tmp_path / "empty.py").write_text("x = 1\n")
    (tmp_path / "broken.py").write_text("def get_config(:\n")
    with pytest.raises(UserError, match=r"the argument 'lenet' .*docstring"):
        cfg.load(str(REPOSITORY / "configs/demo.py:lenet"))
    with pytest.raises(UserError, match="defines no get_config"):
        cfg.load(str(tmp_path / "empty.py"))
    with pytest.raises(UserError, match="line 1 is not Python"):
        cfg.load(str(tmp_path / "broken.py"))
    with pytest.raises(UserError, match=r"did you mean '.*empty\.py'"):
        cfg.load(str(tmp_path / "emty.py"))


def test_every_key_is_read_somewhere():
    """An attribute of that name is loaded in the package outside config.py; a key nobody reads is a bug."""
    read = set()
    for path in (REPOSITORY / "imagenet_repro").rglob("*.py"):
        if path.name != "config.py":
            read |= {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    keys = {field.name for section in sections() for field in dataclasses.fields(section)} - {"name"}
    assert keys - read == set()


def test_importing_the_package_is_light():
    code = "import sys, imagenet_repro.config; print({'jax', 'flax', 'numpy', 'tensorflow_datasets'} & {*sys.modules})"
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    assert out.strip() == "set()"

"""Creation of networks by name."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from imagenet_repro import models
from imagenet_repro.errors import UserError
from imagenet_repro.models.options import check_num_classes, check_options
from imagenet_repro.models.spec import LEVELS


def test_names_specs_and_aliases():
    assert {"alexnet_owt", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"} <= set(models.names())
    assert models.spec("alexnet") is models.spec("alexnet_owt")
    for name in models.names():
        assert "rngs" not in models.spec(name).options


def test_a_builder_with_extra_options_has_those_of_its_base():
    vit, dinov2 = (models.spec(name).options for name in ("vit_base_patch16", "vit_base_patch14_dinov2"))
    assert dinov2 == vit | {"image_size": 518, "mask_token": False}


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("resnet5O",), {}, "resnet50"),
        (("resnet18",), {"stems": "small"}, "zero_init_last=False, stem='imagenet'"),
        (("resnet18",), {"stem": "smal"}, "small"),
        (("alexnet",), {"stem": "tiny"}, "stem"),
        (("alexnet", -1), {}, "num_classes"),
    ],
)
def test_errors_name_the_mistake(arguments, options, message):
    with pytest.raises(UserError, match=message):
        models.create(*arguments, **options)


@pytest.mark.parametrize(
    ("name", "option", "value", "message"),
    [
        ("resnet18", "scan", "no", "resnet18: scan is 'no'; it must be True or False"),
        ("resnet18", "zero_init_last", 1, "True or False"),
        ("resnet18", "scan", None, "True or False"),
        ("resnet18", "stem", 3, "stem is 3; it must be a string"),
        ("resnet18", "dropout", "0.5", "dropout is '0.5'; it must be a number from 0 to below 1"),
        ("resnet18", "dropout", 1, "below 1"),
        ("resnet18", "dropout", True, "a number"),
        ("resnet18", "drop_path", -0.1, "from 0"),
        ("resnet18", "drop_path", float("nan"), "from 0"),
        ("alexnet_2012", "groups", 2.0, "groups is 2.0; it must be a whole number"),
        ("alexnet_2012", "groups", True, "a whole number"),
        ("alexnet_2012", "groups", 3, "not groups=3"),
        ("convnext_tiny", "layer_scale", float("inf"), "a number"),
        ("vit_tiny_patch16", "depth", 0, "depth is 0; it must be a whole number from 1 on, or None"),
        ("vit_tiny_patch16", "depth", 2.0, "a whole number"),
        ("vit_tiny_patch16", "scan", 1, "True or False, or None"),
        ("vit_tiny_patch16", "image_size", 0, "image_size is 0; it must be a whole number from 1 on"),
        ("vit_tiny_patch16", "image_size", (224, 224), "a whole number"),
        ("vit_tiny_patch16", "pool", None, "pool is None; it must be a string"),
    ],
)
def test_invalid_values_of_options_are_refused(name, option, value, message):
    with pytest.raises(UserError, match=re.escape(message)):
        models.abstract(name, **{option: value})


@pytest.mark.parametrize("num_classes", [True, -1, 10.0, "10"])
def test_invalid_numbers_of_classes_are_refused(num_classes):
    with pytest.raises(UserError, match=r"lenet5: num_classes is .*; it must be a whole number from 0 on"):
        check_num_classes("lenet5", num_classes)


def test_every_option_accepts_its_default_and_integers_for_floats():
    for name in models.names():
        options = models.spec(name).options
        check_options(name, options, options)
    check_options("resnet18", {"drop_path": 0.1}, {"drop_path": 0})


def test_networks_whose_papers_subtract_a_mean_get_256_levels():
    levels = {name for name in models.names() if models.spec(name).preprocessing.std == LEVELS}
    cifar = {f"resnet{depth}_cifar" for depth in (20, 32, 44, 56, 110, 1202)}
    v1 = {f"resnet{depth}_v1" for depth in (50, 101, 152)}
    assert levels == cifar | v1 | {"alexnet_2012", "zfnet", "zfnet_wide", "vgg16c", "googlenet", "bn_inception"}
    assert {models.spec(name).preprocessing.mean for name in cifar} == {(0.4914, 0.4822, 0.4465)}


def test_same_seed_same_parameters_and_another_seed_others():
    first, again, other = (
        jax.tree.leaves(nnx.state(models.create("resnet18", 10, seed=s), nnx.Param)) for s in (3, 3, 4)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(not np.array_equal(a, b) for a, b in zip(first, other, strict=True) if a.ndim > 1)


@pytest.mark.parametrize("name", ["alexnet", "resnet50"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_parameters_and_logits_are_float32_for_every_dtype(name, dtype):
    model = models.abstract(name, 7, dtype=dtype)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(nnx.state(model, (nnx.Param, nnx.BatchStat))))
    graphdef, state = nnx.split(model.eval())
    for batch in (1, 3):
        images = jax.ShapeDtypeStruct((batch, 96, 80, 3), jnp.float32)
        logits = jax.eval_shape(lambda state, images: nnx.merge(graphdef, state)(images), state, images)
        assert (logits.shape, logits.dtype) == ((batch, 7), jnp.float32)


def test_a_model_splits_into_parameters_statistics_and_random_state():
    for name, has_stats, has_rngs in (("alexnet", False, True), ("resnet18", True, False)):
        _, params, stats, rngs = nnx.split(models.abstract(name), nnx.Param, nnx.BatchStat, nnx.RngState)
        assert jax.tree.leaves(params)
        assert bool(jax.tree.leaves(stats)) == has_stats
        assert bool(jax.tree.leaves(rngs)) == has_rngs


def test_mode_switches_return_the_network():
    model = models.abstract("resnet18")
    assert not model.bn1.use_running_average
    assert model.eval() is model
    assert model.bn1.use_running_average
    assert not model.train().bn1.use_running_average

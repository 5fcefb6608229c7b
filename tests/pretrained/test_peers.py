"""Logits of weights under the names of others against logits of their code (`goldens/write_peers.py`).

The networks are small versions of published ones. Files go the way of any file of weights: they are read, and the
network is built with the options that `select` finds.
"""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from imagenet_repro import models, pretrained
from imagenet_repro.models.efficientnet import B0, EfficientNet
from imagenet_repro.models.regnet import RegNet, Rule
from imagenet_repro.models.resnet_cifar import CifarResNet
from tests.goldens.formula import formula, image

PEERS = Path(__file__).parents[1] / "goldens" / "peers"
TIMM_B0 = "efficientnet_b0_ra-3dd342df.pth"  # a file of timm's own form


def save(golden, path):
    names, shapes = golden["names"].tolist(), map(json.loads, golden["shapes"].tolist())
    arrays = {
        name: formula(name, tuple(shape)) * scale
        for name, shape, scale in zip(names, shapes, golden["scales"], strict=True)
    }
    safetensors.numpy.save_file(arrays, path)
    return path


def relative_error(network, golden):
    graphdef, state, rest = nnx.split(network.eval(), (nnx.Param, nnx.BatchStat), ...)
    images = image(0, int(golden["image_size"])).transpose(0, 2, 3, 1)
    logits = jax.jit(lambda state, images: nnx.merge(graphdef, state, rest)(images))(state, images)
    return np.linalg.norm(logits - golden["logits"]) / np.linalg.norm(golden["logits"])


def small_efficientnet(**options):
    return nnx.eval_shape(lambda: EfficientNet(B0[:2], 32, 64, rngs=nnx.Rngs(0), num_classes=10, **options))


@pytest.mark.parametrize("form", [pytest.param("same", marks=pytest.mark.slow), "symmetric"])
def test_each_form_of_efficientnet_has_the_logits_of_timms(form, tmp_path):
    golden = np.load(PEERS / f"efficientnet_{form}.npz")
    tag = {"same": "tf_efficientnet_b0", "symmetric": "efficientnet_b0.ra_in1k"}[form]
    weights = pretrained.read(save(golden, tmp_path / "x.safetensors"))
    selected = pretrained.select(weights, tag).options
    assert relative_error(pretrained.load_torch(small_efficientnet(**selected), weights.tensors), golden) < 1e-5


def test_the_name_of_timms_file_selects_its_form(tmp_path):
    golden = np.load(PEERS / "efficientnet_symmetric.npz")
    weights = pretrained.read(save(golden, tmp_path / TIMM_B0))
    assert pretrained.select(weights).options == {"padding": "symmetric", "norm_epsilon": 1e-5}


@pytest.mark.parametrize(
    ("one", "other"), [("efficientnet_same", "efficientnet_symmetric"), ("vit_transformers", "vit_timm")]
)
def test_both_forms_have_the_same_tensors_and_other_logits(one, other):
    one, other = (np.load(PEERS / f"{name}.npz") for name in (one, other))
    for key in ("names", "shapes", "scales"):
        np.testing.assert_array_equal(one[key], other[key])
    assert np.linalg.norm(one["logits"] - other["logits"]) > 0.01 * np.linalg.norm(one["logits"])


def test_the_shortcut_of_a_published_cifar_resnet_pads_both_sides(tmp_path):
    golden = np.load(PEERS / "resnet8_cifar.npz")
    weights = pretrained.read(save(golden, tmp_path / "x.safetensors"))
    selected = pretrained.select(weights, "resnet20_cifar").options
    assert selected == {"shortcut": "A_symmetric"}
    network = nnx.eval_shape(lambda: CifarResNet(1, rngs=nnx.Rngs(0), num_classes=10, **selected))
    assert relative_error(pretrained.load_torch(network, weights.tensors), golden) < 1e-5


def test_a_vit_of_transformers_has_its_own_epsilon(tmp_path):
    golden = np.load(PEERS / "vit_transformers.npz")
    weights = pretrained.read(save(golden, tmp_path / "x.safetensors"))
    selected = pretrained.select(weights, "vit_tiny_patch16", {"depth": 1, "image_size": 32}).options
    assert selected["norm_epsilon"] == 1e-12
    network = models.abstract("vit_tiny_patch16", 10, **selected)
    pretrained.load(network, weights)
    assert relative_error(network, golden) < 1e-5


def test_a_small_regnet_has_the_logits_of_torchvisions(tmp_path):
    golden = np.load(PEERS / "regnet_y.npz")
    weights = pretrained.read(save(golden, tmp_path / "x.safetensors"))
    assert "renamed from the names of torchvision, RegNet" in weights.notes
    rule = Rule(depth=3, width=24, slope=12.0, ratio=2.0, group=8)
    network = nnx.eval_shape(lambda: RegNet(rule, rngs=nnx.Rngs(0), num_classes=10))
    assert relative_error(pretrained.load_torch(network, weights.tensors), golden) < 1e-5

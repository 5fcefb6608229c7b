"""Renaming of tensors; test_libraries.py compares whole files with the libraries."""

import re

import numpy as np
import pytest

from imagenet_repro import models
from imagenet_repro.errors import UserError
from imagenet_repro.models.spec import Preprocessing
from imagenet_repro.pretrained import names, tensors


def families():
    """Return one network of each builder, because the others have the same tensor names."""
    firsts = {}
    for name in models.names():
        builder = models.spec(name).builder
        firsts.setdefault(getattr(builder, "func", builder), name)
    return sorted(firsts.values())


@pytest.mark.parametrize("name", families())
def test_our_own_names_are_no_other_scheme(name):
    own = tensors.shapes(models.abstract(name))
    for scheme in names.SCHEMES:
        assert not any(re.fullmatch(scheme.marker, tensor) for tensor in own), scheme.title


def qkv(places, of="vit.encoder.layer.0.attention.attention.{}.weight"):
    patches = {"vit.embeddings.patch_embeddings.projection.weight": np.zeros((4, 3, 2, 2))}
    return patches | {of.format(position): np.full((4, 4), i) for i, position in enumerate(places)}


def test_parts_are_joined_in_the_order_of_the_rule_not_of_the_file():
    result = names.convert(qkv(["value", "query", "key"]))
    assert result.scheme.title == "transformers, ViT"
    np.testing.assert_array_equal(result.tensors["blocks.0.attn.qkv.weight"][:, 0], np.repeat([1, 2, 0], 4))


def test_a_missing_part_is_reported():
    with pytest.raises(UserError, match=r"of the 3 parts of the tensor 'blocks\.0\.attn\.qkv\.weight'.* only 2"):
        names.convert(qkv(["value", "query"]))


def test_stacked_blocks_of_big_vision_are_separated():
    stacked = {
        "params/embedding/kernel": np.zeros((2, 2, 3, 4)),
        "params/Transformer/encoderblock/LayerNorm_1/scale": np.arange(8.0).reshape(2, 4),
    }
    result = names.convert(stacked).tensors
    assert result["patch_embed.proj.weight"].shape == (4, 3, 2, 2)
    np.testing.assert_array_equal(result["blocks.1.norm2.weight"], np.arange(4.0, 8.0))


def test_with_registers_the_class_tokens_position_is_added_to_it():
    given = {
        "mask_token": np.zeros((1, 2)),
        "cls_token": np.full((1, 1, 2), 1.0),
        "register_tokens": np.zeros((1, 4, 2)),
        "pos_embed": np.arange(10.0).reshape(1, 5, 2),
        "blocks.0.mlp.w12.weight": np.zeros((6, 2)),
    }
    result = names.convert(given).tensors
    assert result.keys() == {"mask_token", "cls_token", "reg_token", "pos_embed", "blocks.0.mlp.fc1.weight"}
    np.testing.assert_array_equal(result["cls_token"][0, 0], [1.0, 2.0])
    np.testing.assert_array_equal(result["pos_embed"], given["pos_embed"][:, 1:])


@pytest.mark.parametrize("missing", ["cls_token", "pos_embed"])
def test_missing_tensors_of_networks_with_registers_are_reported(missing):
    names_given = {"mask_token", "cls_token", "register_tokens", "pos_embed"} - {missing}
    result = names.convert({name: np.zeros((1, 5, 2)) for name in names_given}).tensors
    assert missing not in result


FLAX = {"embedding/kernel": np.zeros((2, 2, 3, 4))}
HF = "vit.encoder.layer.0.attention.attention."
PATCHES = {"vit.embeddings.patch_embeddings.projection.weight": np.zeros((4, 3, 2, 2))}
REGISTERS = {"mask_token": np.zeros((1, 4)), "cls_token": np.zeros((1, 1, 4)), "register_tokens": np.zeros((1, 4, 4))}
SHAPES = [
    (
        PATCHES,
        {HF + "query.weight": (4, 4), HF + "key.weight": (4, 3), HF + "value.weight": (4, 4)},
        "attn.qkv.weight",
    ),
    (PATCHES, {HF + "query.weight": (), HF + "key.weight": (), HF + "value.weight": ()}, "attn.qkv.weight"),
    (REGISTERS, {"pos_embed": (5,)}, "pos_embed"),
    (REGISTERS, {"pos_embed": (1, 5, 3)}, "cls_token"),
    (REGISTERS, {"pos_embed": (2, 5, 4)}, "cls_token"),
    (REGISTERS, {"pos_embed": ()}, "pos_embed"),
    (FLAX, {"Transformer/encoderblock/LayerNorm_0/scale": ()}, "encoderblock/LayerNorm_0/scale"),
    (FLAX, {"Transformer/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel": ()}, "query/kernel"),
    (FLAX, {"Transformer/encoderblock_0/MultiHeadDotProductAttention_0/out/kernel": ()}, "out/kernel"),
    ({}, {"pre_logits.fc1.weight": ()}, "pre_logits.fc1.weight"),
]


@pytest.mark.parametrize(("given", "shapes", "named"), SHAPES)
def test_a_tensor_with_an_unexpected_shape_is_named(given, shapes, named):
    with pytest.raises(UserError, match=f"tensor '[^']*{named}' has .*the shape"):
        names.convert(given | {name: np.zeros(shape) for name, shape in shapes.items()})


@pytest.mark.parametrize(
    ("given", "one", "other"),
    [
        (PATCHES, "vit.layernorm.weight", "layernorm.weight"),
        (PATCHES, HF + "query.bias", "vit.layers.0.attention.q_proj.bias"),
        (PATCHES, "classifier.weight", "cls_classifier.weight"),
        (FLAX, "params/head/bias", "head/bias"),
        ({}, "pre_logits.fc1.weight", "classifier.0.weight"),
    ],
)
def test_two_tensors_with_the_same_new_name_are_both_reported(given, one, other):
    def bare(name):
        return name.removeprefix("vit.").removeprefix("params/")

    with pytest.raises(UserError, match=f"the tensors '.*{bare(one)}' and '.*{bare(other)}' of the weights are both"):
        names.convert(given | {one: np.zeros((2, 2)), other: np.zeros((2, 2))})


def test_a_tensor_given_both_complete_and_in_parts_is_refused():
    given = qkv(["query", "key", "value"]) | {"blocks.0.attn.qkv.weight": np.zeros((12, 4))}
    with pytest.raises(UserError, match=r"'blocks\.0\.attn\.qkv\.weight' both whole and in parts"):
        names.convert(given)


def test_dropped_tensors_are_reported():
    assert names.convert(PATCHES | {"pooler.dense.weight": np.zeros(3)}).dropped == ("pooler.dense.weight",)


@pytest.mark.parametrize(("width", "patch", "resized"), [(768, 16, 256), (768, 32, 256), (1024, 16, 242)])
def test_images_of_torchvisions_vit(width, patch, resized):
    given = {
        "encoder.pos_embedding": np.zeros((1, (224 // patch) ** 2 + 1, width)),
        "conv_proj.weight": np.zeros((width, 3, patch, patch)),
    }
    result = names.convert(given)
    assert result.scheme.preprocessing(result.tensors) == Preprocessing(crop_ratio=224 / resized)
    given["encoder.pos_embedding"] = np.zeros((1, 577, width))
    result = names.convert(given)
    assert result.scheme.preprocessing(result.tensors) is None


@pytest.mark.parametrize(("width", "last", "resized"), [(96, 8, 236), (96, 26, 230), (128, 26, 232), (192, 26, 232)])
def test_images_of_torchvisions_convnext(width, last, resized):
    blocks = {f"features.5.{i}.layer_scale": np.zeros((384, 1, 1)) for i in range(last + 1)}
    stem = {"features.0.0.weight": np.zeros((width, 3, 4, 4)), "features.1.0.layer_scale": np.zeros((width, 1, 1))}
    result = names.convert(stem | blocks)
    assert result.scheme.preprocessing(result.tensors) == Preprocessing(crop_ratio=224 / resized)


def test_blocks_of_efficientnet_pytorch_become_stages():
    own = tensors.shapes(models.abstract("efficientnet_lite0"))
    flat = {}
    blocks = sorted({tuple(map(int, name.split(".")[1:3])) for name in own if name.startswith("blocks.")})
    layers = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
    wide = layers | {"conv_pwl": "_project_conv", "bn3": "_bn2"}
    narrow = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    outer = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    for name, shape in own.items():
        *path, layer, kind = name.split(".")
        if path:
            number = blocks.index((int(path[1]), int(path[2])))
            theirs = f"_blocks.{number}.{(wide if number else narrow)[layer]}.{kind}"
        else:
            theirs = f"{outer[layer]}.{kind}"
        flat[theirs] = np.zeros(shape, np.float32)
    result = names.convert(flat)
    assert result.scheme.title == "EfficientNet-PyTorch"
    assert {name: array.shape for name, array in result.tensors.items()} == own

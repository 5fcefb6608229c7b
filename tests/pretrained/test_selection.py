"""The network, its form and the images that go with a file of weights."""

import dataclasses
import functools
import json

import numpy as np
import pytest
import safetensors.numpy

from imagenet_repro import models, pretrained
from imagenet_repro.errors import UserError
from imagenet_repro.models.spec import Preprocessing
from imagenet_repro.pretrained import forms, preprocessing, published, tensors

SAME = {"padding": "same", "norm_epsilon": 1e-3}
SYMMETRIC = {"padding": "symmetric", "norm_epsilon": 1e-5}


@functools.cache
def shapes_of(network, shortcut=""):
    return tensors.shapes(models.abstract(network, **({"shortcut": shortcut} if shortcut else {})))


def save(path, network, counts=None, rename=lambda name: name, **options):
    # Of an EfficientNet, the first tensors suffice to choose its form.
    shapes = {"conv_stem.weight": (32, 3, 3, 3)} if counts is not None else shapes_of(network, **options)
    arrays = {rename(name): np.zeros(shape, np.float32) for name, shape in shapes.items()}
    if counts is not None:
        arrays["bn1.num_batches_tracked"] = np.array(counts)
    safetensors.numpy.save_file(arrays, path)
    return path


@pytest.mark.parametrize(
    ("file", "counts", "name", "expected"),
    [
        ("x.safetensors", 0, "efficientnet_b0", SAME),  # TensorFlow's weights were never trained by PyTorch
        ("tf_efficientnet_b0_aa-827b6e33.pth", 7, "efficientnet_b0", SAME),
        ("efficientnet_b0_ra-3dd342df.pth", 7, "efficientnet_b0", SYMMETRIC),
        ("x.safetensors", 7, "efficientnet_b0.ra_in1k", SYMMETRIC),
        ("x.safetensors", 7, "tf_efficientnet_b0", SAME),
        ("x.safetensors", 7, "tf_efficientnet_b0.ap_in1k", SAME),
    ],
)
def test_the_two_forms_of_efficientnet_are_told_apart(file, counts, name, expected, tmp_path):
    weights = pretrained.read(save(tmp_path / file, "efficientnet_b0", counts))
    selection = pretrained.select(weights, name)
    assert (selection.name, selection.options) == ("efficientnet_b0", expected)


def test_an_open_form_is_refused_and_can_be_stated(tmp_path):
    weights = pretrained.read(save(tmp_path / "x.safetensors", "efficientnet_b0", 7))
    with pytest.raises(UserError, match=r"does not show which form of efficientnet_b0.*'padding': 'same'"):
        pretrained.select(weights, "efficientnet_b0")
    assert pretrained.select(weights, "efficientnet_b0", SYMMETRIC).options == SYMMETRIC


def test_a_network_of_another_form_than_the_file_is_refused(tmp_path):
    weights = pretrained.read(save(tmp_path / "x.safetensors", "resnet20_cifar", rename=linear))
    model = models.abstract("resnet20_cifar")
    with pytest.raises(UserError, match=r"with shortcut='A_symmetric'.*built without.*\{'shortcut': 'A_symmetric'\}"):
        pretrained.load(model, weights)
    model.origin = dataclasses.replace(model.origin, options={"shortcut": "A"})  # on purpose
    assert (
        "the file is of shortcut='A_symmetric' and the model of shortcut='A'" in pretrained.load(model, weights).notes
    )


def test_a_file_with_the_name_of_timms_own_form_is_not_taken_to_be_converted(tmp_path):
    weights = pretrained.read(save(tmp_path / "efficientnet_b0.pth", "efficientnet_b0", 0))
    with pytest.raises(UserError, match="does not show which form"):
        pretrained.select(weights, "efficientnet_b0")
    other = pretrained.read(save(tmp_path / "x.pth", "efficientnet_b0", 0))
    assert "taken to be converted from TensorFlow" in other.notes[0]


def linear(name):
    return name.replace("fc.", "linear.")


@pytest.mark.parametrize(
    ("rename", "options", "expected"),
    [(linear, {}, {"shortcut": "A_symmetric"}), (str, {"shortcut": "B"}, {"shortcut": "B"})],
)
def test_the_shortcut_of_a_cifar_resnet_follows_from_the_scheme(rename, options, expected, tmp_path):
    path = save(tmp_path / "x.safetensors", "resnet20_cifar", rename=rename, **options)
    assert pretrained.select(pretrained.read(path), "resnet20_cifar").options == expected


def test_a_cifar_resnet_of_an_unknown_scheme_is_refused(tmp_path):
    weights = pretrained.read(save(tmp_path / "x.safetensors", "resnet20_cifar"))
    with pytest.raises(UserError, match="shortcut='A' or shortcut='A_symmetric'"):
        pretrained.select(weights, "resnet20_cifar")
    with pytest.raises(UserError, match="does not show which form"):
        pretrained.load(models.abstract("resnet20_cifar"), weights)


def test_names_of_weights_carry_their_preprocessing(tmp_path):
    weights = pretrained.read(save(tmp_path / "x.safetensors", "resnet18"))
    usual, named = pretrained.select(weights, "resnet18"), pretrained.select(weights, "resnet18.a1_in1k")
    assert usual.preprocessing == models.spec("resnet18").preprocessing
    assert "usual for resnet18" in usual.source
    assert (named.name, named.preprocessing.crop_ratio, named.preprocessing.kernel) == ("resnet18", 0.95, "bicubic")
    assert "timm 1.0" in named.describe_images()
    assert pretrained.select(weights, "ResNet18_Weights.IMAGENET1K_V1").preprocessing.kernel == "bilinear"
    with pytest.raises(UserError, match=r"did you mean 'resnet18\.a"):
        pretrained.select(weights, "resnet18.a9_in1k")


def test_torchvisions_files_are_known_by_name(tmp_path):
    known = published.by_file("resnet50-11ad3fa6.pth")
    assert (known.weights, known.preprocessing.crop_ratio) == ("resnet50.IMAGENET1K_V2", pytest.approx(224 / 232))
    assert len(published.names()) > 300
    for name in published.names():
        row = published.by_name(name)
        assert set(row.options) <= set(models.spec(row.network).options), name


def test_given_preprocessing_replaces_that_of_the_file(tmp_path):
    weights = pretrained.read(save(tmp_path / "x.safetensors", "resnet18"))
    settings = {"mean": "0.5", "std": "0.2,0.3,0.4", "size": "64", "crop": "squash", "kernel": "bicubic"}
    selection = pretrained.select(weights, "resnet18", None, settings)
    assert selection.preprocessing == Preprocessing(
        64, 1.0, "bicubic", (0.5, 0.5, 0.5), (0.2, 0.3, 0.4), crop="squash"
    )
    assert "mean, std, size, crop, kernel as given" in selection.source


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("mean", "123.675,116.28,103.53", r"in \[0, 1\].*type --preprocess.mean=0.485,0.456,0.406"),
        ("std", "0", "above 0 to 1"),
        ("std", "0.1,0.2", "has 2 numbers"),
        ("crop", "1.2", "above 0 to 1, or squash"),
        ("size", "0", "from 1 to 65,536"),
        ("kernel", "bicubik", "did you mean 'bicubic'"),
        ("crops", "1", "there is no such key; did you mean 'crop'"),
    ],
)
def test_preprocessing_that_is_not_valid_is_refused(key, text, message):
    with pytest.raises(UserError, match=f"--preprocess.{key}: .*{message}"):
        preprocessing.change(Preprocessing(), {key: text})


def test_a_timm_directory_states_network_form_and_images(tmp_path):
    save(tmp_path / "model.safetensors", "efficientnet_b0", 7)
    images = {"input_size": [3, 224, 224], "crop_pct": 0.9, "interpolation": "bicubic", "mean": [0.5] * 3}
    config = {"architecture": "efficientnet_b0", "pretrained_cfg": images | {"std": [0.5] * 3, "crop_mode": "center"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    selection = pretrained.select(pretrained.read(tmp_path))
    assert (selection.name, selection.options) == ("efficientnet_b0", SYMMETRIC)
    assert (selection.preprocessing.crop_ratio, selection.preprocessing.mean) == (0.9, (0.5, 0.5, 0.5))
    assert "config.json" in selection.source


def test_a_processor_of_transformers_states_its_images(tmp_path):
    save(tmp_path / "pytorch_model.bin", "resnet18")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "layer_norm_eps": 1e-12}))
    processor = {"size": {"height": 224, "width": 224}, "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    weights = pretrained.read(tmp_path / "pytorch_model.bin")
    assert weights.options == {"norm_epsilon": 1e-12}
    assert weights.preprocessing == Preprocessing(224, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3, crop="squash")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor | {"image_mean": 1}))
    with pytest.raises(UserError, match=r"config.json cannot be understood"):
        pretrained.read(tmp_path)


def test_shards_of_an_index_are_read_together(tmp_path):
    whole = pretrained.read(save(tmp_path / "whole.safetensors", "lenet5"))
    arrays = {f"model.{name}": array for name, array in whole.tensors.items()}
    parts = [dict(list(arrays.items())[::2]), dict(list(arrays.items())[1::2])]
    places = {}
    for number, part in enumerate(parts):
        safetensors.numpy.save_file(part, tmp_path / f"model-{number}.safetensors")
        places |= dict.fromkeys(part, f"model-{number}.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    weights = pretrained.read(tmp_path)
    assert weights.tensors.keys() == whole.tensors.keys()
    assert weights.notes[0] == "read 2 shards"
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-1.safetensors is missing"):
        pretrained.read(index)
    index.write_text(json.dumps({"weight_map": {"a": "../x"}}))
    with pytest.raises(UserError, match="not beside it"):
        pretrained.read(index)


def test_a_directory_needs_one_file_of_weights(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"workdir of a run.*main.py export"):
        pretrained.read(tmp_path)


def test_forms_of_transformers():
    head, token = np.zeros((3, 8), np.float32), np.zeros((1, 1, 4), np.float32)
    dino = {"blocks.0.ls1.gamma": token, "head.weight": head, "cls_token": token}
    assert forms.options(dino, forms.HUGGINGFACE_VIT, {}) == {"pool": "token_and_avg"}
    assert forms.options({"head.weight": head}, forms.HUGGINGFACE_VIT, {}) == {"norm_epsilon": 1e-12}


def test_a_file_of_ours_states_everything(tmp_path):
    model = models.abstract("resnet20_cifar", shortcut="A")
    pretrained.load(model, save(tmp_path / "x.safetensors", "resnet20_cifar"))
    pretrained.write(model, tmp_path / "a.safetensors")
    weights = pretrained.read(tmp_path / "a.safetensors")
    assert pretrained.select(weights).options == {"shortcut": "A"}
    assert not weights.options

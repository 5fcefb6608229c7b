"""Reading and writing files of weights."""

import dataclasses
import io
import json
import zipfile
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from imagenet_repro import models, pretrained
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.models.spec import Preprocessing
from imagenet_repro.pretrained.pickles import Content
from imagenet_repro.pretrained.tensors import shapes


@pytest.fixture(scope="module")
def model():
    model = models.abstract("resnet18", 10, stem="small")
    rng = np.random.default_rng(0)
    return pretrained.load_torch(model, {n: rng.random(shape, np.float32) for n, shape in shapes(model).items()})


def test_written_weights_load_again(model, tmp_path):
    path = tmp_path / "weights.safetensors"
    preprocessing = Preprocessing(96, 0.9, "bicubic", (0.5, 0.5, 0.5), (0.2, 0.3, 0.4), antialias=False)
    pretrained.write(model, path, preprocessing=preprocessing)
    weights = pretrained.read(path)
    assert weights.preprocessing == preprocessing
    assert (weights.origin.name, weights.origin.num_classes) == ("resnet18", 10)
    assert weights.origin.options == {"stem": "small"}
    origin = weights.origin
    loaded = models.abstract(origin.name, origin.num_classes, **origin.options)
    report = pretrained.load(loaded, path)
    assert report == pretrained.Report(path, (), (), (), preprocessing)
    expected = pretrained.to_torch(model)
    for name, array in pretrained.to_torch(loaded).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_without_metadata_the_preprocessing_is_the_published_one(model, tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file({k: np.ascontiguousarray(v) for k, v in pretrained.to_torch(model).items()}, path)
    assert pretrained.read(path).preprocessing is None
    assert pretrained.load(model, path).preprocessing == models.spec("resnet18").preprocessing


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_16_bit_floats_are_converted_to_float32(dtype, tmp_path):
    safetensors.numpy.save_file({"weight": np.arange(4).astype(dtype)}, tmp_path / "half.safetensors")
    result = pretrained.read(tmp_path / "half.safetensors").tensors["weight"]
    np.testing.assert_array_equal(result, np.arange(4, dtype=np.float32), strict=True)


@pytest.mark.parametrize(
    ("wrapped", "note"),
    [
        ({"state_dict": "model"}, "took 'state_dict'"),
        ({"model": "model", "model_ema": "ema"}, "took 'model_ema' and left model"),
        ({"model": {"state_dict": "model"}}, "took 'model'"),
        ({"net": "model", "epoch": 3}, "took 'net' and left epoch"),
        ({"params": {"model": "model"}}, "took 'params'"),
        ({"teacher": "model"}, "took 'teacher'"),
        ({"model": "model", "ema_state_dict": "ema"}, "took 'ema_state_dict' and left model"),
        ({"model_state_dict": "model", "epoch": 3}, "took 'model_state_dict' and left epoch"),
        ({"state_dict": "model", "model": {"depth": 3}}, "took 'state_dict' and left model"),
        ({"model_ema": {}, "state_dict": "model"}, "took 'state_dict' and left model_ema"),
        ({"ema": {"decay": 3, "module": "model"}}, "took 'module' and left decay"),
    ],
)
def test_wrapped_weights_are_found(wrapped, note):
    from imagenet_repro.pretrained import files

    def fill(value):
        if isinstance(value, dict):
            return {key: fill(entry) for key, entry in value.items()}
        if isinstance(value, int):
            return value
        return {"module._orig_mod.weight": np.zeros(3), "module._orig_mod.bias": np.zeros(3)}

    arrays, notes = files._unwrap(Content(fill(wrapped), {}, (), True), Path("x"))
    assert list(arrays) == ["weight", "bias"]
    assert note in notes


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"weights": {"a": np.zeros(3)}, "epoch": 3}, "it has the keys 'weights', 'epoch', and tensors may be under"),
        ({"teacher": {"a": np.zeros(3)}, "student": {"a": np.zeros(3)}}, "it has the keys 'teacher', 'student'"),
        ([np.zeros(3)], "it is a list, not a dictionary"),
        ({}, "it is empty"),
        ({1: np.zeros(3), "1": np.ones(3)}, "has two tensors '1'"),
    ],
)
def test_the_content_of_a_file_without_weights_is_reported(value, message):
    from imagenet_repro.pretrained import files

    with pytest.raises(UserError, match=message):
        files._unwrap(Content(value, {}, (), True), Path("x"))


def test_options_of_numpy_are_written_and_others_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    model = models.abstract("vit_tiny_patch16", 3, depth=1)
    pretrained.load_torch(model, {name: np.zeros(shape, np.float32) for name, shape in shapes(model).items()})
    options = {"depth": np.int64(1), "image_size": np.int32(224)}
    model.origin = dataclasses.replace(model.origin, options=options)
    pretrained.write(model, path)
    origin = pretrained.read(path).origin
    assert (origin.num_classes, origin.options) == (3, {"depth": 1, "image_size": 224})
    model.origin = dataclasses.replace(model.origin, options={"depth": object()})
    with pytest.raises(UserError, match=r"a\.safetensors: the network's options .* cannot be written"):
        pretrained.write(model, path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pth", b"version https://git-lfs.github.com/spec/v1\n", "a.pth is of an unknown format"),
        ("a.pth", b"<!DOCTYPE html><html>", "a.pth is of an unknown format"),
        ("a.bin", b"", "a.bin is of an unknown format"),
        ("a.safetensors", b"\x00\x01", "a.safetensors is damaged or cut short"),
        ("a.safetensors", (999).to_bytes(8, "little") + b'{"a":', "a.safetensors is damaged or cut short"),
        ("a.npz", b"PK\x03\x04 and no more", "a.npz is damaged or cut short"),
        ("a.pth", b"\x80\x02}q\x00.", "a.pth is damaged or cut short"),
    ],
)
def test_other_files_are_refused_by_name(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        pretrained.read(tmp_path / name)


def test_a_truncated_safetensors_file(model, tmp_path):
    path = tmp_path / "weights.safetensors"
    pretrained.write(model, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match="is damaged or cut short"):
        pretrained.read(path)


def test_no_file_and_no_tensors(tmp_path):
    with pytest.raises(UserError, match="there is no such file of weights"):
        pretrained.read(tmp_path / "absent.pth")
    np.savez(tmp_path / "empty.npz")
    with pytest.raises(UserError, match=r"empty\.npz"):
        pretrained.read(tmp_path / "empty.npz")


def test_invalid_metadata_is_reported(tmp_path):
    path = tmp_path / "weights.safetensors"
    arrays = {"weight": np.zeros(3, np.float32)}
    valid = {"name": "resnet18", "num_classes": 10, "options": {}, "preprocessing": None}
    abouts = [{"name": "resnet18"}, {"preprocessing": {"size": 3}}, [], 5]
    abouts += [valid | {"name": name} for name in (5, None, ["resnet18"])]
    abouts += [valid | {"num_classes": "10"}, valid | {"options": None}, valid | {"options": []}]
    images = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    wrong = [{"image_size": "224"}, {"mean": 0.5}, {"mean": [0.5]}, {"std": ["a", "b", "c"]}, {"kernel": 3}]
    abouts += [valid | {"preprocessing": images | one} for one in (*wrong, {"unknown": 1})] + [
        valid | {"preprocessing": 1}
    ]
    for about in ("{", *map(json.dumps, abouts)):
        safetensors.numpy.save_file(arrays, path, {"imagenet_repro": about})
        with pytest.raises(UserError, match="metadata 'imagenet_repro' cannot be understood"):
            pretrained.read(path)


def test_an_npz_with_python_objects_is_refused(tmp_path):
    np.savez(tmp_path / "objects.npz", a=np.array([{}], object))
    with pytest.raises(UserError, match="is damaged"):
        pretrained.read(tmp_path / "objects.npz")


@pytest.mark.parametrize(
    "array",
    [
        np.array(["text"]),
        np.array([b"text"]),
        np.zeros(3, np.complex64),
        np.zeros(3, "datetime64[s]"),
        np.zeros(3, [("a", np.float32), ("b", np.int8)]),
    ],
    ids=lambda array: array.dtype.kind,
)
def test_arrays_that_are_not_numbers_are_reported(array, tmp_path):
    np.savez(tmp_path / "a.npz", weight=array)
    with pytest.raises(UserError, match=r"a\.npz: tensor 'weight' is of the type .*; weights are"):
        pretrained.read(tmp_path / "a.npz")


def test_numbers_of_other_types_are_read(tmp_path):
    arrays = {
        "a": np.array([True]),
        "b": np.arange(3),
        "c": np.zeros(2, np.float64),
        "d": np.ones(2, ml_dtypes.bfloat16),
    }
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    result = pretrained.read(tmp_path / "a.npz").tensors
    for name, array in arrays.items():
        np.testing.assert_array_equal(result[name], array)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_npz_with_a_false_size_is_refused(compression, tmp_path):
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w", compression) as archive:
        archive.writestr("weight.npy", member.getvalue() + bytes(16))
    with pytest.raises(UserError, match=r"'weight\.npy' claims 4,000,000,000,000 bytes, the file has \d+"):
        pretrained.read(tmp_path / "a.npz")


def test_8_bit_floats_are_refused_by_name(tmp_path):
    header = json.dumps({"weight": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(UserError, match=r"a\.safetensors: tensor 'weight' is of the type F8_E4M3"):
        pretrained.read(tmp_path / "a.safetensors")


def test_a_failed_write_leaves_no_file(model, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SaveError, match=r"weights\.safetensors could not be written"):
        pretrained.write(model, tmp_path / "file" / "weights.safetensors")
    with pytest.raises(UserError, match=r"weights\.pth: weights are written only as \.safetensors"):
        pretrained.write(model, tmp_path / "weights.pth")
    path = tmp_path / "taken.safetensors"
    path.mkdir()
    (path / "full").touch()
    with pytest.raises(SaveError):
        pretrained.write(model, path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", path.name]


def test_a_network_knows_its_origin():
    network = models.abstract("alexnet", 7, dtype=jnp.bfloat16, stem="small")
    assert (network.origin.name, network.origin.num_classes) == ("alexnet_owt", 7)
    assert network.origin.options == {"stem": "small"}


def test_names_of_classes_are_written_and_read(tmp_path):
    model = models.create("lenet5", num_classes=3)
    names = ("cat", "\u00e9t\u00e9", "n01443537")
    pretrained.write(model, tmp_path / "w.safetensors", class_names=names)
    assert pretrained.read(tmp_path / "w.safetensors").class_names == names
    pretrained.load(model, tmp_path / "w.safetensors")
    pretrained.write(model, tmp_path / "again.safetensors")
    assert pretrained.read(tmp_path / "again.safetensors").class_names == names
    with pytest.raises(UserError, match="2 names are given for 3 classes"):
        pretrained.write(model, tmp_path / "w.safetensors", class_names=names[:2])

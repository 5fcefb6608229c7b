"""Reading files of torch.save without PyTorch; `files/write_files.py` and `write_checkpoints.py` wrote them."""

import json
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from imagenet_repro import pretrained
from imagenet_repro.errors import UserError

FILES = Path(__file__).parent / "files"


@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth"])
def test_tensors_are_those_that_were_saved(name):
    weights = pretrained.read(FILES / name)
    shared = np.arange(24, dtype=np.float32)
    expected = {
        "plain": np.arange(6, dtype=np.float32).reshape(2, 3),
        "transposed": shared.reshape(4, 6).T,
        "part": shared[8:20:3],
        "parameter": np.float32([0.5, 0.5]),
        "half": np.float32([1.5, -2.0]),
        "bfloat16": np.float32([1.5, -2.0]),
        "count": np.array(7),
        "empty": np.zeros((0, 3), np.float32),
    }
    assert weights.tensors.keys() == expected.keys()
    for key, array in expected.items():
        np.testing.assert_array_equal(weights.tensors[key], array, strict=True, err_msg=key)
    assert weights.notes == ("took 'model' and left epoch, best", "left 'module.' out of every name")


@pytest.mark.parametrize(
    ("name", "kind", "note"),
    [
        ("torchvision", "averaged", "took 'model_ema' and left model, optimizer, lr_scheduler, epoch, args, scaler"),
        ("torchvision_legacy", "averaged", "left 'module.' out of every name"),
        ("torchvision_protocol4", "averaged", "took 'model_ema' and left model"),
        ("torchvision_legacy_protocol5", "averaged", "took 'model_ema' and left model"),
        ("timm", "averaged", "took 'state_dict_ema' and left epoch, arch, optimizer, version, args"),
        ("wrapped", "trained", "left '_checkpoint_wrapped_module.' out of 5 of 8 names"),
    ],
)
def test_training_checkpoints_yield_their_weights(name, kind, note):
    weights = pretrained.read(FILES / f"{name}.pth")
    expected = json.loads((FILES / "expected.json").read_text())[kind]
    assert weights.tensors.keys() == expected.keys()
    for key, numbers in expected.items():
        dtype = np.int64 if key.endswith("num_batches_tracked") else np.float32
        np.testing.assert_array_equal(weights.tensors[key], np.array(numbers, dtype), strict=True, err_msg=key)
    notes = "; ".join(weights.notes)
    assert note in notes
    assert "argparse.Namespace" in notes
    assert "unbuilt, since only tensors are needed" in notes


class Attack:
    """A hostile object, which runs code when it is unpickled in the usual way."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def zipped(path, value, numbers=b""):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", value if isinstance(value, bytes) else pickle.dumps(value, protocol=2))
        archive.writestr("archive/data/0", numbers)
    return path


def legacy(path, value):
    with path.open("wb") as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(part, file, protocol=2)
        file.write(value if isinstance(value, bytes) else pickle.dumps(value, protocol=2))
    return path


@pytest.mark.parametrize("save", [zipped, legacy])
@pytest.mark.parametrize("position", ["weight", "deep"])
def test_a_file_that_would_run_code_is_refused_and_runs_nothing(save, position, tmp_path):
    marker = tmp_path / "ran"
    attack = Attack(os.system, f"touch {marker}")
    value = {"weight": attack} if position == "weight" else OrderedDict(a=[({"b": attack},)])
    path = save(tmp_path / "weights.pth", value)
    pickle.loads(pickle.dumps(value))
    assert marker.exists(), "the attack works on the usual unpickler"
    marker.unlink()
    with pytest.raises(UserError, match=r"weights\.pth was not read: unpickling it would call 'posix\.system'"):
        pretrained.read(path)
    assert not marker.exists()


def test_an_attack_beside_the_weights_is_left_out_by_name(tmp_path):
    attack = pickle.dumps(Attack(os.system, f"touch {tmp_path / 'ran'}"), protocol=2)[2:-1]
    pickled = tensor((2,), (1,))[:-1] + b"(Vargs\n" + attack + b"Vfused\n" + attack + b"u."
    weights = pretrained.read(zipped(tmp_path / "weights.pth", pickled, bytes(16)))
    assert list(weights.tensors) == ["weight"]
    assert weights.notes == ("left objects of posix.system unbuilt, since only tensors are needed",)
    assert not (tmp_path / "ran").exists()


def test_tensors_that_only_pytorch_can_build_are_named(tmp_path):
    quantised = b"Vfc.weight\nctorch._utils\n_rebuild_qtensor\n(NNtRs."
    path = zipped(tmp_path / "weights.pth", tensor((2,), (1,))[:-1] + quantised, bytes(16))
    with pytest.raises(UserError, match=r"tensor 'fc\.weight' is of the kind torch\._utils\._rebuild_qtensor"):
        pretrained.read(path)


@pytest.mark.parametrize(
    "function",
    [eval, exec, getattr, __import__, open, print, os.popen, pickle.loads, np.load, type, object, set],
    ids=lambda function: function.__name__,
)
def test_no_other_function_is_called(function, tmp_path):
    path = zipped(tmp_path / "weights.pth", {"weight": Attack(function, "1")})
    with pytest.raises(UserError, match="would call"):
        pretrained.read(path)


@pytest.mark.parametrize(
    "name", ["torch.storage\n_load_from_bytes", "torch\nload", "collections\nnamedtuple", "torch.\nFloatStorage"]
)
def test_similar_names_to_the_allowed_ones_are_refused(name, tmp_path):
    with pytest.raises(UserError, match="would call"):
        pretrained.read(zipped(tmp_path / "weights.pth", f"c{name}\n.".encode()))


def tensor(size, stride, offset=0, numel=4, then=b""):
    """Return the pickle of one tensor over a storage of `numel` floats, and the operations after it."""

    def number(n):
        return pickle.dumps(n, protocol=2)[2:-1]

    storage = b"((Vstorage\nctorch\nFloatStorage\nV0\nVcpu\n" + number(numel) + b"tQ"
    arguments = storage + number(offset) + number(size) + number(stride)
    return b"\x80\x02}Vweight\nctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"tR" + then + b"s."


def test_a_tensor_by_hand(tmp_path):
    numbers = np.arange(4, dtype=np.float32)
    path = zipped(tmp_path / "weights.pth", tensor((2,), (1,), 1), numbers.tobytes())
    np.testing.assert_array_equal(pretrained.read(path).tensors["weight"], numbers[1:3])


@pytest.mark.parametrize(("size", "stride"), [((3, 4), (0, 1)), ((8,), (0,)), ((2, 3, 2), (2, 0, 1))])
def test_an_expanded_tensor(size, stride, tmp_path):
    numbers = np.arange(4, dtype=np.float32)
    path = zipped(tmp_path / "weights.pth", tensor(size, stride), numbers.tobytes())
    expected = np.lib.stride_tricks.as_strided(numbers, size, [4 * step for step in stride])
    np.testing.assert_array_equal(pretrained.read(path).tensors["weight"], expected)


@pytest.mark.parametrize("save", [zipped, legacy])
@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02}r\xff\xff\xff\x7f.",
        b"\x80\x02}q\xff.",
        b"\x80\x02}p2000000000\n.",
        b"\x80\x02X\xff\xff\xff\x7fa.",
        b"\x80\x04\x8e\xff\xff\xff\xff\x01\x00\x00\x00a.",
        b"\x80\x05\x96\xff\xff\xff\xff\x01\x00\x00\x00a.",
        b"\x80\x02\x8b\xff\xff\xff\x7fa.",
    ],
)
def test_a_small_file_cannot_allocate_much_memory(save, pickled, tmp_path):
    resource = pytest.importorskip("resource")
    path = save(tmp_path / "weights.pth", pickled)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="is damaged"):
        pretrained.read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18


@pytest.mark.parametrize(
    "pickled",
    [
        tensor((5,), (1,)),
        tensor((2,), (4,)),
        tensor((2,), (1,), offset=3),
        tensor((2,), (1,), offset=-1),
        tensor((2,), (-1,), offset=1),
        tensor((-2,), (1,)),
        tensor((2, 2), (1,)),
        tensor((2**40,), (0,)),
        tensor((2,), (1,), numel=2**40),
        tensor((2,), (1,), numel=-4),
        tensor((4,), (1,), then=b"}Vsize\n(K\xfftsb"),  # sets an attribute of the tensor after the check
        tensor((4,), (1,), then=b"(N}Voffset\nK\xffstb"),
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(pickled, tmp_path):
    path = zipped(tmp_path / "weights.pth", pickled, bytes(16))
    with pytest.raises(UserError, match="is damaged"):
        pretrained.read(path)


def test_a_pickle_cannot_change_the_functions_that_are_allowed(tmp_path):
    change = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(N}V__defaults__\n(K\x01tstb."
    with pytest.raises(UserError, match="is damaged"):
        pretrained.read(zipped(tmp_path / "weights.pth", change))


@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_reported(name, share, tmp_path):
    content = (FILES / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=f"{name} is damaged or cut short"):
        pretrained.read(path)

"""Damaged and hostile files of weights: each ends in a UserError or in arrays, in bounded time and memory."""

import io
import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from imagenet_repro import pretrained
from imagenet_repro.errors import UserError

FILES = Path(__file__).parent / "files"
ARRAYS = {
    "weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "half": np.arange(4, dtype=np.float16),
    "brain": np.arange(4).astype(ml_dtypes.bfloat16),
    "count": np.array(7),
    "empty": np.zeros((0, 3), np.float32),
}
SECONDS = 1.0  # that reading a file of a few kB may take
MEGABYTES = 200  # that reading thousands of such files may take at once


def archive(members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as target:
        for name, content in members.items():
            target.writestr(name, content)
    return file.getvalue()


def members_of(content):
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        return {info.filename: source.read(info) for info in source.infolist()}


def npz(compressed=False):
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **ARRAYS)
    return file.getvalue()


CONTENTS = {path.name: path.read_bytes() for path in sorted(FILES.glob("*.pth"))} | {
    "a.safetensors": safetensors.numpy.save(
        {name: np.ascontiguousarray(array) for name, array in ARRAYS.items()},
        {"imagenet_repro": json.dumps({"name": "resnet18", "num_classes": 10, "options": {}, "preprocessing": None})},
    ),
    "a.npz": npz(),
    "compressed.npz": npz(compressed=True),
}


def damaged(content, rng):
    """Return the content with up to four changes of a random kind."""
    result = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        start = int(rng.integers(len(result) + 1))
        length = int(rng.choice((1, 1, 2, 4, 8, 64)))
        piece = [
            rng.bytes(length),
            rng.choice((b"\x00", b"\xff", b"\x7f")) * length,
            b"",
            content[int(rng.integers(len(content))) :][:length],
        ][rng.integers(4)]
        replaced = length if rng.integers(2) else 0
        result[start : start + replaced] = piece
    return bytes(result[: rng.integers(len(result)) if rng.integers(20) == 0 else None])


def mutation(name, rng):
    """Return a file with damage to its bytes or, since checksums reveal that, to a member of a sound archive."""
    content = CONTENTS[name]
    if not content.startswith(b"PK") or rng.integers(3) == 0:
        return damaged(content, rng)
    members = members_of(content)
    names = [member for member in members if member.endswith(("data.pkl", ".npy"))]
    chosen = names[rng.integers(len(names))]
    compression = zipfile.ZIP_DEFLATED if name == "compressed.npz" else zipfile.ZIP_STORED
    return archive(members | {chosen: damaged(members[chosen], rng)}, compression)


def read(path, content):
    """Return the arrays of a file, or None where it is refused; AssertionError where that takes long."""
    path.write_bytes(content)
    start = time.process_time()
    try:
        return {name: np.array(array) for name, array in pretrained.read(path).tensors.items()}
    except UserError as error:
        assert path.name in str(error) or "tensor" in str(error)
        assert str(error).isprintable()
        return None
    finally:
        assert time.process_time() - start < SECONDS


def peak_megabytes():
    resource = pytest.importorskip("resource")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read_mutations(name, tries, path):
    before = peak_megabytes()
    results = [read(path, mutation(name, np.random.default_rng(seed))) for seed in range(tries)]
    assert peak_megabytes() - before < MEGABYTES
    assert any(result is None for result in results)


@pytest.mark.parametrize("name", sorted(CONTENTS))
def test_mutated_files_end_in_a_sentence_or_in_arrays(name, tmp_path):
    read_mutations(name, 8, tmp_path / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CONTENTS))
def test_many_mutated_files(name, tmp_path):
    read_mutations(name, 2_000, tmp_path / name)


def check_truncations(name, path, step):
    content = CONTENTS[name]
    expected = read(path, content)
    for length in range(0, len(content), step):
        arrays = read(path, content[:length])
        if arrays is not None:
            assert arrays.keys() == expected.keys()
            assert all(np.array_equal(arrays[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", sorted(CONTENTS))
def test_truncated_files(name, tmp_path):
    check_truncations(name, tmp_path / name, step=len(CONTENTS[name]) // 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CONTENTS))
def test_files_truncated_at_every_length(name, tmp_path):
    check_truncations(name, tmp_path / name, step=1)

"""A small split in memory, its training batches, and comparisons of batches."""

import dataclasses
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from imagenet_repro.config import Config, Data, InceptionCrop
from imagenet_repro.data import crops
from imagenet_repro.data.decode import decode
from imagenet_repro.data.loader import train_batches
from imagenet_repro.data.sources import Record, Split

SIZE = 16
DATA = Data(image_size=SIZE, threads=2, max_bad_share=0.2)
CROP = InceptionCrop()


def image(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (20 + number % 7, 24, 3), dtype=np.uint8)


def make_split(count: int, bad: tuple[int, ...] = ()) -> Split:
    records = []
    for number in range(count):
        buffer = io.BytesIO()
        Image.fromarray(image(number)).save(buffer, "PNG")
        encoded = buffer.getvalue()[:90] if number in bad else buffer.getvalue()
        records.append(Record(encoded, number % 5, f"img_{number:02d}"))
    return Split("memory", "train", "1.0.0", tuple("abcde"), count, records)


def train(split: Split, data: Data = DATA, **options) -> list[dict]:
    options = {"batch_size": 8, "seed": 3, "num_steps": 6} | options
    return list(train_batches(split, data, CROP, **options))


def assert_same(one: list[dict], other: list[dict]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def joined(batches: list[dict], name: str) -> np.ndarray:
    return np.concatenate([batch[name] for batch in batches])


def repeated(repeats: int) -> Data:
    return dataclasses.replace(DATA, repeats=repeats)


def run_script(path: Path, text: str) -> subprocess.Popen:
    path.write_text(text)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, path], stdout=pipe, stderr=pipe, text=True, env=environment)


def cropped(split: Split, number: int, config: Config) -> np.ndarray:
    """Return an image of a split as evaluation crops it."""
    rng = np.random.default_rng(0)
    decoded = decode(split.records[number].image)
    return crops.crop(decoded, config.eval_crop, config.data.size_evaluated, rng)

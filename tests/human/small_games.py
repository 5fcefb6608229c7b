"""Small games for tests, and the split of small images that they use."""

import cv2
import numpy as np

from imagenet_repro.data.sources import Record, Split
from imagenet_repro.human.game import Game

NAMES = (
    "n02084071",
    "n02121620",
    "n01503061",
    "n02512053",
    "n02958343",
    "n03001627",
    "n04379243",
)  # dog, cat, bird, …


def png(number):
    """Return an image of one grey level as PNG."""
    pixels = np.full((8, 12, 3), number, np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def split(images=20, *, undecodable=(), names=NAMES, labelled=True, part="validation"):
    """Return a split in which image i has class i modulo the number of classes, and grey level i."""
    content = [b"no image" if i in undecodable else png(i) for i in range(images)]
    labels = [i % len(names) if labelled else -1 for i in range(images)]
    records = [Record(*pair, f"{part}/{i}") for i, pair in enumerate(zip(content, labels, strict=True))]
    return Split("photos", part, "1.0.0", names, images, records)


def game(directory, n_images=5, *, seed=0, name="Ada", **options):
    return Game(split(**options), directory, n_images=n_images, seed=seed, name=name)


def level(jpeg):
    """Return the grey level of a JPEG, which is the number of its image in the split."""
    return round(float(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).mean()))

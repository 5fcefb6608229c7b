"""The images that the loader reads: a prepared data set, a folder, or drawings; only the first needs tfds."""

import concurrent.futures
import dataclasses
import math
import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imagenet_repro.data.cores import available_cores
from imagenet_repro.data.decode import decode
from imagenet_repro.data.prepare import folder_listing, jpeg, scenes
from imagenet_repro.data.prepare.listing import Image, Listing, Reader
from imagenet_repro.data.prepare.outlines import CLASSES
from imagenet_repro.data.sources import Record, Split, Splits
from imagenet_repro.data.workers import follow_parent

DRAWN_TOGETHER = 8  # images that a process draws at a time
HELD_OUT = 0.05  # of a folder's training images, for the curves


class FolderRecords:
    """Random access to the images of a folder or of zip files, in a given order.

    Pickling keeps the listing: the process that unpickles it opens the files again.
    """

    def __init__(self, listing: Listing, images: Sequence[Image]):
        self._listing, self._images = listing, tuple(images)
        self._reader = Reader(dataclasses.replace(listing, images=self._images))
        self._labels = {name: number for number, name in enumerate(listing.classes)}

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Record:
        image = self._images[index]
        return Record(self._reader.content(image), self._labels[image.label], image.name)

    def __reduce__(self) -> tuple:
        return FolderRecords, (self._listing, self._images)


def folder_splits(path: str) -> Splits:
    """Return the splits of a folder with `train` and `validation`; the last 5 % of a shuffled `train` are held out.

    Raises:
      UserError: the folder is missing, or has another layout.
    """
    listing = folder_listing.scan(Path(path).expanduser())
    train = [image for image in listing.images if image.split == "train"]
    scored = [image for image in listing.images if image.split != "train"]
    order = np.random.default_rng(0).permutation(len(train))
    count = math.ceil(len(train) * (1 - HELD_OUT))
    parts = {
        "train": [train[i] for i in order[:count]],
        "held_out": [train[i] for i in order[count:]],
        "validation": scored or [train[i] for i in order[count:]],
    }
    return Splits(*(_split(name, listing, images) for name, images in parts.items()))


def _split(name: str, listing: Listing, images: Sequence[Image]) -> Split:
    return Split(
        name=listing.source.stem,
        split=name,
        version="",
        class_names=listing.classes,
        num_examples=len(images),
        records=FolderRecords(listing, images),
    )


def drawn_split(side: int, count: int) -> Split:
    """Return silhouettes in memory, JPEGs of `side` pixels, in the form of a data set."""
    records = [Record(image, i % len(CLASSES), str(i)) for i, image in enumerate(_draw(side, count))]
    names = tuple(shape.name for shape in CLASSES)
    return Split(f"silhouettes of {side} px", "train", "", names, len(records), records)


def drawn_pixels(side: int, count: int) -> np.ndarray:
    """Return silhouettes as uint8 [count, side, side, 3]."""
    return np.stack([decode(image) for image in _draw(side, count)])


def _draw(side: int, count: int) -> list[bytes]:
    jobs = [(side, low, min(low + DRAWN_TOGETHER, count)) for low in range(0, count, DRAWN_TOGETHER)]
    processes = min(len(jobs) // 4, available_cores())
    if processes < 2:
        return [image for job in jobs for image in _draw_job(job)]
    context = multiprocessing.get_context("spawn")  # a fork would inherit the locks of other libraries' threads
    with concurrent.futures.ProcessPoolExecutor(processes, context, follow_parent) as pool:
        return [image for images in pool.map(_draw_job, jobs) for image in images]


def _draw_job(job: tuple[int, int, int]) -> list[bytes]:
    side, start, stop = job
    scene = scenes.Scene(size=side)
    return jpeg.encode([scenes.draw_scene(0, 0, i % len(CLASSES), i, scene) for i in range(start, stop)])

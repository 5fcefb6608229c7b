"""Files of weights that timm and torchvision publish: their network, its options, and how images are prepared.

`published_weights.csv` has a row for each file; `tools/published_weights.py` writes it from these libraries' own
descriptions. A file is recognised by its name, such as `resnet50-11ad3fa6.pth`, or by the name of the weights, such as
`resnet50.a1_in1k`. The same network is often published several times, each time with other preprocessing of images.
"""

import csv
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from imagenet_repro import models
from imagenet_repro.models.spec import Preprocessing

STORED = Path(__file__).parent / "published_weights.csv"
COLUMNS = ("weights", "network", "options", "size", "crop", "kernel", "mean", "std", "file", "source")


class Published(NamedTuple):
    """One published file of weights.

    Attributes:
      weights: the publisher's name of it, such as "resnet50.a1_in1k" (timm) or "resnet50.IMAGENET1K_V2" (torchvision).
      network: our name of its network.
      options: of the network, where they are not the network's own.
      preprocessing: of images, as the publisher evaluates the weights.
      file: the name of the file; empty: it has none of its own.
      source: the library and its version.
    """

    weights: str
    network: str
    options: Mapping[str, Any]
    preprocessing: Preprocessing
    file: str
    source: str


def by_name(name: str) -> Published | None:
    """Return the weights of a publisher's name, also `timm/resnet50.a1_in1k` and `ResNet50_Weights.IMAGENET1K_V2`."""
    bare = name.removeprefix("timm/").removeprefix("hf-hub:timm/")
    network, _, tag = bare.partition(".")
    network = network.removesuffix("_Weights").lower() if network.endswith("_Weights") else network
    return _table().get(f"{network}.{tag}")


def by_file(name: str) -> Published | None:
    """Return the weights that are published in a file of this name; torchvision's own files are torchvision's."""
    rows = [row for row in _table().values() if row.file and row.file == name]
    return next((row for row in rows if row.source.startswith("torchvision")), rows[0] if rows else None)


def by_architecture(name: str) -> Published | None:
    """Return the first weights of a network that timm calls so; their preprocessing is that of these weights alone."""
    return next((row for row in _table().values() if row.weights.partition(".")[0] == name), None)


def names() -> tuple[str, ...]:
    """Return the publishers' names of all weights in the table."""
    return tuple(_table())


@functools.cache
def _table() -> dict[str, Published]:
    with STORED.open(newline="", encoding="utf-8") as file:
        return {row["weights"]: _published(row) for row in csv.DictReader(file)}


def _published(row: Mapping[str, str]) -> Published:
    mean, std = (tuple(map(float, row[key].split())) for key in ("mean", "std"))
    is_squash = row["crop"] == "squash"
    known = models.spec(row["network"]).preprocessing
    preprocessing = Preprocessing(
        image_size=int(row["size"]),
        crop_ratio=1.0 if is_squash else float(row["crop"]),
        kernel=row["kernel"],  # pyright: ignore[reportArgumentType]
        mean=mean,  # pyright: ignore[reportArgumentType]
        std=std,  # pyright: ignore[reportArgumentType]
        antialias=known.antialias,
        crop="squash" if is_squash else "center",
    )
    options = json.loads(row["options"] or "{}")
    return Published(row["weights"], row["network"], options, preprocessing, row["file"], row["source"])

"""The images that a run reads, and the crops of them."""

import dataclasses
from typing import Literal

from imagenet_repro.config.fields import bounded, label

Kernel = Literal["nearest", "bilinear", "bicubic", "area"]


@dataclasses.dataclass(frozen=True)
class InceptionCrop:
    """Random-resized crop: a random share of the area at a random aspect, resized (Szegedy et al. 2014, sec. 6)."""

    name: str = "inception"
    area: tuple[float, float] = bounded((0.08, 1.0), 1e-6, 1.0, increasing=True)  # share of the image, drawn uniformly
    aspect: tuple[float, float] = bounded((3 / 4, 4 / 3), 0.05, 20.0, increasing=True)  # width / height, log-uniform
    kernel: Literal[Kernel, "random"] = "bilinear"  # random: each of the others equally often (GoogLeNet)
    antialias: bool = False  # widen the kernel when shrinking, as Pillow does


@dataclasses.dataclass(frozen=True)
class ShorterSideCrop:
    """AlexNet's crop: shorter side to `resize`, centre square of it, random crop (Krizhevsky et al. 2012, sec. 2)."""

    name: str = "shorter_side"
    resize: int = bounded(256, 1, 65_536)  # pixels; at least the crop's size
    kernel: Kernel = "bilinear"  # of the resizing
    antialias: bool = False


@dataclasses.dataclass(frozen=True)
class ScaleJitterCrop:
    """VGG's scale jitter: shorter side drawn uniformly, then a random crop (Simonyan & Zisserman 2014, sec. 3.1)."""

    name: str = "scale_jitter"
    resize: tuple[int, int] = bounded((256, 512), 1, 65_536, increasing=True)  # pixels, both ends included
    kernel: Kernel = "bilinear"
    antialias: bool = False


@dataclasses.dataclass(frozen=True)
class CenterCrop:
    """The central square; `ratio` is crop size / resized shorter side (0.875 is 224 of 256)."""

    name: str = "center"
    ratio: float = bounded(0.875, 0.01, 1.0)  # crop size / resized shorter side
    kernel: Kernel = "bilinear"
    antialias: bool = False


@dataclasses.dataclass(frozen=True)
class PadCrop:
    """Zero padding by `padding` on each side, then a random crop (He et al. 2015, sec. 4.2, CIFAR)."""

    name: str = "pad"
    padding: int = bounded(4, 0, 65_536)  # pixels; an image of another size is first resized to the crop's size
    kernel: Kernel = "bilinear"
    antialias: bool = False


@dataclasses.dataclass(frozen=True)
class SquashCrop:
    """The complete image resized to a square, not in proportion (EfficientNetV2 from 320 px, ConvNeXt from 384)."""

    name: str = "squash"
    kernel: Kernel = "bilinear"
    antialias: bool = False


Crop = InceptionCrop | ShorterSideCrop | ScaleJitterCrop | CenterCrop | PadCrop | SquashCrop


@dataclasses.dataclass(frozen=True)
class Data:
    """The data set, its splits, and how images are read."""

    name: str = label("silhouettes")  # a prepared tfds data set, also with /config and :version
    data_dir: str = ""  # the directory of tfds' data sets; empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets
    train_split: str = "train"  # any split in tfds' syntax, such as train[:99%]
    eval_split: str = "validation"  # evaluated during training, and for the result where there is no test_split
    test_split: str = ""  # scored once, at the end of the run, for its result; empty: eval_split
    image_size: int = bounded(224, 1, 65_536)  # pixels, training
    eval_image_size: int = bounded(0, 0, 65_536)  # pixels; 0: image_size
    eval_batch_size: int = bounded(0, 0, 2**24)  # over all devices; 0: batch_size, or less for protocols of many views
    repeats: int = bounded(
        1, 1, 1000
    )  # uses of an image in an epoch, each augmented anew, never in a row (data/order.py)
    threads: int = bounded(0, 0, 4096)  # reading and decoding threads per process; 0: from the host's cores
    workers: int = bounded(-1, -1, 4096)  # reading processes; 0: none, threads alone; -1: from the host's cores
    max_bad_share: float = bounded(0.001, 0.0, 1.0)  # share of undecodable records above which a run stops

    @property
    def size_evaluated(self) -> int:
        """The side in pixels of the squares on which a system is evaluated."""
        return self.eval_image_size or self.image_size

    @property
    def scored_split(self) -> str:
        """The split that the result is measured on."""
        return self.test_split or self.eval_split

"""The configuration of a run that fits a classifier to frozen features, so that it can stand beside trainings."""

import dataclasses
from typing import Literal

from imagenet_repro.config.augment import Augment
from imagenet_repro.config.data import CenterCrop, Data, SquashCrop
from imagenet_repro.config.fields import amount, bounded, label
from imagenet_repro.config.model import Model
from imagenet_repro.config.probe import Probe


@dataclasses.dataclass(frozen=True)
class FrozenConfig:
    """One run of a classifier on frozen features; keys that both have, such as `data`, mean the same as in `Config`.

    A budget pays for training images that pass through the network, each once and without augmentation: a random part
    of the training split where it is larger. More than the split is not spent. Fitting the classifier counts in
    seconds alone; its operations are few beside the network's.
    """

    classifier: Literal["linear", "knn", "logistic"] = "linear"  # of the methods of `main.py probe`
    name: str = label("")  # of the system in tables and figures; empty: what tells it apart from the others
    seed: int = bounded(0, 0, 2**31 - 1)  # of the part of the training split, and of the heads
    budget: str = amount("1ep")
    batch_size: int = bounded(256, 1, 2**24)  # images of one pass through the network
    precision: Literal["float32", "bfloat16", "float64"] = "float32"
    cache_dir: str = ""  # directory of the scored images' features, shared by runs; empty: the workdir
    model: Model = Model()  # with its `weights`
    data: Data = Data()
    eval_crop: CenterCrop | SquashCrop = CenterCrop()  # also of the images for training
    mean: tuple[float, float, float] = bounded(Augment().mean, 0.0, 1.0)  # of RGB in [0, 1]
    std: tuple[float, float, float] = bounded(Augment().std, 1e-6, 1.0)  # of RGB in [0, 1]
    probe: Probe = Probe()

    @property
    def system_name(self) -> str:
        """The name of the system in tables: that of the network."""
        return self.model.name

    @property
    def initial_weights(self) -> str:
        """The file, package or run that the network comes from."""
        return self.model.weights

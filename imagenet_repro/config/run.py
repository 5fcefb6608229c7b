"""The configuration of one run: of a network, or of a system of features."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from imagenet_repro.config.augment import Augment
from imagenet_repro.config.contrastive import Captions, ClassNames, ImageTower, PairsLoss, SoftmaxPairs, ZeroShot
from imagenet_repro.config.data import CenterCrop, Crop, Data, InceptionCrop, SquashCrop
from imagenet_repro.config.features import Channel, Sample, Svm
from imagenet_repro.config.fields import amount, bounded, label
from imagenet_repro.config.finetune import Distill, NoDistillation, Train
from imagenet_repro.config.frozen import FrozenConfig
from imagenet_repro.config.log import Log
from imagenet_repro.config.loss import Loss, SoftmaxLoss
from imagenet_repro.config.model import Model, Progressive
from imagenet_repro.config.optimizer import Optimizer, ScheduleFreeAdamW, Sgd
from imagenet_repro.config.schedule import CosineSchedule, Schedule

Taps = Literal["real", "full"]  # the taps of convolutions that count as operations (zoo/counting.py)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The interval of checkpoints, and how many are kept. The one with the lowest top-1 error is always kept."""

    every: str = amount("1ep")  # an amount in any unit of a budget
    keep: int = bounded(2, 1)  # of the newest checkpoints


@dataclasses.dataclass(frozen=True)
class Config:
    """One run of a network."""

    name: str = label("")  # of the system in tables and figures; empty: what tells it apart from the others
    seed: int = bounded(0, 0, 2**31 - 1)  # of the initial weights, the order of images and their augmentation
    budget: str = amount("90ep")  # such as 90ep (epochs), 1.2e8img, 450000st (steps), 2e18flop or 3600s
    batch_size: int = bounded(256, 1, 2**24)  # over all devices and hosts
    accumulate: int = bounded(1, 1, 2**24)  # parts into which a device divides its share of the batch
    precision: Literal["float32", "bfloat16", "float64"] = "bfloat16"  # of the computation; float64: parameters too
    parallel: Literal["pmap", "shard_map", "fsdp"] = "pmap"  # over devices; fsdp: each keeps a part of the state
    cross_device_norm: bool = False  # batch norm over all devices' shares; otherwise each device's own
    norm_group: int = bounded(0, 0)  # neighbouring devices that share statistics under cross_device_norm; 0: all
    deterministic: bool = True  # choose only kernels that repeat bit for bit (GPU)
    flops: Taps = "real"  # operations of a budget and of the result: real: without taps on padding; full: with them
    clip_norm: float = bounded(0.0, 0.0)  # global norm of the gradient; 0: no clipping
    ema_decay: float = bounded(0.0, 0.0, 1.0)  # of the average of weights that is evaluated; 0: none
    ema_warmup: bool = False  # at update t the decay is no more than (1 + t) / (10 + t), TensorFlow's `num_updates`
    max_filter_rms: float = bounded(0.0, 0.0)  # largest RMS of a convolution filter (ZFNet); 0: no limit
    evaluate_every: str = amount("1ep")  # an amount in any unit of a budget
    log_every: int = bounded(20, 1)  # steps
    log: Log = Log()
    model: Model = Model()
    data: Data = Data()
    train_crop: Crop = InceptionCrop()
    eval_crop: Crop = CenterCrop()
    augment: Augment = Augment()
    optimizer: Optimizer = Sgd()
    schedule: Schedule = CosineSchedule()
    loss: Loss = SoftmaxLoss()
    train: Train = Train()
    distill: Distill = NoDistillation()
    progressive: Progressive = Progressive()
    checkpoint: Checkpoint = Checkpoint()

    @property
    def system_name(self) -> str:
        """The name of the system in tables: that of the network."""
        return self.model.name

    @property
    def keeps_average(self) -> bool:
        """Whether an average of the weights is kept and evaluated."""
        return self.ema_decay > 0 or isinstance(self.optimizer, ScheduleFreeAdamW)

    @property
    def initial_weights(self) -> str:
        """The file that the run starts from; empty where it starts from random values."""
        return self.model.weights


@dataclasses.dataclass(frozen=True)
class ContrastiveConfig(Config):
    """One run of an image tower and a text tower that train on pairs; `data` is what it is evaluated on, zero-shot.

    Keys of a network's run that pairs cannot have are refused (training/systems/contrastive.py).
    """

    model: Model = Model(name="ours_tiny_clip")  # of the networks with two towers
    loss: PairsLoss = SoftmaxPairs()  # pyright: ignore[reportIncompatibleVariableOverride]
    captions: Captions = ClassNames()
    tokenizer: str = ""  # "bytes", or the vocabulary of the network's tokenizer; empty: a network of bytes needs none
    image: ImageTower = ImageTower()
    zeroshot: ZeroShot = ZeroShot()

    @property
    def initial_weights(self) -> str:
        """The file or run that both towers, or the image tower, start from; empty where it is random values."""
        return self.model.weights or self.image.weights


@dataclasses.dataclass(frozen=True)
class FeatureConfig:
    """One run of a system of hand-made features; keys that both have, such as `data`, mean the same as in `Config`.

    Every channel codes all images once and keeps the codes; then the SVMs of all channels train together, on the same
    images at the same time, and the system's scores are the means of theirs. A budget's images and epochs are those
    that the SVMs see; its operations and seconds are the whole pipeline's.
    """

    system: str = "features"  # the kind of system, such as xrce_2011
    name: str = label("")  # of the system in tables and figures; empty: what tells it apart from the others
    seed: int = bounded(0, 0, 2**31 - 1)  # of the samples, the vocabularies and the order of images
    budget: str = amount("10ep")
    batch_size: int = bounded(256, 1, 2**24)
    parallel: Literal["pmap", "shard_map", "fsdp"] = "pmap"  # how the SVMs' steps spread over devices
    deterministic: bool = True
    flops: Taps = "real"
    evaluate_every: str = amount("5ep")
    log_every: int = bounded(20, 1)  # steps
    log: Log = Log()
    cache_dir: str = ""  # directory of codes, shared by runs that need the same; empty: the workdir
    data: Data = Data()
    eval_crop: CenterCrop | SquashCrop = SquashCrop()  # also of the images for training
    sample: Sample = Sample()
    channels: dict[str, Channel] = dataclasses.field(default_factory=dict)
    svm: Svm = Svm()
    checkpoint: Checkpoint = Checkpoint(every="5ep")

    @property
    def system_name(self) -> str:
        """The name of the system in tables."""
        return self.system

    @property
    def initial_weights(self) -> str:
        """Empty: such a system starts from no file."""
        return ""


TrainedConfig = Config | FeatureConfig  # trained in steps, with checkpoints
AnyConfig = TrainedConfig | FrozenConfig
TrainedT = TypeVar("TrainedT", bound=Config | FeatureConfig)
ConfigT = TypeVar("ConfigT", bound=Config | FeatureConfig | FrozenConfig)


def choose_schema(settings: Mapping[str, Any]) -> type[AnyConfig]:
    """Return the dataclass for a run's nested settings.

    It is `FeatureConfig` if they have `channels`, `FrozenConfig` if they have `classifier`, `ContrastiveConfig` if
    they have `captions`, and else `Config`.
    """
    if "captions" in settings:
        return ContrastiveConfig
    if "classifier" in settings:
        return FrozenConfig
    return FeatureConfig if "channels" in settings else Config

"""Every key of a configuration, with its meaning, its default and its range; read strictly.

A configuration file defines `get_config(argument=None)` and returns an `ml_collections.ConfigDict` with the keys
it wants to set. `resolve` turns that into the frozen dataclasses below. An unknown key, a key that the chosen
variant of a section does not read, a value of another type or out of range raises `UserError` with the nearest
valid name, before anything is compiled. A section with variants (a crop, an optimizer, a schedule) has a key
`name` that chooses the dataclass, and only that dataclass's fields are valid beside it.
"""

import ast
import dataclasses
import importlib.util
import json
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from imagenet_repro.errors import UserError, nearest

Kernel = Literal["nearest", "bilinear", "bicubic", "area"]


def key(default: Any, low: float | None = None, high: float | None = None) -> Any:
    """A dataclass field whose number must lie in [low, high]; tuples are checked element by element."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high})


# --- crops (data/crops.py) -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class InceptionCrop:
    """Random-resized crop: a random share of the area at a random aspect, resized (Szegedy et al. 2014, sec. 6)."""

    name: str = "inception"
    area: tuple[float, float] = key((0.08, 1.0), 1e-6, 1.0)  # share of the image's area, drawn uniformly
    aspect: tuple[float, float] = key((3 / 4, 4 / 3), 0.05, 20.0)  # width / height, drawn log-uniformly
    kernel: Literal[Kernel, "random"] = "bilinear"  # random: each of the others equally often (GoogLeNet)
    antialias: bool = False  # widen the kernel when shrinking, as Pillow does


@dataclasses.dataclass(frozen=True)
class ShorterSideCrop:
    """The 2012 way: shorter side to `resize`, centre square of it, random crop (Krizhevsky et al. 2012, sec. 2)."""

    name: str = "shorter_side"
    resize: int = key(256, 1)  # pixels; at least the crop's size
    kernel: Kernel = "bilinear"
    antialias: bool = False


@dataclasses.dataclass(frozen=True)
class ScaleJitterCrop:
    """VGG's scale jitter: shorter side drawn uniformly, then a random crop (Simonyan & Zisserman 2014, sec. 3.1)."""

    name: str = "scale_jitter"
    resize: tuple[int, int] = key((256, 512), 1)  # pixels, both ends included
    kernel: Kernel = "bilinear"
    antialias: bool = False


@dataclasses.dataclass(frozen=True)
class CenterCrop:
    """The central square; `ratio` is crop size / resized shorter side (0.875 is 224 of 256)."""

    name: str = "center"
    ratio: float = key(0.875, 0.01, 1.0)
    kernel: Kernel = "bilinear"
    antialias: bool = False


@dataclasses.dataclass(frozen=True)
class PadCrop:
    """Zero padding by `padding` on each side, then a random crop (He et al. 2015, sec. 4.2, CIFAR)."""

    name: str = "pad"
    padding: int = key(4, 0)  # pixels, of the image resized to the crop's size where it differs
    kernel: Kernel = "bilinear"
    antialias: bool = False


@dataclasses.dataclass(frozen=True)
class SquashCrop:
    """The whole image resized to the square, whatever its aspect (EfficientNetV2 from 320 px, ConvNeXt from 384)."""

    name: str = "squash"
    kernel: Kernel = "bilinear"
    antialias: bool = False


Crop = InceptionCrop | ShorterSideCrop | ScaleJitterCrop | CenterCrop | PadCrop | SquashCrop


# --- data (data/) ----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Data:
    """Which images, from where, read how."""

    name: str = "fractal"  # any prepared tfds image-classification data set, optionally with /config and :version
    data_dir: str = ""  # where tfds keeps its data sets; empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets
    train_split: str = "train"  # any split in tfds' syntax, such as train[:99%]
    eval_split: str = "validation"  # evaluated now and then while training, and for the result without a test_split
    test_split: str = ""  # scored once, by the finished run, for its result; empty: eval_split
    image_size: int = key(224, 1)  # pixels, training
    eval_image_size: int = key(0, 0)  # pixels; 0: image_size
    eval_batch_size: int = key(0, 0)  # over all devices; 0: batch_size, by protocols of many or large views fewer
    repeats: int = key(1, 1)  # times that an image is used, each augmented anew, never in a row (data/loader.py)
    threads: int = key(0, 0)  # reading and decoding threads per process; 0: from the host's cores
    workers: int = key(-1, -1)  # reading processes; 0: none, threads alone; -1: from the host's cores
    max_bad_share: float = key(0.001, 0.0, 1.0)  # of undecodable records, above which a run stops

    @property
    def size_evaluated(self) -> int:
        """Pixels of the squares that a system is evaluated on."""
        return self.eval_image_size or self.image_size

    @property
    def scored_split(self) -> str:
        """The split that a result is of."""
        return self.test_split or self.eval_split


# --- augmentation on the device (data/augment.py, data/policy.py) ----------------------------------------------


@dataclasses.dataclass(frozen=True)
class NoPolicy:
    """No operations drawn from a list."""

    name: str = "none"


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """RandAugment as in EfficientNet's and big_vision's code (Cubuk et al. 2019): each layer draws one of 16."""

    name: str = "randaugment"
    layers: int = key(2, 1)
    magnitude: float = key(10.0, 0.0, 30.0)  # level of every operation


@dataclasses.dataclass(frozen=True)
class TimmRandAugment:
    """RandAugment as in timm; the defaults are its rand-m9-mstd0.5-inc1 (DeiT, ConvNeXt, ResNet strikes back)."""

    name: str = "randaugment_timm"
    layers: int = key(2, 1)
    magnitude: float = key(9.0, 0.0, 10.0)
    magnitude_std: float = key(0.5, 0.0)  # of normal noise, for each application
    increasing: bool = True  # a higher level changes more, also of posterize, solarize and the enhancers
    probability: float = key(0.5, 0.0, 1.0)  # of each layer
    fill: Literal["mean", "grey"] = "mean"  # what comes from outside of the image: augment.mean, or 128
    interpolation: Literal["nearest", "bilinear", "bicubic", "random"] = "bicubic"  # random: one of the smooth two


@dataclasses.dataclass(frozen=True)
class AutoAugment:
    """One of 25 learned pairs of operations (Cubuk et al. 2018)."""

    name: str = "autoaugment"
    table: Literal["v0", "paper"] = "v0"  # the ImageNet policy of EfficientNet's code, or of the paper's appendix


Policy = NoPolicy | RandAugment | TimmRandAugment | AutoAugment


@dataclasses.dataclass(frozen=True)
class Augment:
    """What happens to a uint8 crop inside the compiled step; strengths of zero cost nothing."""

    flip: bool = True  # mirror with probability one half
    policy: Policy = NoPolicy()
    pca: Literal["none", "paper", "cuda_convnet2"] = "none"  # which reading of AlexNet's PCA colour (data/augment.py)
    pca_std: float = key(0.1, 0.0)  # of the normal variable for each component
    brightness: float = key(0.0, 0.0, 1.0)  # factor drawn from [1 - x, 1 + x]
    contrast: float = key(0.0, 0.0, 1.0)
    saturation: float = key(0.0, 0.0, 1.0)
    mean: tuple[float, float, float] = key((0.485, 0.456, 0.406))  # of RGB in [0, 1]
    std: tuple[float, float, float] = key((0.229, 0.224, 0.225), 1e-6)
    mixup: float = key(0.0, 0.0)  # alpha of Beta(alpha, alpha) (Zhang et al. 2017); 0: off
    cutmix: float = key(0.0, 0.0)  # alpha (Yun et al. 2019); with both, each pair of images draws one of the two
    erasing: float = key(0.0, 0.0, 1.0)  # probability of a random rectangle of noise (Zhong et al. 2017)
    erasing_fill: Literal["uniform", "normal"] = "uniform"  # noise in [0, 1], or, as in timm, normal once normalised
    label_smoothing: float = key(0.0, 0.0, 1.0)  # share of the target spread over all classes


# --- optimizer and schedule (training/optimizer.py) ------------------------------------------------------------

DecayMask = Literal["all", "no_norm_bias", "kernels"]


@dataclasses.dataclass(frozen=True)
class Sgd:
    """SGD with momentum; the decay joins the gradient (L2), as in every paper up to 2017."""

    name: str = "sgd"
    learning_rate: float = key(0.1, 0.0)
    momentum: float = key(0.9, 0.0, 1.0)
    nesterov: bool = False
    weight_decay: float = key(1e-4, 0.0)
    decay_mask: DecayMask = "all"  # all | no_norm_bias (no tensors of one axis) | kernels (`weight` of two axes up)
    layer_decay: float = key(1.0, 0.0, 1.0)  # of the rate for each layer down from the head; 1: off


@dataclasses.dataclass(frozen=True)
class AdamW:
    """Adam with decoupled decay (Loshchilov & Hutter 2019), multiplied by the learning rate."""

    name: str = "adamw"
    learning_rate: float = key(1e-3, 0.0)
    b1: float = key(0.9, 0.0, 1.0)
    b2: float = key(0.999, 0.0, 1.0)
    eps: float = key(1e-8, 0.0)
    weight_decay: float = key(0.05, 0.0)
    decay_mask: DecayMask = "no_norm_bias"
    layer_decay: float = key(1.0, 0.0, 1.0)  # of the rate for each layer down from the head; 1: off


@dataclasses.dataclass(frozen=True)
class Lamb:
    """LAMB (You et al. 2020). What apex and timm call by this name also clips the gradient: `clip_norm` of 1."""

    name: str = "lamb"
    learning_rate: float = key(5e-3, 0.0)
    b1: float = key(0.9, 0.0, 1.0)
    b2: float = key(0.999, 0.0, 1.0)
    eps: float = key(1e-6, 0.0)
    weight_decay: float = key(0.02, 0.0)
    decay_mask: DecayMask = "no_norm_bias"
    always_adapt: bool = False  # trust ratios as in the paper, for all; else, as apex and timm, for what decays
    layer_decay: float = key(1.0, 0.0, 1.0)  # of the rate for each layer down from the head; 1: off


@dataclasses.dataclass(frozen=True)
class RmsProp:
    """RMSProp as TensorFlow has it: epsilon inside the root, mean square starting at one, momentum after scaling."""

    name: str = "rmsprop"
    learning_rate: float = key(0.016, 0.0)
    decay: float = key(0.9, 0.0, 1.0)
    momentum: float = key(0.9, 0.0, 1.0)
    eps: float = key(1e-3, 0.0)
    weight_decay: float = key(1e-5, 0.0)
    decay_mask: DecayMask = "no_norm_bias"
    layer_decay: float = key(1.0, 0.0, 1.0)  # of the rate for each layer down from the head; 1: off


Optimizer = Sgd | AdamW | Lamb | RmsProp


@dataclasses.dataclass(frozen=True)
class Cosine:
    """Linear warm-up, then half a cosine down to `final`; all as shares of the budget and of the rate."""

    name: str = "cosine"
    warmup: float = key(0.0, 0.0, 1.0)  # share of the budget
    final: float = key(0.0, 0.0, 1.0)  # share of the peak at the end


@dataclasses.dataclass(frozen=True)
class Linear:
    """Linear warm-up, then a straight line down to `final`."""

    name: str = "linear"
    warmup: float = key(0.0, 0.0, 1.0)
    final: float = key(0.0, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Steps:
    """Linear warm-up, then the peak times `factor` for each boundary passed."""

    name: str = "steps"
    warmup: float = key(0.0, 0.0, 1.0)
    boundaries: tuple[float, ...] = key((1 / 3, 2 / 3, 8 / 9), 0.0, 1.0)  # shares of the budget, increasing
    factor: float = key(0.1, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Exponential:
    """Linear warm-up, then the peak times `factor` per `every` of the budget, in stairs (GoogLeNet)."""

    name: str = "exponential"
    warmup: float = key(0.0, 0.0, 1.0)
    every: float = key(0.01, 1e-9, 1.0)
    factor: float = key(0.97, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Plateau:
    """Linear warm-up, then the peak, times `factor` whenever the top-1 error of evaluations has stopped falling.

    What the papers up to 2015 did by hand. The evaluation split steers the training then, so its error is no longer
    that of unseen images: hold out a part of the training split for it, as in `data.eval_split = "train[99%:]"`.
    """

    name: str = "plateau"
    warmup: float = key(0.0, 0.0, 1.0)
    factor: float = key(0.1, 0.0, 1.0)
    patience: int = key(3, 1)  # evaluations in a row without an improvement before a drop
    min_delta: float = key(0.0, 0.0, 1.0)  # share of the images by which the best error must fall to be improved
    drops: int = key(3, 0)  # the most there are


Schedule = Cosine | Linear | Steps | Exponential | Plateau


# --- loss (training/loss.py) -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Softmax:
    """Cross-entropy of the softmax with the targets, which may be mixed or smoothed."""

    name: str = "softmax"


@dataclasses.dataclass(frozen=True)
class Sigmoid:
    """Binary cross-entropy of each class (Beyer et al. 2020; Wightman et al. 2021)."""

    name: str = "sigmoid"
    reduction: Literal["mean", "sum"] = "mean"  # over the classes of an image: timm's, big_vision's
    threshold: float = key(0.0, 0.0, 1.0)  # targets above it become 1, the others 0; 0: targets stay as they are


Loss = Softmax | Sigmoid


# --- the rest --------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Model:
    """Which network; `options` are keyword arguments of that network's constructor."""

    name: str = "resnet50"
    options: dict = dataclasses.field(default_factory=dict)
    weights: str = ""  # a file to start from, such as a .safetensors or .pth; empty: none (pretrained/files.py)


@dataclasses.dataclass(frozen=True)
class Progressive:
    """Sizes and regularisation that grow in stages, each an equal share of the budget (Tan & Le 2021, sec. 4).

    The last stage is as the other sections say. Stage s of S, counted from 1, has the size `image_size_from` +
    (data.image_size - `image_size_from`) s / S, rounded down; all else rises evenly from the first stage to the last.
    """

    stages: int = key(1, 1)  # 1: off
    image_size_from: int = key(128, 1)  # pixels; of a stage before the first
    magnitude_from: float = key(0.0, 0.0, 30.0)  # of augment.policy, where it has a magnitude
    dropout_from: float = key(0.0, 0.0, 1.0)  # of the network's option `dropout`
    mixup_from: float = key(0.0, 0.0)  # of augment.mixup
    cutmix_from: float = key(0.0, 0.0)  # of augment.cutmix


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """When to save, and how much to keep. The best by top-1 error is kept beside the last ones."""

    every: str = "1ep"  # an amount in any unit of a budget
    keep: int = key(2, 1)


@dataclasses.dataclass(frozen=True)
class Config:
    """One run."""

    seed: int = key(0, 0, 2**31 - 1)
    budget: str = "90ep"  # training/budget.py: ep | img | st | flop | s
    batch_size: int = key(256, 1)  # over all devices and hosts
    accumulate: int = key(1, 1)  # parts in which a device takes its share of the batch
    precision: Literal["float32", "bfloat16"] = "bfloat16"  # of the computation; parameters are always float32
    parallel: Literal["pmap", "shard_map", "fsdp"] = "pmap"
    cross_device_norm: bool = False  # batch norm over all devices' shares; otherwise each device's own
    deterministic: bool = True  # choose only kernels that repeat bit for bit (GPU)
    clip_norm: float = key(0.0, 0.0)  # global norm of the gradient; 0: no clipping
    ema_decay: float = key(0.0, 0.0, 1.0)  # of an average of weights, evaluated in place of them; 0: none
    ema_warmup: bool = False  # at update t the decay is no more than (1 + t) / (10 + t), TensorFlow's `num_updates`
    max_filter_rms: float = key(0.0, 0.0)  # of a convolution's filter after an update (ZFNet); 0: any
    evaluate_every: str = "1ep"  # an amount in any unit of a budget
    log_every: int = key(20, 1)  # steps
    model: Model = Model()
    data: Data = Data()
    train_crop: Crop = InceptionCrop()
    eval_crop: Crop = CenterCrop()
    augment: Augment = Augment()
    optimizer: Optimizer = Sgd()
    schedule: Schedule = Cosine()
    loss: Loss = Softmax()
    progressive: Progressive = Progressive()
    checkpoint: Checkpoint = Checkpoint()


# --- systems before 2012: hand-made features and linear SVMs (features/) ---------------------------------------


@dataclasses.dataclass(frozen=True)
class FisherVector:
    """Fisher vectors over a mixture of Gaussians (features/fisher.py); 2 x components x numbers of a descriptor.

    With `weights` as many more as components.
    """

    name: str = "fisher"
    components: int = key(256, 1)  # Gaussians
    iterations: int = key(30, 1)  # of expectation maximisation
    restarts: int = key(1, 1)  # of which the likeliest mixture is kept
    weights: bool = False  # whether the part of the Gaussians' weights, which adds little, is there
    power: float = key(0.5, 0.01, 1.0)  # of every number's absolute value; 1: none


@dataclasses.dataclass(frozen=True)
class Codebook:
    """Words found by k-means (features/kmeans.py)."""

    words: int = key(1000, 1)
    iterations: int = key(25, 1)  # passes over the sample, or steps where `batch` is not 0
    batch: int = key(0, 0)  # descriptors of a step, drawn anew for each; 0: the whole sample


@dataclasses.dataclass(frozen=True)
class SuperVector(Codebook):
    """Super-vector codes over a codebook (features/coding.py); words x (numbers of a descriptor + 1)."""

    name: str = "super_vector"
    words: int = key(512, 1)
    constant: float = key(1.0, 0.0)  # weight of how often a word occurs beside where its descriptors lie
    power: float = key(0.5, 0.01, 1.0)


@dataclasses.dataclass(frozen=True)
class Llc(Codebook):
    """Locality-constrained linear codes, the largest in each cell (features/coding.py); as many as words."""

    name: str = "llc"
    words: int = key(2048, 1)
    neighbours: int = key(5, 1)  # nearest words that a descriptor is made of
    power: float = key(1.0, 0.01, 1.0)


@dataclasses.dataclass(frozen=True)
class BagOfWords(Codebook):
    """How often each word occurs (features/coding.py)."""

    name: str = "bag"
    sigma: float = key(0.0, 0.0)  # width of the Gaussian by which a descriptor is shared among words; 0: nearest alone
    power: float = key(0.5, 0.01, 1.0)


Code = FisherVector | SuperVector | Llc | BagOfWords


@dataclasses.dataclass(frozen=True)
class Channel:
    """One kind of descriptor, coded and classified by itself."""

    descriptor: Literal["sift", "root_sift", "hog", "lbp", "hog_lbp", "colour"] = "sift"
    patch: int = key(24, 2)  # pixels on a side
    step: int = key(4, 1)  # pixels between neighbours
    scales: tuple[float, ...] = key((1.0,), 0.01, 16.0)  # of the image's sides, smallest first
    components: int = key(64, 0)  # principal components of a descriptor; 0: descriptors stay as they are
    whiten: bool = False  # components divided by their standard deviations
    code: Code = FisherVector()
    pyramid: tuple[str, ...] = ("1x1",)  # rows x columns of each division
    quantise: int = key(8, 0)  # numbers of a code that share a byte while the SVM trains; 0: float16


@dataclasses.dataclass(frozen=True)
class Sample:
    """From how much of the training split a channel learns its vocabulary."""

    images: int = key(2000, 2)  # whose descriptors give principal components, Gaussians and words
    descriptors: int = key(200_000, 1)  # of them, for Gaussians and words
    codes: int = key(1024, 256)  # images whose codes give the centres of quantisation


@dataclasses.dataclass(frozen=True)
class Svm:
    """One class against the rest by averaged stochastic descent (features/svm.py)."""

    regularisation: float = key(1e-5, 0.0)  # lambda
    loss: Literal["hinge", "squared_hinge"] = "hinge"
    bias: float = key(1.0, 0.0)  # of a feature that all images have, regularised as the others; 0: none
    negatives: int = key(0, 0)  # classes, drawn anew at each step, for which an image counts beside its own; 0: all
    rate: float = key(0.1, 0.0)  # the first step's length
    power: float = key(0.75, 0.0)  # of its decay, 1 / (1 + lambda rate t)^power; 0: all steps are as long
    average_from: str = "1st"  # an amount in any unit of a budget, from which on weights are averaged
    early_stopping: int = key(0, 0)  # evaluations in a row without a better top-1 error that end a run; 0: none do


@dataclasses.dataclass(frozen=True)
class FeatureConfig:
    """One run of a system of hand-made features: what is not here, such as `data`, is as in `Config`.

    Every channel codes all images once and keeps the codes; then the SVMs of all channels train together, on the same
    images at the same time, and the system's scores are the means of theirs. A budget's images and epochs are those
    that the SVMs see; its operations and seconds are the whole pipeline's.
    """

    system: str = "features"  # what tables call it
    seed: int = key(0, 0, 2**31 - 1)
    budget: str = "10ep"
    batch_size: int = key(256, 1)
    parallel: Literal["pmap", "shard_map", "fsdp"] = "pmap"
    deterministic: bool = True
    evaluate_every: str = "5ep"
    log_every: int = key(20, 1)  # steps
    cache_dir: str = ""  # where codes are kept, for every run that needs the same; empty: in the workdir
    data: Data = Data()
    eval_crop: CenterCrop | SquashCrop = SquashCrop()  # of images for training too
    sample: Sample = Sample()
    channels: dict[str, Channel] = dataclasses.field(default_factory=dict)
    svm: Svm = Svm()
    checkpoint: Checkpoint = Checkpoint(every="5ep")


AnyConfig = Config | FeatureConfig


# --- reading ---------------------------------------------------------------------------------------------------


def load(spec: str, overrides: dict[str, str] | None = None) -> AnyConfig:
    """The configuration of `FILE.py` or `FILE.py:ARGUMENT`, with `overrides` of dotted keys applied.

    Args:
      spec: a Python file with `get_config(argument=None)`, and what to pass to it after a colon.
      overrides: texts by dotted key, such as `{"optimizer.learning_rate": "0.4"}`; read as Python literals where
        they are such, and as plain text otherwise. One that changes a section's `name` drops the file's other
        keys of that section, since they belonged to another variant.

    Raises:
      UserError: the file cannot be read or a key or value is not valid.
    """
    return resolve(read(spec, overrides))


def read(spec: str, overrides: dict[str, str] | None = None) -> dict[str, Any]:
    """The nested settings that `load` resolves."""
    settings = _call_get_config(spec)
    for path, text in sorted((overrides or {}).items(), key=lambda item: not item[0].endswith(".name")):
        put(settings, path, literal(text))
    return settings


def resolve(settings: Mapping[str, Any]) -> AnyConfig:
    """The typed configuration of nested `settings`; every key checked, every default filled in.

    A configuration with `channels` is a `FeatureConfig`, any other a `Config`.

    Raises:
      UserError: an unknown key, a wrong type or a value out of range; the message names the dotted key.
    """
    return build(FeatureConfig if "channels" in settings else Config, settings)


def build(kind: type, settings: Mapping[str, Any], name: str = "config") -> Any:
    """A frozen dataclass of settings, as strictly as `resolve` does it; raises UserError, with keys below `name`."""
    return _build(kind, settings, name)


def replace(config: AnyConfig, overrides: dict[str, str]) -> AnyConfig:
    """`config` with texts by dotted key put in place, checked as in `load`."""
    settings = to_dict(config)
    for path, text in overrides.items():
        put(settings, path, literal(text))
    return resolve(settings)


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain values of a configuration, which JSON holds and `resolve` reads back into an equal one."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key."""
    flat = {}
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def _call_get_config(spec: str) -> dict[str, Any]:
    path, _, argument = spec.partition(":")
    file = Path(path)
    if not file.is_file():
        here = [str(p) for p in file.parent.glob("*.py")] if file.parent.is_dir() else []
        raise UserError(f"--config={spec}: there is no file '{path}'; {nearest(path, here)}")
    module_spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UserError(f"--config={spec}: line {error.lineno} is not Python: {error.msg}") from error
    if not hasattr(module, "get_config"):
        raise UserError(f"--config={spec}: '{path}' defines no get_config(argument=None)")
    try:
        settings = module.get_config(argument) if argument else module.get_config()
    except (KeyError, ValueError, TypeError) as error:
        what = f"the argument '{argument}'" if argument else "no argument"
        raise UserError(
            f"--config={spec}: '{path}' cannot do with {what} ({type(error).__name__}: {error});"
            " its docstring says what it takes"
        ) from error
    return settings.to_dict() if hasattr(settings, "to_dict") else dict(settings)


def put(settings: dict[str, Any], path: str, value: Any) -> None:
    """Sets a value by dotted key; one that changes a section's `name` drops the section's other keys."""
    *sections, last = path.split(".")
    place = settings
    for name in sections:
        place = place.setdefault(name, {})
        if not isinstance(place, dict):
            raise UserError(f"--config.{path}: '{name}' is a value, not a section")
    if last == "name" and place.get("name") != value and sections != ["data"]:
        place.clear()
    place[last] = value


def literal(text: str) -> Any:
    """The Python literal that `text` is, `true` and `false` in any case, or the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _build(kind: type, settings: Any, path: str) -> Any:
    if not isinstance(settings, Mapping):
        raise UserError(f"{path}: a section with keys is needed here, not {settings!r}")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    values = {}
    for name, value in settings.items():
        if name not in fields:
            raise UserError(f"{path}.{name}: no such key{_variant(kind, settings)}; {nearest(name, fields)}")
        values[name] = _convert(value, hints[name], fields[name], f"{path}.{name}")
    return kind(**values)


def _variant(kind: type, settings: Mapping[str, Any]) -> str:
    return f" for name='{settings['name']}'" if "name" in settings and kind is not Model and kind is not Data else ""


def _convert(value: Any, hint: Any, field: dataclasses.Field, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, path)
    if typing.get_origin(hint) is types.UnionType:
        return _build(_choose(value, hint, field, path), value, path)
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise UserError(f"{path}: {value!r} is not valid; {nearest(str(value), choices)}")
        return value
    if typing.get_origin(hint) is dict:
        return _convert_sections(value, typing.get_args(hint)[1], path)
    if typing.get_origin(hint) is tuple:
        return _convert_tuple(value, typing.get_args(hint), field, path)
    return _check_range(_convert_scalar(value, hint, path), field, path)


def _convert_sections(value: Any, kind: type, path: str) -> dict[str, Any]:
    """Sections of one kind by names that the user gives them."""
    if not isinstance(value, Mapping) or not value:
        raise UserError(f"{path}: sections by name are needed here, at least one, not {value!r}")
    for name in value:
        if not (isinstance(name, str) and name.isidentifier()):
            raise UserError(f"{path}: {name!r} cannot be a name; letters, digits and underscores can")
    return {name: _build(kind, section, f"{path}.{name}") for name, section in value.items()}


def _choose(value: Any, hint: Any, field: dataclasses.Field, path: str) -> type:
    """The variant that the section's `name` chooses; without a name the default's."""
    if not isinstance(value, Mapping):
        raise UserError(f"{path}: a section with keys is needed here, not {value!r}")
    variants = {variant.name: variant for variant in typing.get_args(hint)}
    name = value.get("name", field.default.name)
    if name not in variants:
        raise UserError(f"{path}.name: {name!r} is not valid; {nearest(str(name), variants)}")
    return variants[name]


def _convert_tuple(value: Any, hints: tuple, field: dataclasses.Field, path: str) -> tuple:
    if not isinstance(value, tuple | list):
        raise UserError(f"{path}: a list of values is needed here, not {value!r}")
    if hints[-1] is Ellipsis:
        hints = (hints[0],) * len(value)
    if hints and dataclasses.is_dataclass(hints[0]):
        return tuple(_build(hints[0], part, f"{path}[{i}]") for i, part in enumerate(value))
    if len(hints) != len(value):
        raise UserError(f"{path}: {len(hints)} values are needed here, not {len(value)}")
    parts = tuple(_convert(v, h, field, path) for v, h in zip(value, hints, strict=True))
    if field.name not in ("mean", "std", "pyramid", "seeds", "positions") and list(parts) != sorted(parts):
        raise UserError(f"{path}: the values must not decrease, got {parts}")
    return parts


def _convert_scalar(value: Any, hint: type, path: str) -> Any:
    if hint is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # a text on the command line that looks like a number
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if hint is tuple and isinstance(value, list):
        return tuple(value)  # JSON knows no tuples
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise UserError(f"{path}: {value!r} is not valid; a value of type {hint.__name__} is needed")
    return value


def _check_range(value: Any, field: dataclasses.Field, path: str) -> Any:
    low, high = field.metadata.get("low"), field.metadata.get("high")
    if (
        (low is not None and value < low)
        or (high is not None and value > high)
        or (isinstance(value, float) and math.isnan(value))
    ):
        bounds = f"at least {low:g}" if high is None else f"in [{low:g}, {high:g}]"
        raise UserError(f"{path}: {value!r} is out of range; it must be {bounds}")
    return value

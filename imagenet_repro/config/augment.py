"""Augmentation on the device (data/augment/)."""

import dataclasses
from typing import Literal

from imagenet_repro.config.fields import bounded


@dataclasses.dataclass(frozen=True)
class NoPolicy:
    """No policy: no operation is drawn."""

    name: str = "none"


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """RandAugment as in EfficientNet's and big_vision's code (Cubuk et al. 2019): a layer draws 1 of 16 operations."""

    name: str = "randaugment"
    layers: int = bounded(2, 1, 100)  # operations applied to an image, one after another
    magnitude: float = bounded(10.0, 0.0, 30.0)  # level of every operation


@dataclasses.dataclass(frozen=True)
class TimmRandAugment:
    """RandAugment as in timm; the defaults are its rand-m9-mstd0.5-inc1 (DeiT, ConvNeXt, ResNet strikes back)."""

    name: str = "randaugment_timm"
    layers: int = bounded(2, 1, 100)  # operations drawn for an image, one after another
    magnitude: float = bounded(9.0, 0.0, 10.0)
    magnitude_std: float = bounded(0.5, 0.0)  # of normal noise, for each application
    increasing: bool = True  # a higher level is a stronger change, for posterize, solarize and enhancers too
    probability: float = bounded(0.5, 0.0, 1.0)  # of each layer
    fill: Literal["mean", "grey"] = "mean"  # colour outside of the image: augment.mean, or 128
    interpolation: Literal["nearest", "bilinear", "bicubic", "random"] = "bicubic"  # random: one of the smooth two


@dataclasses.dataclass(frozen=True)
class AutoAugment:
    """One of 25 learned pairs of operations (Cubuk et al. 2018)."""

    name: str = "autoaugment"
    table: Literal["v0", "paper"] = "v0"  # the ImageNet policy of EfficientNet's code, or of the paper's appendix


Policy = NoPolicy | RandAugment | TimmRandAugment | AutoAugment


@dataclasses.dataclass(frozen=True)
class Augment:
    """Augmentation of a uint8 crop inside the compiled step; a strength of zero costs nothing."""

    flip: bool = True  # mirror with probability one half
    policy: Policy = NoPolicy()
    pca: Literal["none", "paper", "cuda_convnet2"] = "none"  # which reading of AlexNet's PCA colour (data/augment/)
    pca_std: float = bounded(0.1, 0.0)  # of the normal variable for each component
    brightness: float = bounded(0.0, 0.0, 1.0)  # factor drawn from [1 - x, 1 + x]
    contrast: float = bounded(0.0, 0.0, 1.0)  # as brightness
    saturation: float = bounded(0.0, 0.0, 1.0)  # as brightness
    mean: tuple[float, float, float] = bounded((0.485, 0.456, 0.406))  # of RGB in [0, 1]
    std: tuple[float, float, float] = bounded((0.229, 0.224, 0.225), 1e-6)  # of RGB in [0, 1]
    mixup: float = bounded(0.0, 0.0)  # alpha of Beta(alpha, alpha) (Zhang et al. 2017); 0: off
    cutmix: float = bounded(0.0, 0.0)  # alpha (Yun et al. 2019); with both, each pair of images draws one of the two
    erasing: float = bounded(0.0, 0.0, 1.0)  # probability of a random rectangle of noise (Zhong et al. 2017)
    erasing_fill: Literal["uniform", "normal"] = "uniform"  # noise in [0, 1], or, as in timm, normal once normalised
    label_smoothing: float = bounded(0.0, 0.0, 1.0)  # share of the target spread over all classes

"""Optimizers (training/optimizer.py)."""

import dataclasses
from typing import Literal

from imagenet_repro.config.fields import bounded

DecayMask = Literal["all", "no_norm_bias", "kernels"]


@dataclasses.dataclass(frozen=True)
class Sgd:
    """SGD with momentum; the decay joins the gradient (L2), as in every paper up to 2017."""

    name: str = "sgd"
    learning_rate: float = bounded(0.1, 0.0)  # the peak, which the schedule scales
    momentum: float = bounded(0.9, 0.0, 1.0)  # share of the last update that is kept
    nesterov: bool = False  # look ahead along the momentum
    weight_decay: float = bounded(1e-4, 0.0)  # times the parameter, added to the gradient
    decay_mask: DecayMask = "all"  # all | no_norm_bias (no tensors of one axis) | kernels (`weight` of two axes up)
    layer_decay: float = bounded(1.0, 0.0, 1.0)  # of the rate for each layer down from the head; 1: off


@dataclasses.dataclass(frozen=True)
class AdamW:
    """Adam with decoupled decay (Loshchilov & Hutter 2019), multiplied by the learning rate."""

    name: str = "adamw"
    learning_rate: float = bounded(1e-3, 0.0)  # the peak, which the schedule scales
    b1: float = bounded(0.9, 0.0, 1.0)  # decay of the mean gradient
    b2: float = bounded(0.999, 0.0, 1.0)  # decay of the mean squared gradient
    eps: float = bounded(1e-8, 0.0)  # added to the root of the mean square
    weight_decay: float = bounded(0.05, 0.0)  # times the parameter and the learning rate
    decay_mask: DecayMask = "no_norm_bias"
    layer_decay: float = bounded(1.0, 0.0, 1.0)  # of the rate for each layer down from the head; 1: off


@dataclasses.dataclass(frozen=True)
class Lamb:
    """LAMB (You et al. 2020). The LAMB of apex and timm also clips the gradient (`clip_norm` of 1)."""

    name: str = "lamb"
    learning_rate: float = bounded(5e-3, 0.0)  # the peak, which the schedule scales
    b1: float = bounded(0.9, 0.0, 1.0)  # decay of the mean gradient
    b2: float = bounded(0.999, 0.0, 1.0)  # decay of the mean squared gradient
    eps: float = bounded(1e-6, 0.0)  # added to the root of the mean square
    weight_decay: float = bounded(0.02, 0.0)  # times the parameter, added to the update before the trust ratio
    decay_mask: DecayMask = "no_norm_bias"
    always_adapt: bool = False  # trust ratios for all parameters (paper), or only for those that decay (apex, timm)
    layer_decay: float = bounded(1.0, 0.0, 1.0)  # of the rate for each layer down from the head; 1: off


@dataclasses.dataclass(frozen=True)
class RmsProp:
    """RMSProp in TensorFlow's form: epsilon inside the root, mean square starting at one, momentum after scaling."""

    name: str = "rmsprop"
    learning_rate: float = bounded(0.016, 0.0)  # the peak, which the schedule scales
    decay: float = bounded(0.9, 0.0, 1.0)  # of the mean squared gradient
    momentum: float = bounded(0.9, 0.0, 1.0)  # share of the last update that is kept
    eps: float = bounded(1e-3, 0.0)  # added to the mean square inside the root
    weight_decay: float = bounded(1e-5, 0.0)  # times the parameter, added to the gradient
    decay_mask: DecayMask = "no_norm_bias"
    layer_decay: float = bounded(1.0, 0.0, 1.0)  # of the rate for each layer down from the head; 1: off


Optimizer = Sgd | AdamW | Lamb | RmsProp

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


@dataclasses.dataclass(frozen=True)
class Lion:
    """Lion: the sign of an interpolated momentum (Chen et al. 2023, algorithm 2), with decoupled decay.

    Section 5 of the paper: a rate 3 to 10 times lower than AdamW's, and a decay as many times higher. The defaults
    here are AdamW's with a factor of ten.
    """

    name: str = "lion"
    learning_rate: float = bounded(1e-4, 0.0)  # the peak, which the schedule scales
    b1: float = bounded(0.9, 0.0, 1.0)  # share of the momentum in the update
    b2: float = bounded(0.99, 0.0, 1.0)  # decay of the mean gradient
    weight_decay: float = bounded(0.5, 0.0)  # times the parameter and the learning rate
    decay_mask: DecayMask = "no_norm_bias"
    layer_decay: float = bounded(1.0, 0.0, 1.0)  # of the rate for each layer down from the head; 1: off


@dataclasses.dataclass(frozen=True)
class Muon:
    """Muon (Jordan et al. 2024) for the matrices of hidden layers, AdamW for everything else.

    A kernel of a convolution is a matrix of all its inputs times its outputs. The first layer, the head, and what is
    no matrix get AdamW. The defaults are those of the authors' repository, KellerJordan/Muon.
    """

    name: str = "muon"
    learning_rate: float = bounded(0.02, 1e-9)  # the peak of Muon's rate, which the schedule scales
    momentum: float = bounded(0.95, 0.0, 1.0)  # decay of the mean gradient
    nesterov: bool = True  # look ahead along the momentum
    steps: int = bounded(5, 1, 100)  # iterations of Newton and Schulz
    weight_decay: float = bounded(0.01, 0.0)  # times the parameter and its learning rate, in both parts
    decay_mask: DecayMask = "no_norm_bias"
    adam_learning_rate: float = bounded(3e-4, 0.0)  # the peak of AdamW's rate, which the schedule scales alike
    adam_b1: float = bounded(0.9, 0.0, 1.0)  # decay of the mean gradient
    adam_b2: float = bounded(0.95, 0.0, 1.0)  # decay of the mean squared gradient
    adam_eps: float = bounded(1e-10, 0.0)  # added to the root of the mean square
    layer_decay: float = bounded(1.0, 0.0, 1.0)  # of the rate for each layer down from the head; 1: off


@dataclasses.dataclass(frozen=True)
class ScheduleFreeAdamW:
    """Schedule-free AdamW (Defazio et al. 2024, algorithm 1): an average of the iterates in place of a falling rate.

    Gradients are those at y, between the iterate z and the average x, which is evaluated. Needs a schedule that is
    flat after its warm-up, such as `linear` with `final` of 1, and keeps no other average (`ema_decay` of 0). The
    statistics of batch norm are those that training gathers at y; the authors' advice to gather them anew at x is not
    followed. The defaults are those of the authors' `AdamWScheduleFree`.
    """

    name: str = "schedule_free_adamw"
    learning_rate: float = bounded(2.5e-3, 0.0)  # the peak, which the schedule scales
    b1: float = bounded(0.9, 1e-3, 1.0)  # share of the average x in y
    b2: float = bounded(0.999, 0.0, 1.0)  # decay of the mean squared gradient
    eps: float = bounded(1e-8, 0.0)  # added to the root of the mean square
    weight_power: float = bounded(2.0, 0.0)  # of the highest rate so far: the weight of an iterate in the average
    weight_decay: float = bounded(0.0, 0.0)  # times the parameter at y and the learning rate
    decay_mask: DecayMask = "no_norm_bias"
    layer_decay: float = bounded(1.0, 0.0, 1.0)  # of the rate for each layer down from the head; 1: off


Optimizer = Sgd | AdamW | Lamb | RmsProp | Lion | Muon | ScheduleFreeAdamW

"""Loss functions (training/loss.py)."""

import dataclasses
from typing import Literal

from imagenet_repro.config.fields import bounded


@dataclasses.dataclass(frozen=True)
class SoftmaxLoss:
    """Cross-entropy of the softmax with the targets, which may be mixed or smoothed."""

    name: str = "softmax"


@dataclasses.dataclass(frozen=True)
class SigmoidLoss:
    """Binary cross-entropy of each class (Beyer et al. 2020; Wightman et al. 2021)."""

    name: str = "sigmoid"
    reduction: Literal["mean", "sum"] = "mean"  # over the classes of an image: timm's, big_vision's
    threshold: float = bounded(0.0, 0.0, 1.0)  # targets above it become 1, the others 0; 0: targets stay as they are


Loss = SoftmaxLoss | SigmoidLoss

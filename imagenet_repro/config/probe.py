"""The classifiers of `main.py probe`, which judge frozen features; the defaults are the published protocols."""

import dataclasses
from typing import Literal

from imagenet_repro.config.fields import bounded

# Of facebookresearch/dinov2, eval/linear.py, for a batch of 256 images.
RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)


@dataclasses.dataclass(frozen=True)
class LinearProbe:
    """Linear heads trained by SGD on a grid of rates and layers (Oquab et al. 2023, appendix B.3)."""

    steps: int = bounded(12_500, 1)  # 10 epochs of 1,250 steps in DINOv2's evaluation
    batch_size: int = bounded(1024, 1, 2**24)  # images of a step
    learning_rates: tuple[float, ...] = bounded(RATES, 0.0)  # each is multiplied by batch_size / 256
    momentum: float = bounded(0.9, 0.0, 1.0)  # share of the last update that is kept
    head: str = ""  # a file of a head, linear_head.npz of another probe, which is scored; empty: heads are trained
    crops: Literal["center", "random"] = "center"  # random: random-resized and mirrored, features computed per step


@dataclasses.dataclass(frozen=True)
class KnnProbe:
    """The weighted vote of the nearest training images (Wu et al. 2018; Caron et al. 2021, sec. 4.1)."""

    k: tuple[int, ...] = bounded((10, 20, 100, 200), 1, increasing=True)  # neighbours that vote
    temperature: float = bounded(0.07, 1e-3)  # a vote weighs exp(cosine similarity / temperature)


@dataclasses.dataclass(frozen=True)
class LogisticProbe:
    """Multinomial logistic regression by L-BFGS (Radford et al. 2021, appendix A.3)."""

    max_iterations: int = bounded(1000, 1)  # of L-BFGS
    tolerance: float = bounded(1e-4, 0.0)  # largest entry of the mean loss's gradient at which L-BFGS ends
    weakest: float = bounded(1e-6, 1e-12)  # smallest strength of regularisation that the search begins with
    strongest: float = bounded(1e6, 1e-12)  # largest
    per_decade: int = bounded(8, 1, 64)  # strengths in a factor of ten at which the search ends


@dataclasses.dataclass(frozen=True)
class FewshotProbe:
    """Ridge regression on a few images of each class, as google-research/big_vision evaluates (fewshot_lsr.py)."""

    shots: tuple[int, ...] = bounded((1, 5, 10, 25), 1, increasing=True)  # images of each class
    draws: int = bounded(3, 1, 100)  # random choices of these images
    l2: float = bounded(2.0**10, 1e-12)  # regularisation


@dataclasses.dataclass(frozen=True)
class Probe:
    """The features that are judged, and how."""

    layer: str = ""  # a layer of features for knn, logistic and fewshot; empty: pooled
    held_out: float = bounded(0.1, 1e-6, 0.9)  # share of the training images on which settings are selected
    seed: int = bounded(0, 0, 2**31 - 1)  # of the heads' initial values and the order of their batches
    linear: LinearProbe = LinearProbe()
    knn: KnnProbe = KnnProbe()
    logistic: LogisticProbe = LogisticProbe()
    fewshot: FewshotProbe = FewshotProbe()

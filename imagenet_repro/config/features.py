"""Systems before 2012: hand-made features and linear SVMs (features/)."""

import dataclasses
from typing import Literal

from imagenet_repro.config.fields import amount, bounded


@dataclasses.dataclass(frozen=True)
class FisherVector:
    """Fisher vectors over a mixture of Gaussians (features/encoding/fisher.py).

    A code has 2 x components x (numbers of a descriptor) numbers; `weights` adds one number for each component.
    """

    name: str = "fisher"
    components: int = bounded(256, 1)  # Gaussians
    iterations: int = bounded(30, 1)  # of expectation maximisation
    restarts: int = bounded(1, 1)  # number of fits; the most likely mixture is used
    weights: bool = False  # include the part of the Gaussians' weights, which adds little
    power: float = bounded(0.5, 0.01, 1.0)  # of every number's absolute value; 1: none


@dataclasses.dataclass(frozen=True)
class Codebook:
    """Words found by k-means (features/encoding/kmeans.py)."""

    words: int = bounded(1000, 1)  # clusters of k-means
    iterations: int = bounded(25, 1)  # passes over the sample, or steps where `batch` is not 0
    batch: int = bounded(0, 0)  # descriptors of a step, drawn anew for each; 0: the whole sample


@dataclasses.dataclass(frozen=True)
class SuperVector(Codebook):
    """Super-vector codes over a codebook (features/encoding/), of words x (numbers of a descriptor + 1) numbers."""

    name: str = "super_vector"
    words: int = bounded(512, 1)  # clusters of k-means
    constant: float = bounded(1.0, 0.0)  # weight of a word's frequency relative to its descriptors' offsets
    power: float = bounded(0.5, 0.01, 1.0)


@dataclasses.dataclass(frozen=True)
class Llc(Codebook):
    """Locality-constrained linear codes, max-pooled over each cell (features/encoding/); one number for each word."""

    name: str = "llc"
    words: int = bounded(2048, 1)  # clusters of k-means
    neighbours: int = bounded(5, 1)  # nearest words that code a descriptor
    power: float = bounded(1.0, 0.01, 1.0)


@dataclasses.dataclass(frozen=True)
class BagOfWords(Codebook):
    """Histogram of the words (features/encoding/)."""

    name: str = "bag"
    sigma: float = bounded(0.0, 0.0)  # width of the Gaussian that shares a descriptor among words; 0: nearest alone
    power: float = bounded(0.5, 0.01, 1.0)


Code = FisherVector | SuperVector | Llc | BagOfWords


@dataclasses.dataclass(frozen=True)
class Channel:
    """One kind of descriptor, coded and classified by itself."""

    descriptor: Literal["sift", "root_sift", "hog", "lbp", "hog_lbp", "colour"] = "sift"  # what describes a patch
    patch: int = bounded(24, 2)  # pixels on a side
    step: int = bounded(4, 1)  # pixels between neighbours
    scales: tuple[float, ...] = bounded((1.0,), 0.01, 16.0, increasing=True)  # of the image's sides, smallest first
    components: int = bounded(64, 0)  # principal components of a descriptor; 0: descriptors stay as they are
    whiten: bool = False  # components divided by their standard deviations
    code: Code = FisherVector()
    pyramid: tuple[str, ...] = ("1x1",)  # rows x columns of each division
    quantise: int = bounded(8, 0)  # numbers of a code that share a byte while the SVM trains; 0: float16


@dataclasses.dataclass(frozen=True)
class Sample:
    """The part of the training split from which a channel learns its vocabulary."""

    images: int = bounded(2000, 2)  # images whose descriptors give principal components, Gaussians and words
    descriptors: int = bounded(200_000, 1)  # descriptors of these images, for Gaussians and words
    codes: int = bounded(1024, 256)  # images whose codes give the centres of quantisation


@dataclasses.dataclass(frozen=True)
class Svm:
    """One class against the rest by averaged stochastic descent (features/svm.py)."""

    regularisation: float = bounded(1e-5, 0.0)  # lambda
    loss: Literal["hinge", "squared_hinge"] = "hinge"  # of the margin between an image's class and another
    bias: float = bounded(1.0, 0.0)  # value of a constant feature, regularised like the others; 0: none
    negatives: int = bounded(0, 0)  # other classes drawn for an image at each step; 0: all
    rate: float = bounded(0.1, 0.0)  # the first step's length
    power: float = bounded(0.75, 0.0)  # of the decay, 1 / (1 + lambda rate t)^power; 0: constant steps
    average_from: str = amount("1st")  # epochs (ep), images (img) or steps (st) after which weights are averaged
    early_stopping: int = bounded(0, 0)  # evaluations in a row without a lower top-1 error that end a run; 0: off

"""The effect of wrong labels on the difference of two systems' error rates.

The setting: some share of the labels is wrong, and it is not known which ones. There are two answers.

*In the worst case*, for one guess: an image that a system gets right only by a wrong label is in truth wrong for it.
So among the images with a wrong label, one that only the second system gets right counts for the second and may in
truth belong to the first; this lowers the true difference of errors by two images. An image that both get right is in
truth wrong for both and changes nothing. An image that both miss may in truth be right for either one, which changes
the difference by one image. An image that only the first gets right can only raise the difference. The true
difference is therefore lower than the measured one by at most twice the share of wrong labels, as far as there are
images that only the second gets right, and by once the remaining share, as far as there are images that both miss.
The upper bound is the mirror image. With five guesses the true class can be among them beside the wrong label, so
images that both get right may also be right for only one of the two.

*On average, under symmetric noise*: each label is, independently of the image, with probability p one of the other K -
1 classes, all equally likely. A guess that is truly right counts as right with probability 1 - p, any other guess with
probability p / (K - 1). Measured differences are then the true ones times 1 - pK / (K - 1), for five guesses as for
one: the order of systems stays, and differences look smaller than they are. (For one guess this is the attenuation of
Angluin & Laird 1988, "Learning from noisy examples", with K = 2 there.) Real wrong labels name similar classes, which
is nearer to the worst case than this model suggests.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool

# Wrong labels in ImageNet's validation split. Confident learning suspected 5,440 labels, and five people looked at
# each image; for 2,524 of them three people kept the label (Northcutt, Athalye & Mueller 2021). Images that were not
# suspected have not been checked.
IMAGENET_WRONG, IMAGENET_IMAGES = 2_916, 50_000
IMAGENET_SHARE = IMAGENET_WRONG / IMAGENET_IMAGES


@dataclasses.dataclass(frozen=True)
class ErrorOverlap:
    """Shares of images that one or both of two systems get wrong by the labels as given.

    Attributes:
      only_first: share that only the first system gets wrong.
      only_second: share that only the second system gets wrong.
      both: share that both get wrong.
      guesses: number of guesses, 1 or 5.
    """

    only_first: float
    only_second: float
    both: float
    guesses: int

    @classmethod
    def from_wrong(cls, first: Bool[np.ndarray, " n"], second: Bool[np.ndarray, " n"], guesses: int) -> "ErrorOverlap":
        """Return the overlap, given whether each image is wrong for the first and for the second system."""
        only_first, only_second = float(np.mean(first & ~second)), float(np.mean(second & ~first))
        return cls(only_first, only_second, float(np.mean(first & second)), guesses)

    @property
    def difference(self) -> float:
        """The first system's error minus the second's, in [-1, 1]."""
        return self.only_first - self.only_second


def difference_bounds(overlap: ErrorOverlap, share: float) -> tuple[float, float]:
    """Return the bounds (low, high) of the true difference if at most a `share` of the labels is wrong."""
    ambiguous = overlap.both
    if overlap.guesses > 1:
        ambiguous = 1.0 - overlap.only_first - overlap.only_second
    low, high = (_largest_shift(only, ambiguous, share) for only in (overlap.only_first, overlap.only_second))
    return overlap.difference - low, overlap.difference + high


def _largest_shift(only: float, ambiguous: float, share: float) -> float:
    """Return the largest shift of the difference to one side that wrong labels can cause.

    An image that one system alone gets wrong moves it by two images, one on which both agree by one.
    """
    two = min(share, only)
    return 2 * two + min(share - two, ambiguous)


def blind_bounds(difference: float, share: float) -> tuple[float, float]:
    """Return the bounds that hold if only the difference is known: twice the share on either side, in [-1, 1]."""
    return max(-1.0, difference - 2 * share), min(1.0, difference + 2 * share)


def undo_symmetric_noise(difference: float, share: float, classes: int) -> float:
    """Return the true difference that symmetric noise turns into the measured one on average.

    Args:
      difference: measured difference of error rates.
      share: share of wrong labels, in [0, 1).
      classes: number of classes.

    Raises:
      ValueError: the share is so large that no difference would remain.
    """
    attenuation = 1.0 - share * classes / (classes - 1)
    if attenuation <= 0:
        raise ValueError(f"with {share:.1%} wrong labels among {classes} classes no difference remains")
    return difference / attenuation

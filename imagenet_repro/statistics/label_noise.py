"""What wrong labels do to the difference of two systems.

Two answers, for labels of which a share is wrong and nobody knows which.

*At worst.* With one guess, an image that a system gets by a wrong label it has in truth got wrong. So of the images
with a wrong label, one that only the second system gets counts for the second and may in truth be the first's: the
true difference of errors is lower by two of them. One that both get is in truth wrong by both and changes nothing; one
that both miss may in truth be either's, which changes the difference by one; one that only the first gets can only
raise it. The true difference is thus no lower than the measured one less twice the share of wrong labels, as far as
there are images that only the second gets, and less once the rest, as far as there are images that both miss; no
higher by the mirror image. With five guesses the true class can be among them beside the wrong label, and images that
both get may also be either's.

*On average, were the noise symmetric*: each label is, whatever the image, with probability p one of the other K - 1
classes, all equally often. A guess that is right in truth counts as right with probability 1 - p, another with
p / (K - 1), and so measured differences are the true ones times 1 - pK / (K - 1), with five guesses as with one: the
order stays, and differences look smaller than they are. (For one guess the attenuation is that of Angluin & Laird
1988, "Learning from noisy examples", whose K is 2.) Real wrong labels are of classes that look alike and are nearer to
the first case than this suggests.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool

# Wrong labels in ImageNet's validation split. Confident learning suspected 5,440, and five people looked at each: for
# 2,524 three of them kept the label (Northcutt, Athalye & Mueller 2021). Nobody looked at what was not suspected.
IMAGENET_WRONG, IMAGENET_IMAGES = 2_916, 50_000
IMAGENET_SHARE = IMAGENET_WRONG / IMAGENET_IMAGES


@dataclasses.dataclass(frozen=True)
class Measured:
    """Who gets which images by the labels as given, as shares of the images.

    Attributes:
      only_first: wrong by the first system alone.
      only_second: wrong by the second alone.
      both: wrong by both.
      guesses: 1 or 5.
    """

    only_first: float
    only_second: float
    both: float
    guesses: int

    @classmethod
    def of(cls, first: Bool[np.ndarray, " n"], second: Bool[np.ndarray, " n"], guesses: int) -> "Measured":
        """From whether each image is wrong by either system."""
        return cls(*(float(np.mean(part)) for part in (first & ~second, second & ~first, first & second)), guesses)

    @property
    def difference(self) -> float:
        """The first system's error less the second's, in [-1, 1]."""
        return self.only_first - self.only_second


def bounds(measured: Measured, share: float) -> tuple[float, float]:
    """Between which values the true difference lies where no more than a share of the labels is wrong."""
    agreed = measured.both
    if measured.guesses > 1:
        agreed = 1.0 - measured.only_first - measured.only_second
    low, high = (_farthest(only, agreed, share) for only in (measured.only_first, measured.only_second))
    return measured.difference - low, measured.difference + high


def _farthest(only: float, agreed: float, share: float) -> float:
    """How far wrong labels can move it: by two for images that one system gets, by one where both do alike."""
    two = min(share, only)
    return 2 * two + min(share - two, agreed)


def blind_bounds(difference: float, share: float) -> tuple[float, float]:
    """As `bounds`, where only the difference is known: twice the share to either side, within [-1, 1]."""
    return max(-1.0, difference - 2 * share), min(1.0, difference + 2 * share)


def symmetric(difference: float, share: float, classes: int) -> float:
    """The true difference of which symmetric noise makes the measured one on average.

    Raises ValueError where so large a share leaves nothing of any difference.
    """
    kept = 1.0 - share * classes / (classes - 1)
    if kept <= 0:
        raise ValueError(f"with {share:.1%} wrong labels of {classes} classes nothing is left of a difference")
    return difference / kept

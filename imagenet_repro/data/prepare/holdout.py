"""The part of a source's images that is held out for evaluation, drawn class by class."""

import hashlib
import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

from imagenet_repro.data.prepare import names
from imagenet_repro.data.prepare.listing import Image
from imagenet_repro.errors import UserError

TRAIN, HELD_OUT = "train", "validation"


def parse_share(text: str) -> float:
    """Return the share of a text such as `20%` or `0.2`, in [0, 1).

    Raises:
      UserError: it is neither, or out of range.
    """
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = math.nan
    if not 0 <= share < 1:
        raise UserError(
            f"--holdout={text}: a share of each class is needed, from 0 to less than 1, such as 20% or 0.2"
        )
    return share


def hold_out(images: Sequence[Image], share: float, seed: int) -> tuple[Image, ...]:
    """Return the images with the split `train` or, for a share of each class, `validation`.

    The number that a class holds out is rounded, and is at least one and at most all but one. Which images these are
    follows from the seed and their names alone: in a class to which images are added, the others change sides only
    where the number requires it.

    Args:
      images: of any split, which is replaced.
      share: of each class, in [0, 1); 0: none.
      seed: of the choice.

    Raises:
      UserError: a class has a single image, and the share is not 0.
    """
    by_class: dict[str, list[Image]] = defaultdict(list)
    for image in images:
        by_class[image.label].append(image)
    if not share:
        return tuple(image._replace(split=TRAIN) for image in images)
    single = [label for label, members in by_class.items() if len(members) < 2]
    if single:
        raise UserError(
            f"{len(single)} classes have one image each, and --holdout needs one to train on and one to hold out: "
            f"{names.some(single)}. Add images, remove these classes, or type --holdout=0%"
        )
    chosen = {image.name for members in by_class.values() for image in _choose(members, share, seed)}
    return tuple(image._replace(split=HELD_OUT if image.name in chosen else TRAIN) for image in images)


def _choose(members: Sequence[Image], share: float, seed: int) -> Iterable[Image]:
    count = min(max(1, math.floor(share * len(members) + 0.5)), len(members) - 1)
    return heapq.nsmallest(count, members, key=lambda image: _rank(image.name, seed))


def _rank(name: str, seed: int) -> tuple[bytes, str]:
    return hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogateescape")).digest(), name

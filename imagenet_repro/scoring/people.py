"""Published top-5 error rates of people who took the challenge's test.

A. Karpathy, "What I learned from competing against a ConvNet on ImageNet" (2014), and Russakovsky et al. 2015,
"ImageNet Large Scale Visual Recognition Challenge", sec. 6.4. Both print percentages. The first annotator's 5.1 % of
1,500 images could be 76 or 77 wrong images; only 76 gives the printed p value of 0.022 against the network's 6.8 %
(102 images), and the printed shares of 37 and 24 % of the errors. The second annotator's 12.0 % of 258 images can only
be 31.
"""

import dataclasses
from collections.abc import Sequence

from imagenet_repro.scoring.metrics import GUESSES, format_rate


@dataclasses.dataclass(frozen=True)
class Person:
    """An annotator who had five guesses for each image."""

    who: str
    practice: str
    wrong: int  # images whose class was not among the guesses
    images: int
    source: str

    @property
    def protocol(self) -> str:
        """The images that were labelled."""
        return f"{self.images:,} test images"

    @property
    def error(self) -> float:
        """Top-5 error, a share of the images in [0, 1]."""
        return self.wrong / self.images

    def __str__(self) -> str:
        error, wilson = format_rate(self.wrong, self.images, "wilson")
        _, exact = format_rate(self.wrong, self.images, "exact")
        return (
            f"{self.who}, {self.practice}: top-{GUESSES} error {error} %, 95 % interval {wilson}, exact {exact},"
            f" for new images ({self.wrong} of {self.protocol} wrong; {self.source})"
        )


PEOPLE: Sequence[Person] = (
    Person("a person", "after 500 images of practice", 76, 1_500, "Karpathy 2014"),
    Person("a second person", "after 100 images of practice", 31, 258, "Russakovsky et al. 2015, sec. 6.4"),
)

"""ImageNet-C: 15 corruptions of five severities each, made into one number.

D. Hendrycks and T. Dietterich 2019, "Benchmarking neural network robustness to common corruptions and perturbations",
sec. 4: the corruption error CE is the sum of a corruption's top-1 errors over the five severities, divided by the same
sum of AlexNet's; mCE is the mean of the 15. AlexNet's mean errors are those of the authors' evaluation code.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Bool, Float
from rich.table import Table

from imagenet_repro.errors import UserError
from imagenet_repro.scoring.predictions import Predictions
from imagenet_repro.scoring.sets import SetError
from imagenet_repro.statistics.intervals import NORMAL_95

SEVERITIES = (1, 2, 3, 4, 5)
# AlexNet's top-1 error, the mean over the severities, by tfds' name of the corruption.
ALEXNET = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
CONFIGS = tuple(f"{name}_{severity}" for name in ALEXNET for severity in SEVERITIES)
PIXELS = 224  # of the sides of every image
CONFIG = re.compile(r"imagenet2012_corrupted/(\w+_[1-5])(:.*)?")


@dataclasses.dataclass(frozen=True)
class CorruptedErrors:
    """Which images of one corruption and severity the first guess misses."""

    id: np.ndarray  # unicode [n]
    wrong: Bool[np.ndarray, " n"]


def count_corrupted(predicted: Predictions) -> CorruptedErrors:
    """What a score needs of predictions, without their scores."""
    return CorruptedErrors(predicted.id, predicted.top5[:, 0] != predicted.label)


@dataclasses.dataclass(frozen=True)
class Robustness:
    """Errors under corruption.

    Attributes:
      errors: top-1 error in [0, 1] by corruption, at each severity.
      mce: mean corruption error, AlexNet's being 100 %.
      mean: of all 75 errors, not divided by anything.
    """

    errors: Mapping[str, tuple[float, ...]]
    mce: SetError
    mean: SetError

    def ce(self, corruption: str) -> float:
        """The corruption error, 1 for AlexNet."""
        return sum(self.errors[corruption]) / (len(SEVERITIES) * ALEXNET[corruption])


def score_corruptions(found: Mapping[str, CorruptedErrors]) -> Robustness:
    """The score of all corruptions and severities.

    Intervals are normal, over images: both numbers are sums of what each image adds to them through its 75 versions.

    Args:
      found: by config, such as "gaussian_noise_1".

    Raises `UserError` where one of the 75 is missing.
    """
    missing = [config for config in CONFIGS if config not in found]
    if missing:
        raise UserError(
            f"mCE is the mean of all {len(ALEXNET)} corruptions at five severities; {len(missing)} of"
            f" {len(CONFIGS)} are missing, the first: {missing[0]}"
        )
    errors = {
        name: tuple(float(found[f"{name}_{severity}"].wrong.mean()) for severity in SEVERITIES) for name in ALEXNET
    }
    normalised = dict(ALEXNET)
    plain = dict.fromkeys(ALEXNET, 1.0)
    return Robustness(
        errors,
        _mean("mCE", found, normalised, "mean of 15 corruption errors, each divided by AlexNet's"),
        _mean("mean top-1 error", found, plain, "15 corruptions at five severities, not divided"),
    )


def _mean(what: str, found: Mapping[str, CorruptedErrors], divisor: Mapping[str, float], how: str) -> SetError:
    """The mean over corruptions of their mean errors over severities, each divided; with an interval over images."""
    ids, place = np.unique(np.concatenate([found[config].id for config in CONFIGS]), return_inverse=True)
    shares: list[Float[np.ndarray, " n"]] = []
    for config in CONFIGS:
        one = found[config]
        shares.append(one.wrong / (len(one.wrong) * len(CONFIGS) * divisor[config[:-2]]))
    added = np.bincount(place, np.concatenate(shares), len(ids))
    error = float(added.sum())
    margin = NORMAL_95 * math.sqrt(len(ids) * float(np.var(added, ddof=1))) if len(ids) > 1 else math.inf
    return SetError(what, error, max(0.0, error - margin), error + margin, len(ids), how=how)


def config_name(data: str) -> str:
    """The config of a name of tfds, such as "fog_3" of "imagenet2012_corrupted/fog_3"; empty for other data sets."""
    match = CONFIG.fullmatch(data)
    return match[1] if match else ""


def terminal_table(found: Robustness) -> Table:
    """A row for each corruption, for the terminal."""
    headings = ("top-1 error % at severity", *map(str, SEVERITIES), "mean", "AlexNet", "CE %")
    rich = Table(*headings, box=None)
    for column in rich.columns[1:]:
        column.justify = "right"
    for name, errors in found.errors.items():
        rich.add_row(name.replace("_", " "), *_percent([*errors, np.mean(errors), ALEXNET[name], found.ce(name)]))
    return rich


def _percent(shares: Iterable[float]) -> list[str]:
    return [f"{100 * share:.1f}" for share in shares]

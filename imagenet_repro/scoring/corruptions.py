"""ImageNet-C: 15 corruptions at five severities each, combined into one number.

D. Hendrycks and T. Dietterich 2019, "Benchmarking neural network robustness to common corruptions and perturbations",
sec. 4: the corruption error CE is the sum of a corruption's top-1 errors over the five severities, divided by the same
sum for AlexNet; mCE is the mean over the 15 corruptions. AlexNet's mean errors are those of the authors' evaluation
code.
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
from imagenet_repro.scoring.terminal import score_table
from imagenet_repro.statistics.intervals import NORMAL_95

SEVERITIES = (1, 2, 3, 4, 5)
# AlexNet's top-1 error by tfds' name of the corruption, mean over the severities.
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
PIXELS = 224  # side of every image
CONFIG = re.compile(r"imagenet2012_corrupted/(\w+_[1-5])(:.*)?")


@dataclasses.dataclass(frozen=True)
class CorruptedErrors:
    """Whether the first guess is wrong for each image of one corruption and severity."""

    id: np.ndarray  # unicode [n]
    wrong: Bool[np.ndarray, " n"]


def count_corrupted(predicted: Predictions) -> CorruptedErrors:
    """Return the part of predictions that the score needs, without the class scores."""
    return CorruptedErrors(predicted.id, predicted.top5[:, 0] != predicted.label)


@dataclasses.dataclass(frozen=True)
class Robustness:
    """Errors under corruption.

    Attributes:
      errors: top-1 error in [0, 1] by corruption, one for each severity.
      mce: mean corruption error; AlexNet's is 100 %.
      mean: mean of all 75 errors, without normalization.
    """

    errors: Mapping[str, tuple[float, ...]]
    mce: SetError
    mean: SetError

    def ce(self, corruption: str) -> float:
        """Return the corruption error; 1 for AlexNet."""
        return sum(self.errors[corruption]) / (len(SEVERITIES) * ALEXNET[corruption])


def score_corruptions(parts: Mapping[str, CorruptedErrors]) -> Robustness:
    """Score all corruptions and severities.

    Intervals are normal, for new images and these checkpoints: both numbers are sums of what each image contributes
    through its 75 versions.

    Args:
      parts: errors by config, such as "gaussian_noise_1".

    Raises:
      UserError: one of the 75 parts is missing.
    """
    missing = [config for config in CONFIGS if config not in parts]
    if missing:
        raise UserError(
            f"mCE is the mean of all {len(ALEXNET)} corruptions at five severities; {len(missing)} of"
            f" {len(CONFIGS)} are missing, the first: {missing[0]}"
        )
    errors = {
        name: tuple(float(parts[f"{name}_{severity}"].wrong.mean()) for severity in SEVERITIES) for name in ALEXNET
    }
    normalised = dict(ALEXNET)
    plain = dict.fromkeys(ALEXNET, 1.0)
    return Robustness(
        errors,
        _mean("mCE", parts, normalised, "mean of 15 corruption errors, each divided by AlexNet's"),
        _mean("mean top-1 error", parts, plain, "15 corruptions at five severities, not divided"),
    )


def _mean(what: str, parts: Mapping[str, CorruptedErrors], divisor: Mapping[str, float], how: str) -> SetError:
    """Return the mean over corruptions of their mean error over severities, each divided by `divisor`.

    The interval is normal, for new images and these checkpoints.
    """
    ids, image = np.unique(np.concatenate([parts[config].id for config in CONFIGS]), return_inverse=True)
    shares: list[Float[np.ndarray, " n"]] = []
    for config in CONFIGS:
        one = parts[config]
        shares.append(one.wrong / (len(one.wrong) * len(CONFIGS) * divisor[config[:-2]]))
    added = np.bincount(image, np.concatenate(shares), len(ids))
    error = float(added.sum())
    margin = NORMAL_95 * math.sqrt(len(ids) * float(np.var(added, ddof=1))) if len(ids) > 1 else math.inf
    return SetError(what, error, max(0.0, error - margin), error + margin, len(ids), how=how)


def config_name(data: str) -> str:
    """Return the config of a tfds name, such as "fog_3" for "imagenet2012_corrupted/fog_3"; "" for other data sets."""
    match = CONFIG.fullmatch(data)
    return match[1] if match else ""


def terminal_table(result: Robustness) -> Table:
    """Return a table with a row for each corruption."""
    headings = ("top-1 error % at severity", *map(str, SEVERITIES), "mean", "AlexNet", "CE %")
    rows = [
        (name.replace("_", " "), *_percent([*errors, float(np.mean(errors)), ALEXNET[name], result.ce(name)]))
        for name, errors in result.errors.items()
    ]
    return score_table(headings, rows)


def _percent(shares: Iterable[float]) -> list[str]:
    return [f"{100 * share:.1f}" for share in shares]

"""Simulate how optimistic the lowest of several evaluations is; a table of `benchmarks/recipe_differences.py`.

The checkpoints of one run are scored on the same images. Some images are wrong for all of them, some are right for
all, and on the rest, the contested ones, each checkpoint is wrong with a probability of its own. Given the number of
images of each kind, errors are binomial, so counts are drawn and not images, which is exact. The bias is the true
error of the checkpoint with the lowest error minus that lowest error.
"""

import dataclasses

import numpy as np

from imagenet_repro.statistics.selection import CORRELATION, estimate_optimism

ERROR = 0.25  # of the last checkpoint
LAST = 0.5  # share of contested images on which it is wrong


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a run, and the images that score them.

    Attributes:
      evaluations: the number of checkpoints.
      images: of the split.
      disagreement: share of images on which only one of two late checkpoints is wrong.
      is_falling: whether errors fall towards that of the last checkpoint; otherwise all are equal.
    """

    evaluations: int
    images: int
    disagreement: float
    is_falling: bool = False

    @property
    def correlation(self) -> float:
        """The correlation, over images, of the errors of two late checkpoints."""
        return 1 - self.disagreement / (2 * ERROR * (1 - ERROR))

    @property
    def contested(self) -> float:
        """The share of contested images."""
        return self.disagreement / (2 * LAST * (1 - LAST))

    @property
    def wrong_on_contested(self) -> np.ndarray:
        """The probability of each checkpoint to be wrong on a contested image [evaluations]."""
        place = np.arange(self.evaluations) / max(1, self.evaluations - 1)
        return LAST + (1 - LAST) * np.exp(-8 * place) if self.is_falling else np.full(self.evaluations, LAST)

    @property
    def true_errors(self) -> np.ndarray:
        """The error of each checkpoint on all images of the kind [evaluations]."""
        return ERROR + self.contested * (self.wrong_on_contested - LAST)


def draw(setting: Checkpoints, repetitions: int, rng: np.random.Generator) -> np.ndarray:
    """Return error rates on the images of each repetition [repetitions, evaluations]."""
    wrong_for_all = ERROR - setting.contested * LAST
    shares = [wrong_for_all, setting.contested, 1 - wrong_for_all - setting.contested]
    always, contested, _ = rng.multinomial(setting.images, shares, repetitions).T
    wrong = rng.binomial(contested[:, None], setting.wrong_on_contested[None])
    return (always[:, None] + wrong) / setting.images


def bias(setting: Checkpoints, repetitions: int, rng: np.random.Generator) -> tuple[float, float]:
    """Return the mean bias of the lowest error, and the mean of its estimates from the same evaluations."""
    errors = draw(setting, repetitions, rng)
    chosen = errors.argmin(1)
    simulated = setting.true_errors[chosen] - errors.min(1)
    estimates = [estimate_optimism(one, setting.images) for one in errors[: repetitions // 4].tolist()]
    return float(simulated.mean()), float(np.mean(estimates))


def table(repetitions: int, rng: np.random.Generator) -> list[str]:
    """Return a row for each setting, in percentage points."""
    lines = [
        "| evaluations | errors | disagreement, % | correlation | images | simulated | estimated |",
        "|---:|---|---:|---:|---:|---:|---:|",
    ]
    counts = [(count, 0.09, is_falling) for is_falling in (False, True) for count in (2, 10, 30, 90)]
    for count, disagreement, is_falling in (*counts, (10, 0.05, False), (10, 0.15, False)):
        for images in (50_000, 5_000):
            setting = Checkpoints(count, images, disagreement, is_falling)
            simulated, estimated = (round(100 * value, 2) + 0.0 for value in bias(setting, repetitions, rng))
            lines.append(
                f"| {count} | {'falling' if is_falling else 'equal'} | {100 * disagreement:.0f} |"
                f" {setting.correlation:.2f} | {images:,} | {simulated:.2f} | {estimated:.2f} |"
            )
    return lines


TEXT = f"""Mean bias of the lowest top-1 error of a run's evaluations, in points, when the same images choose and
score the checkpoint, and the mean of `imagenet_repro.statistics.selection.estimate_optimism`, which sees the errors
alone and supposes a correlation of {CORRELATION:g}. The last checkpoint errs on 25 % of the images; two late ones
disagree on the share in the third column. Where errors fall, the first checkpoints are worse and seldom the lowest.
Checkpoints close in time agree more than distant ones, which is not simulated; the bias is then smaller."""

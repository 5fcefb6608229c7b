"""Simulate comparisons of recipes that are equal in population, and of recipes that are not.

    python benchmarks/recipe_differences.py --out=results/statistics.md

Each repetition draws new images and new seeds for several systems. Some images are easy for all systems, some are hard
for all, and the rest are contested: each system leans, image by image, to be right or wrong, and each of its seeds
follows the lean with a probability that the seed shifts. Given the numbers of images of each kind, the errors of runs
are binomial, so a repetition draws counts and not images, however many images there are. The images' covariances are
replaced by their expectation given the counts, which is exact; their own error, some 4 % for 1,000 images, is left
out. The last table compares that with drawing every image.
"""

import argparse
import dataclasses
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import selected_checkpoints
from imagenet_repro.statistics.crossed_effects import Comparison, Noise, Runs, compare, minimal_gap, power, summarize
from imagenet_repro.statistics.hypothesis_tests import holm, least_sign_flip_p, mcnemar_p
from imagenet_repro.storage import provenance

LEVEL = 0.05
HARD = 0.2  # share of images that every run gets wrong
FOLLOWED = 0.75  # probability that a run follows its system's lean
GAPS = (0.1, 0.2, 0.3, 0.5, 1.0)  # points


@dataclasses.dataclass(frozen=True)
class Setting:
    """A population of recipes, and the size of the experiment.

    Attributes:
      deviations: standard deviation over seeds of each system's error on all images, as a share.
      seeds: of each system.
      images: of the test split.
      disagreement: share of images on which one of two runs of different systems is right and the other wrong.
      gap: difference of the last system's error from that of the others, as a share.
    """

    deviations: tuple[float, ...]
    seeds: int
    images: int
    disagreement: float
    gap: float = 0.0

    @property
    def contested(self) -> float:
        """The share of contested images; two systems' leans differ on half of them."""
        return 2 * self.disagreement

    @property
    def noise(self) -> Noise:
        """The noise for a plan; seeds of all systems differ alike."""
        return Noise(self.deviations[0], self.disagreement, self.contested * 2 * FOLLOWED * (1 - FOLLOWED))


@dataclasses.dataclass(frozen=True)
class Draw:
    """Repetitions of an experiment: errors of runs [repetitions, systems, seeds], and what was counted."""

    runs: Runs
    errors: np.ndarray
    contested: np.ndarray  # number of contested images [repetitions]
    contested_errors: np.ndarray  # of each run among them [repetitions, systems, seeds]


def shifts(setting: Setting, repetitions: int, rng: np.random.Generator) -> np.ndarray:
    """Return how much more often each run is wrong on a contested image, [repetitions, systems, seeds]."""
    systems = len(setting.deviations)
    drawn = rng.standard_normal((repetitions, systems, setting.seeds)) * np.array(setting.deviations)[:, None]
    drawn[:, -1] += setting.gap
    return drawn / setting.contested


def draw(setting: Setting, repetitions: int, rng: np.random.Generator) -> Draw:
    """Draw the counts of an experiment."""
    systems, seeds, images = len(setting.deviations), setting.seeds, setting.images
    shift = shifts(setting, repetitions, rng)
    hard, contested, _ = rng.multinomial(
        images, (HARD, setting.contested, 1 - HARD - setting.contested), repetitions
    ).T
    wrong_lean = rng.binomial(contested[:, None], 0.5, (repetitions, systems))
    sizes = np.stack([wrong_lean, contested[:, None] - wrong_lean])  # [leans, repetitions, systems]
    chances = np.clip(np.stack([FOLLOWED + shift, 1 - FOLLOWED + shift]), 0, 1)
    counts = rng.binomial(sizes[..., None], chances)  # [leans, repetitions, systems, seeds]
    contested_errors = counts.sum(0)
    errors = (hard[:, None, None] + contested_errors) / images
    totals = counts.sum(3)
    # Two seeds of a system are independent given the lean, so the expected number of images that both get wrong is
    # the product of their counts over the number of images.
    both = (totals**2 - (counts**2).sum(3)) / np.maximum(sizes, 1)
    squares = (hard[:, None] + (totals + both).sum(0) / seeds**2) / images  # mean of squared shares of wrong seeds
    means = errors.mean(2)
    shares = totals.sum(0) / seeds
    products = hard[:, None, None] + shares[:, :, None] * shares[:, None, :] / contested[:, None, None]
    second_moments = products / images
    second_moments[:, np.arange(systems), np.arange(systems)] = squares
    covariances = (second_moments - means[:, :, None] * means[:, None, :]) * images / (images - 1)
    variances = errors.var(2, ddof=1)
    within = (means - squares) * seeds / (seeds - 1)
    residuals = (within - variances) * images / (images - 1)
    runs = Runs(images, np.full(systems, seeds), means, variances, residuals, covariances)
    return Draw(runs, errors, contested, contested_errors)


def draw_images(setting: Setting, repetitions: int, rng: np.random.Generator) -> Iterator[list[np.ndarray]]:
    """Yield, for each repetition, whether each run of each system is wrong on each image, [seeds, images]."""
    for shift in shifts(setting, repetitions, rng):
        kind = rng.random(setting.images)
        hard = kind < HARD
        contested = ~hard & (kind < HARD + setting.contested)
        leans = rng.random((len(shift), 1, setting.images)) < 0.5
        chances = np.where(leans, FOLLOWED, 1 - FOLLOWED) + shift[:, :, None]
        wrong = rng.random(chances.shape) < np.where(contested, chances, hard)
        yield list(wrong)


# --- tests of today ----------------------------------------------------------------------------------------------


def rejections(p_values: np.ndarray) -> np.ndarray:
    """Return which pairs are called different after Holm's adjustment, [repetitions, pairs]."""
    is_different = np.zeros(p_values.shape, bool)
    for repetition in np.flatnonzero(p_values.min(1) * p_values.shape[1] <= LEVEL):
        is_different[repetition] = holm(p_values[repetition]) <= LEVEL
    return is_different


def first_seed(drawn: Draw, rng: np.random.Generator) -> np.ndarray:
    """Return McNemar's p values of the checkpoints of the first seed."""
    first, second = np.triu_indices(drawn.errors.shape[1], 1)
    wrong = drawn.contested_errors[:, :, 0]
    a, b = wrong[:, first], wrong[:, second]
    both = rng.hypergeometric(a, drawn.contested[:, None] - a, b)
    return mcnemar_p(a - both, b - both)


def paired_t(drawn: Draw) -> tuple[np.ndarray, np.ndarray]:
    """Return p values of the paired t-test over seeds, and the half-widths of Student's intervals."""
    from scipy.special import stdtr, stdtrit

    first, second = np.triu_indices(drawn.errors.shape[1], 1)
    seeds = drawn.errors.shape[2]
    differences = drawn.errors[:, first] - drawn.errors[:, second]
    errors = differences.std(2, ddof=1) / np.sqrt(seeds)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistics = np.nan_to_num(np.abs(differences.mean(2)) / errors)
    return 2 * stdtr(seeds - 1, -statistics), stdtrit(seeds - 1, 1 - LEVEL / 2) * errors


def sign_flips(drawn: Draw) -> np.ndarray:
    """Return p values of the sign-flip test over seeds; 1 where too few seeds can never reach the level."""
    first, second = np.triu_indices(drawn.errors.shape[1], 1)
    seeds = drawn.errors.shape[2]
    differences = np.round((drawn.errors[:, first] - drawn.errors[:, second]) * drawn.runs.images).astype(np.int32)
    if least_sign_flip_p(seeds) * len(first) > LEVEL:
        return np.ones(differences.shape[:2])
    signs = np.array([(1, *rest) for rest in itertools.product((1, -1), repeat=seeds - 1)], np.int32)
    return np.mean(np.abs(differences @ signs.T) >= np.abs(differences.sum(2))[..., None], axis=2)


# --- tables ------------------------------------------------------------------------------------------------------


def populations(systems: int) -> dict[str, tuple[float, ...]]:
    """Return the standard deviations over seeds that are simulated, by their title in points."""
    half = systems // 2
    return {
        "0.1": (0.001,) * systems,
        "0.3": (0.003,) * systems,
        "0.1 and 0.3": (0.001,) * half + (0.003,) * (systems - half),
        "0.1, one 0.3": (0.001,) * (systems - 1) + (0.003,),
    }


def percent(values: list[float]) -> str:
    """Return the range of shares as percentages."""
    low, high = (f"{100 * bound:.1f}" for bound in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def family_table(repetitions: int, rng: np.random.Generator) -> list[str]:
    """Return the table of wrong claims about recipes that are equal."""
    lines = [
        "| systems | seeds | sd of seeds, points | coverage of all pairs at once | a wrong claim: crossed effects |"
        " McNemar, first seed | paired t | sign flips | Student's interval covers a pair |",
        "|---:|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for systems, seeds in itertools.product((5, 11), (3, 5, 9)):
        for title, deviations in populations(systems).items():
            shares: list[list[float]] = []
            for images, disagreement in itertools.product((1_000, 10_000, 50_000), (0.05, 0.10, 0.15)):
                drawn = draw(Setting(deviations, seeds, images, disagreement), repetitions, rng)
                t, half_widths = paired_t(drawn)
                pairs = compare(drawn.runs)
                claims = [pairs.is_different, *map(rejections, (first_seed(drawn, rng), t, sign_flips(drawn)))]
                wrong = [float(claim.any(1).mean()) for claim in claims]
                shares.append([1 - wrong[0], *wrong, float(np.mean(np.abs(pairs.difference) <= half_widths))])
            cells = [percent([share[k] for share in shares]) for k in range(6)]
            lines.append(f"| {systems} | {seeds} | {title} | {' | '.join(cells)} |")
    return lines


def power_table(repetitions: int, rng: np.random.Generator) -> list[str]:
    """Return the table of the claims that are right, where one system differs from the others."""
    gaps = " | ".join(f"{gap} points" for gap in GAPS)
    lines = [
        f"| systems | seeds | images | sd of seeds, points | test | {gaps} | found in 80 % |",
        "|---:|---:|---:|---:|---|" + "---:|" * (len(GAPS) + 1),
    ]
    for systems, seeds, images in itertools.product((5, 11), (3, 5, 9), (10_000, 50_000)):
        for deviation in (0.001, 0.003):
            base = Setting((deviation,) * systems, seeds, images, 0.10)
            found: dict[str, list[float]] = {"crossed effects": [], "its plan": [], "paired t": [], "sign flips": []}
            for gap in GAPS:
                drawn = draw(dataclasses.replace(base, gap=gap / 100), repetitions, rng)
                pairs = compare(drawn.runs)
                with_last = pairs.second == systems - 1
                claims = pairs.is_different, rejections(paired_t(drawn)[0]), rejections(sign_flips(drawn))
                rates = [float(claim[:, with_last].mean()) for claim in claims]
                planned = power(systems, seeds, images, gap / 100, base.noise)
                for values, rate in zip(found.values(), (rates[0], planned, *rates[1:]), strict=True):
                    values.append(rate)
            least = f"{100 * minimal_gap(systems, seeds, images, base.noise):.2f}"
            for test, values in found.items():
                start = f"| {systems} | {seeds} | {images:,} | {100 * deviation:.1f} | {test} | "
                end = least if test == "its plan" else ""
                lines.append(start + " | ".join(f"{100 * value:.0f}" for value in values) + f" | {end} |")
    return lines


def image_table(repetitions: int, rng: np.random.Generator) -> list[str]:
    """Return the comparison of drawing counts with drawing images."""
    lines = [
        "| 5 systems, 3 seeds, 1,000 images, sd 0.3 points, disagreement 10 % | counts | images |",
        "|---|---:|---:|",
    ]
    setting = Setting((0.003,) * 5, 3, 1_000, 0.10)
    counted = compare(draw(setting, repetitions, rng).runs)
    drawn = [compare(summarize(wrong)) for wrong in draw_images(setting, repetitions, rng)]

    def row(title: str, digits: int, value) -> str:
        return f"| {title} | {value(counted):.{digits}f} | {value(_stacked(drawn)):.{digits}f} |"

    lines.append(row("a wrong claim, %", 1, lambda pairs: 100 * pairs.is_different.any(1).mean()))
    lines.append(row("standard deviation of a difference, points", 3, lambda pairs: 100 * pairs.difference.std()))
    lines.append(
        row(
            "root of the mean estimated variance, points",
            3,
            lambda pairs: 100 * (pairs.standard_error**2).mean() ** 0.5,
        )
    )
    lines.append(row("mean half-width, points", 3, lambda pairs: 100 * pairs.half_width.mean()))
    return lines


def _stacked(comparisons: list[Comparison]) -> Comparison:
    first = comparisons[0]
    arrays = {
        field.name: np.stack([getattr(one, field.name) for one in comparisons])
        for field in dataclasses.fields(Comparison)
        if field.name not in ("first", "second")
    }
    return Comparison(first.first, first.second, **arrays)


TEXT = """# Differences of recipes, simulated

`python benchmarks/recipe_differences.py`, {repetitions:,} repetitions of each setting, {seconds:.0f} s on one core,
commit {commit}. Standard errors are {error:.1f} percentage points at 5 %.

Each repetition trains systems with new seeds and draws new images, so a claim is wrong if it is not true of the
population. A claim of *crossed effects* is an interval of `imagenet_repro.statistics.crossed_effects` that excludes
zero. The other tests are Holm-adjusted over all pairs. Two runs of different systems disagree on 5, 10 and 15 % of the
images, two seeds of one system on three quarters of that.

## Recipes that are equal in population

Percentages of repetitions, as ranges over 1,000, 10,000 and 50,000 images and the three disagreements. A family-wise
error of 5 % is the aim. McNemar's test answers another question: whether two checkpoints differ. Sign flips cannot
claim anything here except for five systems with nine seeds. Both tests over paired seeds take the images as given:
their claims are about new seeds on these images, which is why they are wrong of the population more often the more
seeds there are.

{family}

## Recipes with one that differs

Percentages of the pairs with the differing system that a test finds, with 10 % disagreement. *Its plan* is what
`crossed_effects.power` predicts before anything is trained, and the last column is `crossed_effects.minimal_gap` in
points. The tests over paired seeds make wrong claims in up to half of the repetitions (above), so what they find
cannot be compared where seeds differ little.

{power}

## Counts or images

{images}

## Checkpoints that the scored images selected

{selected_text}

{selected}
"""


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/statistics.md"))
    parser.add_argument("--repetitions", type=int, default=6_000)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    began = time.process_time()
    tables = {
        "family": family_table(arguments.repetitions, rng),
        "power": power_table(arguments.repetitions // 2, rng),
        "images": image_table(arguments.repetitions // 2, rng),
        "selected": selected_checkpoints.table(arguments.repetitions, rng),
    }
    text = TEXT.format(
        repetitions=arguments.repetitions,
        seconds=time.process_time() - began,
        commit=provenance.commit()[:12],
        error=100 * (LEVEL * (1 - LEVEL) / arguments.repetitions) ** 0.5,
        selected_text=selected_checkpoints.TEXT,
        **{name: "\n".join(lines) for name, lines in tables.items()},
    )
    arguments.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

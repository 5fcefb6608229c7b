"""Differences of recipes in a population of new seeds and new images, from a few seeds on one set of images.

The model is linear, with images crossed with systems and seeds nested in systems. Whether the run of system i with
seed s is wrong on image k is

    e_isk = mu_i + a_k + b_ik + S_is + r_isk

where mu_i is the error rate of system i over all seeds and images, a_k is how hard an image is for all systems, b_ik
for one system, S_is is how much a seed's error differs over all images, and r_isk is the rest. Everything but mu_i is
random and uncorrelated. Medical imaging compares tests so, with readers in place of seeds and cases in place of
images (Obuchowski & Rockette 1995; Gallas, Pennello & Myers 2007, "Multireader multicase variance analysis for binary
data"; Hillis 2014, "A marginal-mean ANOVA approach for analyzing multireader multicase radiological imaging data").
Bouthillier et al. (2021), "Accounting for Variance in Machine Learning Benchmarks", show that both sources matter.

The difference of two systems' means over n seeds and K images has the variance

    (var S_i + var r_i / K) / n_i + (var S_j + var r_j / K) / n_j + var(b_i - b_j) / K

The first two terms are estimated from the seeds of a system, the last one from the images. A system's seed variance is
the pooled one, or its own where that is larger. Pooling gives three seeds the degrees of freedom of all systems, and a
system whose seeds differ more than the others' keeps its own variance. The degrees of freedom are Satterthwaite's
(1946), and the intervals of all pairs are Tukey's and Kramer's (1956), so that all of them cover at once.

Seeds are taken to be independent between systems. Where equal seeds give equal orders of images, the errors of two
systems may be positively correlated over them, and the intervals are then a little wide.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import numpy as np
from jaxtyping import Bool, Float, Int, UInt16

from imagenet_repro.statistics.intervals import wilson_interval

# Degrees of freedom at which quantiles are computed; between them they are interpolated over 1 / df.
_LEVELS = 4_000  # points of the integral over the estimated standard deviation
_NODES = (1.0, 1.3, 1.6, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 25.0, 60.0, math.inf)
# A variance that counts only where it exceeds the pooled one varies less than others of its degrees of freedom: the
# larger of both has three times as many for three to nine seeds. Twice as many keeps the family-wise error below the
# level where few systems differ more than the rest (results/statistics.md). Of two seeds it has the one that it has.
OWN_FREEDOM = 2
_BLOCK = 4_096  # images whose shares of all systems are in memory at once
_DRAWS = 4_000  # of seed variances, over which power is averaged


@dataclasses.dataclass(frozen=True)
class Runs:
    """Sums over the runs of several systems that a comparison needs; leading axes are repetitions of the experiment.

    Attributes:
      images: number of images that every run was evaluated on.
      seeds: number of runs of each system.
      means: error of each system, mean over its seeds and over images.
      seed_variances: sample variance of a system's errors over its seeds; NaN for a system of one seed.
      residuals: variance of one run's error on an image, given the system and the image; NaN for one seed.
      image_covariances: sample covariance over images of the systems' shares of wrong seeds.
    """

    images: int
    seeds: Int[np.ndarray, " systems"]
    means: Float[np.ndarray, "*repetitions systems"]
    seed_variances: Float[np.ndarray, "*repetitions systems"]
    residuals: Float[np.ndarray, "*repetitions systems"]
    image_covariances: Float[np.ndarray, "*repetitions systems systems"]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """All pairs of systems; a pair's first system comes before its second one in the given order.

    Differences, intervals and standard errors are shares of images. Leading axes are those of `Runs`.

    Attributes:
      first: index of each pair's first system.
      second: index of each pair's second system.
      difference: error of the first system minus that of the second.
      seed_variance: variance of the difference by new seeds on the same images.
      image_variance: variance of the difference by new images, without what is already part of the seeds'.
      degrees: Satterthwaite's degrees of freedom of the sum of both variances.
      half_width: half of the width of the simultaneous interval.
    """

    first: Int[np.ndarray, " pairs"]
    second: Int[np.ndarray, " pairs"]
    difference: Float[np.ndarray, "*repetitions pairs"]
    seed_variance: Float[np.ndarray, "*repetitions pairs"]
    image_variance: Float[np.ndarray, "*repetitions pairs"]
    degrees: Float[np.ndarray, "*repetitions pairs"]
    half_width: Float[np.ndarray, "*repetitions pairs"]

    @property
    def low(self) -> Float[np.ndarray, "*repetitions pairs"]:
        """The lower ends of the simultaneous intervals."""
        return self.difference - self.half_width

    @property
    def high(self) -> Float[np.ndarray, "*repetitions pairs"]:
        """The upper ends of the simultaneous intervals."""
        return self.difference + self.half_width

    @property
    def is_different(self) -> Bool[np.ndarray, "*repetitions pairs"]:
        """Whether the interval of a pair excludes zero."""
        return np.abs(self.difference) > self.half_width

    @property
    def standard_error(self) -> Float[np.ndarray, "*repetitions pairs"]:
        """The standard errors of the differences, in the population of new seeds and new images."""
        return np.sqrt(self.seed_variance + self.image_variance)

    def p_values(self) -> Float[np.ndarray, "*repetitions pairs"]:
        """Return two-sided p values that are adjusted for the number of pairs."""
        systems = int(self.second.max()) + 1
        error = self.standard_error
        ratio = math.sqrt(2) * np.abs(self.difference) / np.where(error > 0, error, 1.0)
        p = 1 - range_probability(systems, np.where(error > 0, ratio, np.inf), self.degrees)
        return np.where(self.difference == 0, 1.0, np.maximum(p, 0.0))


def summarize(wrong: Iterable[Bool[np.ndarray, "_ images"]]) -> Runs:
    """Return what `compare` needs.

    Args:
      wrong: for each system, whether each run is wrong on each image, [seeds, images]. The images are the same ones in
        the same order; the number of seeds may differ. The systems are read one after the other, and one number for
        each image is kept of each.

    Raises:
      ValueError: there is no system, there are fewer than two images, or the numbers of images differ.
    """
    systems = [_summarize_system(runs) for runs in wrong]
    images = {len(one.wrong_seeds) for one in systems}
    if len(images) != 1 or max(images) < 2:
        raise ValueError("at least one system is needed, and all on the same images, two at least")
    seeds, means, variances, residuals = (
        np.array([getattr(one, key) for one in systems]) for key in ("seeds", "mean", "seed_variance", "residual")
    )
    covariances = _covariances([one.wrong_seeds for one in systems], seeds, means)
    return Runs(max(images), seeds, means, variances, residuals, covariances)


@dataclasses.dataclass(frozen=True)
class _SystemSummary:
    """The entries of `Runs` for one system, and on how many of its seeds each image is wrong."""

    wrong_seeds: UInt16[np.ndarray, " images"]
    seeds: int
    mean: float
    seed_variance: float
    residual: float


def _summarize_system(runs: Bool[np.ndarray, "seeds images"]) -> _SystemSummary:
    seeds, n_images = runs.shape
    shares = runs.mean(axis=0)
    variance = residual = math.nan
    if seeds > 1 and n_images > 1:
        variance = float(np.var(runs.mean(axis=1), ddof=1))
        within = np.mean(shares * (1 - shares)) * seeds / (seeds - 1)
        residual = float((within - variance) * n_images / (n_images - 1))
    return _SystemSummary(runs.sum(axis=0, dtype=np.uint16), seeds, float(shares.mean()), variance, residual)


def _covariances(
    wrong_seeds: Sequence[UInt16[np.ndarray, " images"]],
    seeds: Int[np.ndarray, " systems"],
    means: Float[np.ndarray, " systems"],
) -> Float[np.ndarray, "systems systems"]:
    """Return the sample covariance over images of the systems' shares of wrong seeds, from blocks of images."""
    n_images = len(wrong_seeds[0])
    total = np.zeros((len(seeds), len(seeds)))
    for begin in range(0, n_images, _BLOCK):
        counts = np.stack([one[begin : begin + _BLOCK] for one in wrong_seeds])
        deviations = counts / seeds[:, None] - means[:, None]
        total += deviations @ deviations.T
    return total / (n_images - 1)


def compare(runs: Runs, *, confidence: float = 0.95) -> Comparison:
    """Return the differences of all pairs of systems with simultaneous intervals for new seeds and new images.

    A system of one seed takes the pooled variance of the others.

    Args:
      runs: the result of `summarize`.
      confidence: coverage of all intervals at once, in (0, 1).

    Raises:
      ValueError: there are fewer than two systems, or none has two seeds, so that nothing is known of other seeds.
    """
    if len(runs.seeds) < 2:
        raise ValueError("at least two systems are needed")
    return _compare(runs, *np.triu_indices(len(runs.seeds), 1), confidence)


def _compare(
    runs: Runs, first: Int[np.ndarray, " pairs"], second: Int[np.ndarray, " pairs"], confidence: float
) -> Comparison:
    """Compare some of the pairs, with intervals that cover all pairs at once."""
    seeds = _seed_parts(runs.seeds, runs.seed_variances)
    residuals = np.where(runs.seeds > 1, runs.residuals, _pool(runs.residuals, runs.seeds - 1)) / runs.seeds
    seed_variance = seeds.variances[..., first] + seeds.variances[..., second]
    image_variance = _image_variance(runs, residuals, first, second)
    # The pooled parts of a pair are one estimate, its own parts are independent of each other.
    squares = (seeds.common[..., first] + seeds.common[..., second]) ** 2 / seeds.freedom
    squares += seeds.own_squares[..., first] + seeds.own_squares[..., second]
    degrees = _degrees(seed_variance, squares, seeds.freedom, image_variance, runs.images)
    half_width = critical_value(len(runs.seeds), degrees, confidence) * np.sqrt(seed_variance + image_variance)
    difference = runs.means[..., first] - runs.means[..., second]
    return Comparison(first, second, difference, seed_variance, image_variance, degrees, half_width)


def error_intervals(*groups: Runs, confidence: float = 0.95) -> Float[np.ndarray, "*repetitions systems 2"]:
    """Return the interval of each system's error rate for new seeds and new images, each for its system alone.

    It is Wilson's at the effective number of images, which gives a plain share the variance of the mean (Franco et al.
    2019, "Comparative study of confidence intervals for proportions in complex sample surveys"), with Student's
    quantile for the degrees of freedom. So it stays within [0, 1]. A mean of exactly 0 or 1 has no variance, and its
    effective number of images is the real one.

    Args:
      groups: results of `summarize`; the images of two groups may differ. Seed variances are pooled over all of them.
      confidence: coverage of each interval, in (0, 1).

    Raises:
      ValueError: no system has two seeds, so that nothing is known of other seeds.
    """
    from scipy.special import stdtrit

    seeds = np.concatenate([runs.seeds for runs in groups])
    means = np.concatenate([runs.means for runs in groups], axis=-1)
    parts = _seed_parts(seeds, np.concatenate([runs.seed_variances for runs in groups], axis=-1))
    residuals = np.concatenate([runs.residuals for runs in groups], axis=-1)
    residuals = np.where(seeds > 1, residuals, _pool(residuals, seeds - 1)) / seeds
    images = np.repeat([runs.images for runs in groups], [len(runs.seeds) for runs in groups])
    diagonals = [np.diagonal(runs.image_covariances, axis1=-2, axis2=-1) for runs in groups]
    image_variances = np.maximum(0.0, np.concatenate(diagonals, axis=-1) - residuals) / images
    squares = parts.common**2 / parts.freedom + parts.own_squares
    degrees = _degrees(parts.variances, squares, parts.freedom, image_variances, images)
    variances = parts.variances + image_variances
    spread = means * (1 - means)
    with np.errstate(divide="ignore", invalid="ignore"):
        effective = np.where(spread > 0, spread / variances, images)
    quantiles = stdtrit(np.minimum(degrees, 1e9), (1 + confidence) / 2)
    return np.stack(wilson_interval(means, effective, quantiles), axis=-1)


@dataclasses.dataclass(frozen=True)
class _SeedParts:
    """The parts of the variances of systems' means that seeds make, and what Satterthwaite's formula needs of them.

    Attributes:
      variances: of each system's mean, by new seeds.
      common: the same where the variance is the pooled one, and 0 elsewhere.
      own_squares: squared variance over its degrees of freedom where it is the system's own, and 0 elsewhere.
      freedom: degrees of freedom of the pooled variance.
    """

    variances: Float[np.ndarray, "*repetitions systems"]
    common: Float[np.ndarray, "*repetitions systems"]
    own_squares: Float[np.ndarray, "*repetitions systems"]
    freedom: int


def _seed_parts(
    seeds: Int[np.ndarray, " systems"], seed_variances: Float[np.ndarray, "*repetitions systems"]
) -> _SeedParts:
    freedom = seeds - 1
    if not freedom.any():
        raise ValueError("at least one system needs two seeds; nothing is known of the difference that seeds make")
    pooled = _pool(seed_variances, freedom)
    has_own = seed_variances > pooled  # False for NaN
    parts = np.where(has_own, seed_variances, pooled) / seeds
    own_squares = np.where(has_own, parts, 0.0) ** 2 / np.where(freedom > 1, OWN_FREEDOM * freedom, 1)
    return _SeedParts(parts, np.where(has_own, 0.0, parts), own_squares, int(freedom.sum()))


def _degrees(
    seed_variance: Float[np.ndarray, "..."],
    squares: Float[np.ndarray, "..."],
    freedom: int,
    image_variance: Float[np.ndarray, "..."],
    images: int | Int[np.ndarray, "..."],
) -> Float[np.ndarray, "..."]:
    """Return Satterthwaite's degrees of freedom of a variance by seeds and images; inf if it is 0.

    Args:
      seed_variance: the part of the seeds.
      squares: sum of its squared parts, each over its degrees of freedom.
      freedom: degrees of freedom of the pooled seed variance, which the part of the seeds cannot exceed.
      image_variance: the part of the images.
      images: number of images.
    """
    squares = np.maximum(squares, seed_variance**2 / freedom) + image_variance**2 / (images - 1)
    return np.where(squares > 0, (seed_variance + image_variance) ** 2 / np.where(squares > 0, squares, 1.0), np.inf)


def _pool(
    variances: Float[np.ndarray, "*repetitions systems"], freedom: Int[np.ndarray, " systems"]
) -> Float[np.ndarray, "*repetitions 1"]:
    """Return the mean of variances, weighted by their degrees of freedom."""
    return np.where(freedom > 0, variances, 0.0) @ freedom[:, None] / freedom.sum()


def _image_variance(
    runs: Runs,
    residuals: Float[np.ndarray, "*repetitions systems"],
    first: Int[np.ndarray, " pairs"],
    second: Int[np.ndarray, " pairs"],
) -> Float[np.ndarray, "*repetitions pairs"]:
    """Return the variance of each difference by images, var(b_i - b_j) / K.

    The variance over images of the difference of two shares of wrong seeds has the residuals in it, which the seeds'
    variance has as well; `residuals` are those of means over seeds.
    """
    covariances = runs.image_covariances
    diagonal = np.diagonal(covariances, axis1=-2, axis2=-1)
    total = diagonal[..., first] + diagonal[..., second] - 2 * covariances[..., first, second]
    return np.maximum(0.0, total - residuals[..., first] - residuals[..., second]) / runs.images


def critical_value(
    systems: int, degrees: Float[np.ndarray, "..."], confidence: float = 0.95
) -> Float[np.ndarray, "..."]:
    """Return Tukey's and Kramer's multiple of the standard error of a difference, for all pairs of the systems.

    It is the quantile of the studentized range over the root of two; for two systems that is Student's quantile.
    """
    inverse = 1 / np.asarray(degrees, float)
    return np.exp(_log_critical(systems, confidence)(np.minimum(inverse, 1.0)))


@functools.cache
def _log_critical(systems: int, confidence: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return the logarithm of the critical value as a function of 1 / degrees of freedom, in [0, 1]."""
    from scipy.interpolate import PchipInterpolator
    from scipy.optimize import brentq

    grid, probabilities = _normal_range(systems)

    def excess(quantile: float, scales: np.ndarray) -> float:
        return float(np.interp(quantile * scales, grid, probabilities).mean()) - confidence

    inverse = [1 / node for node in reversed(_NODES)]
    quantiles = [brentq(excess, 0.0, 1e6, args=(_scales(np.array(node)),)) for node in reversed(_NODES)]
    return PchipInterpolator(inverse, np.log(np.array(quantiles) / math.sqrt(2)))


def range_probability(
    systems: int, quantile: Float[np.ndarray, "..."], degrees: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    """Return the distribution function of the studentized range, to five digits.

    `scipy.stats.studentized_range` takes up to half a second for one quantile, and a comparison needs a dozen.

    Args:
      systems: number of independent standard normal variables whose range is taken.
      quantile: of the range over the root of an independent chi-squared variable per degree of freedom.
      degrees: degrees of freedom of that variable, at least 1; inf: it is 1.
    """
    grid, probabilities = _normal_range(systems)
    return np.interp(np.asarray(quantile)[..., None] * _scales(degrees), grid, probabilities).mean(-1)


def _scales(degrees: Float[np.ndarray, "..."]) -> Float[np.ndarray, "... levels"]:
    """Return evenly spaced quantiles of the root of a chi-squared variable per degree of freedom."""
    from scipy.special import gammaincinv

    levels = (np.arange(_LEVELS) + 0.5) / _LEVELS
    is_finite = np.isfinite(degrees)[..., None]
    finite = np.where(is_finite, np.asarray(degrees)[..., None], 1.0)
    return np.where(is_finite, np.sqrt(2 * gammaincinv(finite / 2, levels) / finite), 1.0)


@functools.cache
def _normal_range(systems: int) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Return ranges of independent standard normal variables and the probability of a smaller one."""
    from scipy.special import ndtr

    grid = np.linspace(0, 16, 1601)
    largest = np.linspace(-9, 9, 181)  # the trapezoidal rule is exact to rounding for such integrands
    density = np.exp(-(largest**2) / 2) / math.sqrt(2 * math.pi)
    between = ndtr(largest) - ndtr(largest - grid[:, None])
    return grid, systems * np.trapezoid(density * between ** (systems - 1), largest, axis=1)


# --- planning ----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Noise:
    """Differences of runs by chance, assumed for a plan; the same for all systems.

    Attributes:
      seed_deviation: standard deviation over seeds of a recipe's error on all images, as a share.
      disagreement: share of images on which one of two systems is right and the other wrong, each with one seed.
      seed_disagreement: the same for two seeds of one system.
    """

    seed_deviation: float
    disagreement: float
    seed_disagreement: float

    def variances(self, seeds: int, images: int) -> tuple[float, float]:
        """Return the variances of a difference of two systems by seeds and by images, as in `Comparison`."""
        by_seeds = (2 * self.seed_deviation**2 + self.seed_disagreement / images) / seeds
        return by_seeds, max(0.0, self.disagreement - self.seed_disagreement) / images


def power(systems: int, seeds: int, images: int, gap: float, noise: Noise, *, confidence: float = 0.95) -> float:
    """Return the probability that the interval of a pair with a true difference of `gap` excludes zero.

    It is averaged over 4,000 draws of the seed variances that `compare` would estimate, the same in each call.

    Args:
      systems: number of systems that are compared, at least 2.
      seeds: number of seeds of each, at least 2.
      images: number of images.
      gap: true difference of the errors of two of them, as a share.
      noise: how much runs differ by chance.
      confidence: coverage of all intervals at once, in (0, 1).

    Raises:
      ValueError: there are fewer than two systems or seeds.
    """
    _check_plan(systems, seeds)
    (half_widths,), (deviation,) = _drawn_half_widths([seeds] * systems, [(0, 1)], images, noise, confidence)
    return _mean_power(gap, half_widths, deviation)


def minimal_gap(
    systems: int, seeds: int, images: int, noise: Noise, *, wanted: float = 0.8, confidence: float = 0.95
) -> float:
    """Return the smallest true difference, as a share, that `power` finds with the wanted probability.

    Args:
      systems: number of systems that are compared, at least 2.
      seeds: number of seeds of each, at least 2.
      images: number of images.
      noise: how much runs differ by chance.
      wanted: probability to find the difference, above 1 - confidence.
      confidence: coverage of all intervals at once, in (0, 1).

    Raises:
      ValueError: there are fewer than two systems or seeds.
    """
    _check_plan(systems, seeds)
    return minimal_gaps([seeds] * systems, images, noise, wanted=wanted, confidence=confidence)[0]


def minimal_gaps(
    seeds: Sequence[int], images: int, noise: Noise, *, wanted: float = 0.8, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the smallest true difference that is found with the wanted probability, for the best and the worst pair.

    Args:
      seeds: number of seeds of each of at least two systems; pairs differ only by these. One of them is at least 2.
      images: number of images.
      noise: how much runs differ by chance.
      wanted: probability to find the difference, above 1 - confidence.
      confidence: coverage of all intervals at once, in (0, 1).

    Raises:
      ValueError: there are fewer than two systems, or none has two seeds.
    """
    if len(seeds) < 2:
        raise ValueError("at least two systems are needed")
    kinds: dict[tuple[int, ...], tuple[int, int]] = {}  # the first pair of each
    for pair in itertools.combinations(range(len(seeds)), 2):
        kinds.setdefault(tuple(sorted(seeds[system] for system in pair)), pair)
    drawn = _drawn_half_widths(seeds, list(kinds.values()), images, noise, confidence)
    gaps = [_gap_found(half_widths, deviation, wanted) for half_widths, deviation in zip(*drawn, strict=True)]
    return min(gaps), max(gaps)


def _check_plan(systems: int, seeds: int) -> None:
    if systems < 2 or seeds < 2:
        raise ValueError("at least two systems with two seeds each are needed")


def _gap_found(half_widths: Float[np.ndarray, " draws"], deviation: float, wanted: float) -> float:
    """Return the smallest true difference that is found with the wanted probability."""
    from scipy.optimize import brentq

    if deviation == 0:
        return 0.0
    largest = float(half_widths.max()) + 10 * deviation
    return cast(float, brentq(lambda gap: _mean_power(gap, half_widths, deviation) - wanted, 0.0, largest))


def noise_of(runs: Runs) -> Noise:
    """Return the noise of finished runs, averaged over systems, for a plan of more of them.

    Raises:
      ValueError: no system has two seeds.
    """
    freedom = runs.seeds - 1
    if not freedom.any():
        raise ValueError("at least one system needs two seeds")
    residual = float(_pool(runs.residuals, freedom)[0])
    variance = float(_pool(runs.seed_variances, freedom)[0]) - residual / runs.images
    pairs = compare(runs)
    images = float(np.mean(pairs.image_variance)) * runs.images
    return Noise(math.sqrt(max(0.0, variance)), images + 2 * residual, 2 * residual)


def _drawn_half_widths(
    seeds: Sequence[int], pairs: Sequence[tuple[int, int]], images: int, noise: Noise, confidence: float
) -> tuple[Float[np.ndarray, "pairs draws"], Float[np.ndarray, " pairs"]]:
    """Return drawn half-widths of the intervals of pairs, and the true standard deviations of their differences."""
    counts = np.array(seeds)
    freedom, systems = counts - 1, len(seeds)
    by_seed, by_images = noise.variances(1, images)[0] / 2, noise.variances(1, images)[1]
    drawn = np.random.default_rng(0).chisquare(np.maximum(freedom, 1), (_DRAWS, systems)) / np.maximum(freedom, 1)
    covariance = by_images * images / 2 * np.eye(systems)
    residuals = np.zeros(systems)  # `covariance` has none
    shape = (_DRAWS, systems)
    runs = Runs(
        images,
        counts,
        np.zeros(shape),
        np.where(freedom > 0, drawn * by_seed, np.nan),
        np.broadcast_to(residuals, shape),
        np.broadcast_to(covariance, (_DRAWS, systems, systems)),
    )
    first, second = np.array(pairs).T
    deviations = np.sqrt(by_seed / counts[first] + by_seed / counts[second] + by_images)
    return _compare(runs, first, second, confidence).half_width.T, deviations


def _mean_power(gap: float, half_widths: Float[np.ndarray, " draws"], deviation: float) -> float:
    from scipy.special import ndtr

    if deviation == 0:
        return float(gap != 0)
    return float(np.mean(ndtr((gap - half_widths) / deviation) + ndtr((-gap - half_widths) / deviation)))

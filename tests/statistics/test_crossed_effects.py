"""Comparisons in a population of new seeds and new images."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from imagenet_repro.statistics.crossed_effects import (
    Noise,
    Runs,
    compare,
    critical_value,
    error_intervals,
    minimal_gap,
    minimal_gaps,
    noise_of,
    power,
    range_probability,
    summarize,
)

LEVEL = 0.05


def outcomes(seeds=(3, 4, 2), images=500, seed=0, seed_deviation=0.03):
    """Return whether runs are wrong, with images that are hard for all, and for each system."""
    rng = np.random.default_rng(seed)
    hardness = rng.normal(-1, 1, images)
    runs = []
    for n in seeds:
        own = hardness + rng.normal(0, 0.5, images)
        runs.append(own + rng.normal(0, seed_deviation, (n, 1)) + rng.normal(0, 0.5, (n, images)) > 0)
    return runs


def analysis_of_variance(table):
    """Return the mean squares of rows, columns and residuals of a table without replication, by their definitions."""
    rows, columns = table.shape
    by_row, by_column, mean = table.mean(1, keepdims=True), table.mean(0, keepdims=True), table.mean()
    squares = (
        columns * np.sum((by_row - mean) ** 2) / (rows - 1),
        rows * np.sum((by_column - mean) ** 2) / (columns - 1),
        np.sum((table - by_row - by_column + mean) ** 2) / ((rows - 1) * (columns - 1)),
    )
    return tuple(map(float, squares))


def test_variances_are_those_of_the_analysis_of_variance():
    wrong = outcomes()
    runs = summarize(wrong)
    for system, table in enumerate(wrong):
        by_seed, by_image, residual = analysis_of_variance(table.astype(float))
        assert runs.means[system] == pytest.approx(table.mean())
        assert runs.seed_variances[system] == pytest.approx(by_seed / table.shape[1])
        assert runs.residuals[system] == pytest.approx(residual)
        assert runs.image_covariances[system, system] == pytest.approx(by_image / len(table))


def test_covariances_over_many_images_are_those_of_all_images_at_once():
    wrong = outcomes(images=10_007)
    runs = summarize(iter(wrong))
    expected = np.cov([table.mean(axis=0) for table in wrong])
    np.testing.assert_allclose(runs.image_covariances, expected, rtol=1e-12)


def test_equal_systems_of_two_by_hand():
    """With equal variances the interval is Student's with pooled variance, and images add their own part."""
    wrong = outcomes((4, 4))
    runs = summarize(wrong)
    runs = Runs(runs.images, runs.seeds, runs.means, np.full(2, 1e-3), runs.residuals, runs.image_covariances)
    pairs = compare(runs)
    difference = wrong[0].mean(0) - wrong[1].mean(0)
    by_images = (np.var(difference, ddof=1) - runs.residuals.sum() / 4) / 500
    by_seeds = 2 * 1e-3 / 4
    degrees = (by_seeds + by_images) ** 2 / (by_seeds**2 / 6 + by_images**2 / 499)
    half_width = stats.t.ppf(0.975, degrees) * np.sqrt(by_seeds + by_images)
    assert pairs.seed_variance == pytest.approx([by_seeds])
    assert pairs.image_variance == pytest.approx([by_images])
    assert pairs.degrees == pytest.approx([degrees])
    assert pairs.half_width == pytest.approx([half_width], rel=2e-4)
    assert pairs.low[0] + half_width == pytest.approx(difference.mean(), rel=1e-3)
    expected = 2 * stats.t.sf(abs(difference.mean()) / np.sqrt(by_seeds + by_images), degrees)
    assert pairs.p_values() == pytest.approx([expected], abs=1e-5)


def test_intervals_and_p_values_agree():
    wrong = outcomes((3, 3, 3, 3))
    wrong[2] = wrong[2] | outcomes((3,), seed=1)[0]
    pairs = compare(summarize(wrong))
    assert (pairs.p_values() < LEVEL).tolist() == pairs.is_different.tolist()
    assert pairs.is_different.any()
    assert not pairs.is_different.all()
    assert ((pairs.low > 0) | (pairs.high < 0)).tolist() == pairs.is_different.tolist()


@pytest.mark.parametrize("systems", [3, 11])
def test_quantiles_and_probabilities_of_the_studentized_range_are_scipys(systems):
    degrees = np.array([1.8, 3.4, 12.0, np.inf])
    result = critical_value(systems, degrees, 0.9)
    assert range_probability(systems, np.sqrt(2) * result, degrees) == pytest.approx([0.9] * 4, abs=1e-4)
    assert stats.studentized_range.cdf(np.sqrt(2) * result, systems, degrees) == pytest.approx([0.9] * 4, abs=1e-4)


def test_the_quantiles_of_two_systems_are_students():
    degrees = np.array([1.0, 1.5, 4.2, 30.0, np.inf])
    assert critical_value(2, degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=2e-4)


def test_the_order_of_images_and_systems_does_not_matter():
    wrong = outcomes()
    shuffled = np.random.default_rng(0).permutation(500)
    pairs = compare(summarize(wrong))
    other = compare(summarize([wrong[k][:, shuffled] for k in (2, 1, 0)]))
    assert other.difference == pytest.approx(-pairs.difference[[2, 1, 0]])
    assert other.half_width == pytest.approx(pairs.half_width[[2, 1, 0]])


def test_a_system_of_one_seed_takes_the_variance_of_the_others():
    wrong = outcomes((3, 3, 1))
    runs = summarize(wrong)
    pairs = compare(runs)
    pooled = np.mean(runs.seed_variances[:2])
    assert np.isnan(runs.seed_variances[2])
    assert np.isfinite(pairs.half_width).all()
    own = max(runs.seed_variances[0], pooled) / 3
    assert pairs.seed_variance[1] == pytest.approx(own + pooled)
    with pytest.raises(ValueError, match="at least one system needs two seeds"):
        compare(summarize(outcomes((1, 1))))
    with pytest.raises(ValueError, match="at least one system needs two seeds"):
        noise_of(summarize(outcomes((1, 1))))


def test_systems_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="at least two systems"):
        compare(summarize(outcomes((3,))))
    with pytest.raises(ValueError, match="at least two systems"):
        minimal_gaps([3], 1000, Noise(0.001, 0.1, 0.05))
    with pytest.raises(ValueError, match="at least one system is needed"):
        summarize([])
    with pytest.raises(ValueError, match="same images"):
        summarize([np.zeros((2, 5), bool), np.zeros((2, 6), bool)])
    with pytest.raises(ValueError, match="two seeds each"):
        power(5, 1, 1000, 0.1, Noise(0.001, 0.1, 0.05))


def test_runs_that_never_differ_have_no_interval():
    pairs = compare(summarize([np.eye(3, 50, dtype=bool)[[0, 0, 0]]] * 3))
    assert (pairs.difference == 0).all()
    assert (pairs.half_width == 0).all()
    assert (pairs.p_values() == 1).all()
    assert not pairs.is_different.any()


def drawn_runs(deviations, seeds, image_deviation=0.0006, repetitions=4_000):
    """Return runs whose errors and image effects are normal, as they nearly are with many images."""
    rng = np.random.default_rng(0)
    systems, images = len(deviations), 10_000
    errors = rng.normal(0, np.array(deviations)[:, None], (repetitions, systems, seeds))
    errors += rng.normal(0, image_deviation, (repetitions, systems, 1))
    covariance = np.eye(systems) * image_deviation**2 * images
    shape = repetitions, systems
    return Runs(
        images,
        np.full(systems, seeds),
        errors.mean(2),
        errors.var(2, ddof=1),
        np.zeros(shape),
        np.broadcast_to(covariance, (*shape, systems)),
    )


@pytest.mark.parametrize("seeds", [2, 3, 9])
@pytest.mark.parametrize("deviations", [(0.002,) * 5, (0.002,) * 11, (0.001,) * 2 + (0.003,) * 3])
def test_recipes_that_are_equal_are_seldom_called_different(deviations, seeds):
    """The family-wise error is at most 5 %, and the intervals are not much too wide: three standard errors are 1 %."""
    pairs = compare(drawn_runs(deviations, seeds))
    wrong_claims = pairs.is_different.any(1).mean()
    assert 0.02 - 0.007 <= wrong_claims <= LEVEL + 0.01


def test_pooling_alone_would_call_too_many_equal_recipes_different():
    """The reason why a system's larger variance replaces the pooled one."""
    runs = drawn_runs((0.001,) * 9 + (0.003,) * 2, 3)
    pooled = np.broadcast_to(runs.seed_variances.mean(-1, keepdims=True), runs.seed_variances.shape)
    alone = compare(Runs(runs.images, runs.seeds, runs.means, pooled, runs.residuals, runs.image_covariances))
    assert alone.is_different.any(1).mean() > 2 * LEVEL
    assert compare(runs).is_different.any(1).mean() <= LEVEL + 0.01


@pytest.mark.parametrize(("deviations", "seeds"), [((0.002,) * 5, 3), ((0.002,), 3), ((0.001,) * 4 + (0.003,), 2)])
def test_intervals_of_single_systems_cover_the_population(deviations, seeds):
    """They cover 95 % on average over systems, and nearly so for one whose seeds differ more than the others'."""
    runs = drawn_runs(deviations, seeds, image_deviation=0.002)
    runs = dataclasses.replace(runs, means=runs.means + 0.3)
    low, high = np.moveaxis(error_intervals(runs), -1, 0)
    covered = ((low <= 0.3) & (high >= 0.3)).mean(0)
    assert covered.min() >= 0.92
    assert 0.94 <= covered.mean() <= 0.975


def test_the_interval_of_one_system_is_students_over_seeds_and_images():
    (wrong,) = outcomes((4,), images=2_000, seed_deviation=0.3)
    runs = summarize([wrong])
    ((low, high),) = error_intervals(runs)
    by_image = (np.var(wrong.mean(0), ddof=1) - runs.residuals[0] / 4) / 2_000
    by_seed = runs.seed_variances[0] / 4
    degrees = (by_image + by_seed) ** 2 / (by_seed**2 / 3 + by_image**2 / 1_999)
    half = stats.t.ppf(0.975, degrees) * np.sqrt(by_image + by_seed)
    assert (high - low) / 2 == pytest.approx(half, rel=0.02)  # Wilson's is a little narrower, towards one half
    assert (low + high) / 2 == pytest.approx(wrong.mean(), abs=half / 10)


def test_intervals_of_systems_on_different_images_share_the_variance_of_seeds():
    wrong = outcomes((3, 1))
    together = error_intervals(summarize(wrong))
    apart = error_intervals(summarize(wrong[:1]), summarize(wrong[1:]))
    assert apart == pytest.approx(together)
    with pytest.raises(ValueError, match="at least one system needs two seeds"):
        error_intervals(summarize(outcomes((1,))))


def test_an_error_of_zero_has_wilsons_interval_or_a_wider_one():
    wrong = [np.zeros((3, 500), bool), *outcomes((3,))]
    low, high = error_intervals(summarize(wrong))[0]
    wilson = stats.binomtest(0, 500).proportion_ci(method="wilson")
    assert low == 0.0
    assert wilson.high <= high < 4 * wilson.high


def test_the_gaps_of_a_plan_lie_between_those_of_its_best_and_its_worst_pair():
    noise = Noise(0.002, 0.1, 0.075)
    low, high = minimal_gaps([3, 3, 1, 1], 50_000, noise)
    assert low < high
    assert minimal_gaps([3] * 4, 50_000, noise) == (minimal_gap(4, 3, 50_000, noise),) * 2
    assert minimal_gap(4, 3, 50_000, noise) < low  # fewer seeds tell less of the seeds' variance


def test_planned_power_is_found():
    noise = Noise(seed_deviation=0.002, disagreement=2 * 0.0006**2 * 10_000, seed_disagreement=0)
    gap = minimal_gap(5, 3, 10_000, noise)
    assert power(5, 3, 10_000, gap, noise) == pytest.approx(0.8)
    runs = drawn_runs((0.002,) * 5, 3)
    runs.means[:, -1] += gap
    pairs = compare(runs)
    assert pairs.is_different[:, pairs.second == 4].mean() == pytest.approx(0.8, abs=0.02)
    assert power(5, 3, 10_000, 0.0, noise) < LEVEL
    assert (
        minimal_gap(5, 9, 10_000, noise) < minimal_gap(5, 5, 10_000, noise) < gap < minimal_gap(11, 3, 10_000, noise)
    )
    assert minimal_gap(5, 3, 1_000, noise) > gap


def test_noise_of_finished_runs_plans_the_same_standard_error():
    runs = summarize(outcomes((5, 5, 5), images=4_000, seed_deviation=0.2))
    noise = noise_of(runs)
    by_seeds, by_images = noise.variances(5, 4_000)
    assert by_seeds == pytest.approx(2 * runs.seed_variances.mean() / 5)
    assert by_images == pytest.approx(compare(runs).image_variance.mean())
    wrong = outcomes((5, 5, 5), images=4_000, seed_deviation=0.2)
    observed = np.mean(
        [wrong[a][s] != wrong[b][t] for a, b in ((0, 1), (0, 2), (1, 2)) for s in range(5) for t in range(5)]
    )
    assert noise.disagreement == pytest.approx(observed, rel=0.05)
    assert noise.seed_disagreement == pytest.approx(np.mean([w[0] != w[1] for w in wrong]), rel=0.1)


@pytest.mark.slow
def test_variance_components_are_those_of_statsmodels():
    formula = pytest.importorskip("statsmodels.regression.mixed_linear_model").MixedLM.from_formula
    import pandas

    (table,) = (runs for runs in outcomes((8,), images=60, seed_deviation=0.6))
    seed, image = np.indices(table.shape)
    data = pandas.DataFrame({"error": table.ravel().astype(float), "seed": seed.ravel(), "image": image.ravel()})
    model = formula(
        "error ~ 1", data, groups=np.ones(len(data)), vc_formula={"seed": "0 + C(seed)", "image": "0 + C(image)"}
    ).fit(reml=True)
    components = dict(zip(model.model.exog_vc.names, model.vcomp, strict=True))
    runs = summarize([table, table])
    residual = runs.residuals[0]
    assert model.scale == pytest.approx(residual, rel=0.01)
    assert components["seed"] == pytest.approx(runs.seed_variances[0] - residual / 60, rel=0.02)
    assert components["image"] == pytest.approx(runs.image_covariances[0, 0] - residual / 8, rel=0.02)

import numpy as np
import pytest
from scipy import stats

from benchmarks import recipe_differences
from benchmarks.recipe_differences import Setting
from imagenet_repro.statistics.crossed_effects import summarize
from imagenet_repro.statistics.hypothesis_tests import mcnemar_p, sign_flip_p

SETTING = Setting((0.02, 0.02, 0.04), seeds=4, images=200, disagreement=0.1)


def test_counts_have_the_moments_of_images():
    rng = np.random.default_rng(0)
    counted = recipe_differences.draw(SETTING, 20_000, rng).runs
    drawn = [summarize(wrong) for wrong in recipe_differences.draw_images(SETTING, 900, rng)]
    for name, tolerance in {
        "means": 0.01,
        "seed_variances": 0.1,
        "residuals": 0.02,
        "image_covariances": 0.02,
    }.items():
        images = np.mean([getattr(runs, name) for runs in drawn], axis=0)
        np.testing.assert_allclose(getattr(counted, name).mean(0), images, rtol=tolerance, err_msg=name)
    spread = np.std([runs.means[0] - runs.means[1] for runs in drawn])
    assert (counted.means[:, 0] - counted.means[:, 1]).std() == pytest.approx(spread, rel=0.06)


def test_runs_disagree_as_the_setting_says():
    wrong = next(recipe_differences.draw_images(Setting((1e-4,) * 2, 2, 200_000, 0.1), 1, np.random.default_rng(0)))
    assert np.mean(wrong[0][0] != wrong[1][0]) == pytest.approx(0.1, rel=0.02)
    assert np.mean(wrong[0][0] != wrong[0][1]) == pytest.approx(SETTING.noise.seed_disagreement, rel=0.02)


def test_todays_tests_are_those_of_the_package():
    setting = Setting((0.003,) * 3, 9, 1_000, 0.1, gap=0.01)
    drawn = recipe_differences.draw(setting, 3, np.random.default_rng(0))
    t, half_widths = recipe_differences.paired_t(drawn)
    flips = recipe_differences.sign_flips(drawn)
    first = recipe_differences.first_seed(drawn, np.random.default_rng(0))
    for repetition, (pair, (a, b)) in ((r, p) for r in range(3) for p in enumerate(((0, 1), (0, 2), (1, 2)))):
        errors = drawn.errors[repetition]
        reference = stats.ttest_rel(errors[a], errors[b])
        interval = reference.confidence_interval(0.95)
        assert t[repetition, pair] == pytest.approx(reference.pvalue)
        assert half_widths[repetition, pair] == pytest.approx((interval.high - interval.low) / 2)
        assert flips[repetition, pair] == sign_flip_p(errors[a] - errors[b])
        # The difference is that of the first seed; how many images both get wrong is drawn.
        gap = round(abs(errors[a][0] - errors[b][0]) * 1_000)
        assert min(abs(mcnemar_p(np.arange(400) + gap, np.arange(400)) - first[repetition, pair])) < 1e-9
    assert recipe_differences.rejections(np.array([[0.01, 0.03, 0.02], [0.02, 0.03, 0.2]])).tolist() == [
        [True, True, True],
        [False, False, False],
    ]
    assert (recipe_differences.sign_flips(recipe_differences.draw(SETTING, 2, np.random.default_rng(0))) == 1).all()


@pytest.mark.slow
def test_a_small_table():
    lines = recipe_differences.power_table(2, np.random.default_rng(0))
    assert len(lines) == 2 + 2 * 3 * 2 * 2 * 4
    assert recipe_differences.percent([0.01, 0.025]) == "1.0 to 2.5"
    assert recipe_differences.percent([0.01, 0.01]) == "1.0"

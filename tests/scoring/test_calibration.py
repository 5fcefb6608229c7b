import numpy as np
import pytest
import scipy.optimize
import scipy.special
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve

from imagenet_repro.errors import UserError
from imagenet_repro.scoring import calibration
from tests.scoring import synthetic_predictions
from tests.scoring.synthetic_predictions import replace


def judged(confidence, right):
    """Return scored probabilities with these confidences; the other fields do not matter."""
    confidence, right = np.asarray(confidence, float), np.asarray(right, bool)
    return calibration.ScoredProbabilities(confidence, right, np.zeros(len(right)), np.zeros(len(right)))


# --- likelihood, Brier score ------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_measures_are_scikit_learns(temperature):
    predicted = synthetic_predictions.calibrated(images=700, classes=6)
    ours = calibration.score_probabilities(predicted, temperature)
    probabilities = scipy.special.softmax(predicted.logits.astype(np.float64) / temperature, axis=1)
    assert ours.negative_log_likelihood == pytest.approx(sklearn_metrics.log_loss(predicted.label, probabilities))
    assert ours.brier == pytest.approx(np.sum((probabilities - np.eye(6)[predicted.label]) ** 2, axis=1).mean())
    np.testing.assert_allclose(ours.confidence, probabilities.max(axis=1))
    assert ours.error == pytest.approx(predicted.error_rates().top1_error)


def test_excluded_classes_have_no_probability():
    predicted = synthetic_predictions.from_logits([[0.0, -np.inf, 1.0], [1.0, -np.inf, 0.0]], [2, 2])
    ours = calibration.score_probabilities(predicted)
    assert ours.confidence[0] == pytest.approx(scipy.special.expit(1.0))
    assert np.isfinite(ours.surprise).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: replace(f, label=np.full(len(f), -1, np.int32)), "images without labels"),
        (
            lambda f: replace(f, logits=np.where(f.label[:, None] == np.arange(4), np.nan, 0)),
            "30 images have no",
        ),
        (
            lambda f: replace(f, logits=np.where(f.label[:, None] == np.arange(4), -np.inf, 0)),
            "30 images have",
        ),
        (
            lambda f: replace(f, logits=np.full((30, 4), np.inf)),
            r"validation/00000, .* and 27 more",
        ),
    ],
)
def test_scores_without_a_probability_for_the_label(change, message):
    predicted = change(synthetic_predictions.calibrated(images=30, classes=4))
    for measure in (calibration.score_probabilities, calibration.fit_temperature):
        with pytest.raises(UserError, match=message):
            measure(predicted)


# --- calibration error ------------------------------------------------------------------------------------------


def test_calibration_error_in_closed_form():
    """Use ten images at 0.95 with eight right, and ten at 0.55 with six right."""
    one = judged(np.repeat([0.95, 0.55], 10), [True] * 8 + [False] * 2 + [True] * 6 + [False] * 4)
    bins = calibration.bin_images(one, "width")
    assert bins.images.tolist() == [10, 10]
    assert bins.error == pytest.approx((0.15 + 0.05) / 2)


def test_bins_of_equal_width_are_scikit_learns():
    one = calibration.score_probabilities(synthetic_predictions.calibrated(images=900, sharpness=1.7))
    bins = calibration.bin_images(one, "width")
    accuracy, confidence = calibration_curve(one.right, one.confidence, n_bins=15)
    np.testing.assert_allclose(bins.accuracy, accuracy)
    np.testing.assert_allclose(bins.confidence, confidence)
    assert bins.images.sum() == 900


def test_edges_belong_to_the_lower_bin():
    assert calibration.bin_indices(np.array([1e-9, 1 / 15, 1 / 15 + 1e-9, 1.0]), "width").tolist() == [0, 0, 1, 14]


def test_bins_of_equal_mass_have_equal_numbers_of_images_in_order():
    confidence = np.random.default_rng(0).random(1000) ** 3
    bins_of_images = calibration.bin_indices(confidence, "mass")
    assert set(np.bincount(bins_of_images).tolist()) == {66, 67}
    assert np.all(np.diff(bins_of_images[np.argsort(confidence)]) >= 0)


@pytest.mark.parametrize("binning", ["width", "mass"])
def test_the_error_of_a_calibrated_model_is_the_bias(binning):
    """Check that errors over many draws of labels have the mean and the bound that are computed from one draw."""
    scored = [
        calibration.score_probabilities(synthetic_predictions.calibrated(images=500, seed=seed)) for seed in range(60)
    ]
    errors = np.array([calibration.bin_images(one, binning).error for one in scored])
    chance = [calibration.chance_error(one, binning) for one in scored[:5]]
    mean, high = np.mean([one.mean for one in chance]), np.mean([one.high for one in chance])
    assert errors.mean() == pytest.approx(mean, rel=0.08)
    assert np.mean(errors > high) < 0.15
    debiased = np.mean([calibration.bin_images(one, binning).debiased for one in scored])
    assert 0 < debiased < 0.75 * errors.mean()  # only a part is subtracted, as the docstring states


def test_the_bias_of_a_certain_system_in_closed_form():
    """Use one bin of n images at 1/2: the bias is the mean absolute deviation of a binomial share."""
    one = judged(np.full(40, 0.5), np.arange(40) % 2)
    counts = np.arange(41)
    expected = scipy.special.binom(40, counts) / 2.0**40 @ np.abs(counts / 40 - 0.5)
    assert calibration.chance_error(one, "width").mean == pytest.approx(expected, rel=0.1)
    assert calibration.chance_error(judged(np.ones(40), np.ones(40)), "width").mean == 0


def test_the_subtracted_bias_is_that_of_normal_draws():
    one = calibration.score_probabilities(synthetic_predictions.calibrated(images=600, sharpness=1.3))
    bins = calibration.bin_images(one, "mass")
    deviation = np.sqrt(bins.accuracy * (1 - bins.accuracy) / bins.images)
    draws = np.random.default_rng(0).normal(bins.accuracy, deviation, size=(20_000, len(bins.images)))
    again = np.abs(draws - bins.confidence) @ bins.images / bins.images.sum()
    assert bins.debiased == pytest.approx(2 * bins.error - again.mean(), abs=2e-4)


def test_a_large_error_is_hardly_changed():
    bins = calibration.bin_images(
        calibration.score_probabilities(synthetic_predictions.calibrated(images=4000, sharpness=3.0)), "width"
    )
    assert bins.error > 0.15
    assert bins.debiased == pytest.approx(bins.error, rel=0.02)


# --- temperature ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.0])
def test_the_temperature_equals_scipys_and_inverts_a_known_scaling(sharpness):
    predicted = synthetic_predictions.calibrated(images=3000, sharpness=sharpness)
    logits = predicted.logits.astype(np.float64)

    def surprise(logarithm):
        logs = scipy.special.log_softmax(logits / np.exp(logarithm), axis=1)
        return -logs[np.arange(len(predicted)), predicted.label].mean()

    best = scipy.optimize.minimize_scalar(surprise, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9})
    temperature = calibration.fit_temperature(predicted)
    assert temperature == pytest.approx(np.exp(best.x), rel=1e-5)
    assert temperature == pytest.approx(sharpness, rel=0.08)
    other = synthetic_predictions.calibrated(images=3000, sharpness=sharpness, seed=1)
    after = calibration.score_probabilities(other, temperature)
    chance = calibration.chance_error(after, "width")
    assert calibration.bin_images(after, "width").error < 1.5 * chance.high


def test_excluded_classes_do_not_change_the_temperature():
    predicted = synthetic_predictions.calibrated(images=500)
    ruled_out = np.column_stack([predicted.logits, np.full(500, -np.inf)]).astype(np.float16)
    wider = replace(predicted, logits=ruled_out)
    assert calibration.fit_temperature(wider) == pytest.approx(calibration.fit_temperature(predicted))


def test_no_temperature_is_fitted_where_no_optimum_exists():
    label = np.arange(20) % 4
    always = synthetic_predictions.from_logits(np.eye(4)[label], label)
    with pytest.raises(UserError, match="lower ones are always better"):
        calibration.fit_temperature(always)
    never = synthetic_predictions.from_logits(-np.eye(4)[label], label)
    with pytest.raises(UserError, match="higher ones are always better"):
        calibration.fit_temperature(never)


# --- risk -------------------------------------------------------------------------------------------------------


def test_risk_is_the_error_among_the_most_confident():
    one = judged([0.9, 0.5, 0.7, 0.6], [True, False, False, True])
    curve = calibration.risk_curve(one)
    np.testing.assert_allclose(curve.coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve.risk, [0, 1 / 2, 1 / 3, 1 / 2])
    assert curve.area == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 4)
    np.testing.assert_allclose(calibration.best_risk_curve(one).risk, [0, 0, 1 / 3, 1 / 2])


def test_equal_confidences_are_averaged_over_their_orders():
    rng = np.random.default_rng(0)
    right = rng.random(200) < 0.7
    curve = calibration.risk_curve(judged(np.full(200, 0.7), right))
    np.testing.assert_allclose(curve.risk, 1 - right.mean())
    confidence = rng.integers(1, 9, size=200) / 8
    order = rng.permutation(200)
    ones = [
        calibration.risk_curve(one) for one in (judged(confidence, right), judged(confidence[order], right[order]))
    ]
    np.testing.assert_allclose(ones[0].risk, ones[1].risk)
    sure = confidence == 1
    assert ones[0].risk[sure.sum() - 1] == pytest.approx(1 - right[sure].mean())

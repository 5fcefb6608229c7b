import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss, top_k_accuracy_score

from imagenet_repro.errors import UserError
from imagenet_repro.scoring import metrics
from imagenet_repro.scoring.metrics import ErrorRates


def scores(images, classes, *, tied=False, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.integers(-2, 3, (images, classes)) if tied else rng.normal(size=(images, classes))
    return logits.astype(np.float32), rng.integers(0, classes, images).astype(np.int32)


def brute_force_order(row):
    return sorted(range(len(row)), key=lambda c: (-float(row[c]), c))


def counts(logits, labels, weights=None):
    weights = np.ones(len(labels), np.float32) if weights is None else weights
    result = jax.jit(metrics.correct_counts)(jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(weights))
    assert all(value.dtype == jnp.int32 for value in result.values())
    return {key: int(value) for key, value in result.items()}


@pytest.mark.parametrize("classes", [6, 10, 1000])
def test_counts_agree_with_scikit_learn_on_random_scores(classes):
    logits, labels = scores(500, classes)
    ours = counts(logits, labels)
    for k, key in ((1, "top1_correct"), (5, "top5_correct")):
        theirs = top_k_accuracy_score(labels, logits, k=k, labels=np.arange(classes), normalize=False)
        assert ours[key] == theirs


@pytest.mark.parametrize("classes", [2, 3, 5, 6, 100])
def test_counts_and_order_agree_with_brute_force_on_ties(classes):
    logits, labels = scores(300, classes, tied=True)
    order = np.array([brute_force_order(row) for row in logits])
    np.testing.assert_array_equal(metrics.top5(jnp.asarray(logits)), order[:, :5])
    ours = counts(logits, labels)
    assert ours["top1_correct"] == np.sum(order[:, 0] == labels)
    assert ours["top5_correct"] == np.sum(np.any(order[:, :5] == labels[:, None], axis=1))


def test_scikit_learn_on_ties_differs_only_by_its_opposite_tie_rule():
    # scikit-learn gives a tie to the higher class index. Mirrored classes turn that rule into ours.
    logits, labels = scores(400, 12, tied=True)
    ours = counts(logits, labels)
    mirrored = logits[:, ::-1], 11 - labels
    for k, key in ((1, "top1_correct"), (5, "top5_correct")):
        assert ours[key] == top_k_accuracy_score(mirrored[1], mirrored[0], k=k, labels=range(12), normalize=False)
    assert ours["top1_correct"] != top_k_accuracy_score(labels, logits, k=1, labels=range(12), normalize=False)


def test_infinite_scores_and_signed_zeros_are_ordered():
    inf = np.inf
    rows = np.array(
        [[-inf] * 7, [inf] * 7, [-inf, inf, 0, -inf, inf, -0.0, 0], [-0.0, 0, -0.0, 0, 0, 0, 0]], np.float32
    )
    np.testing.assert_array_equal(metrics.top5(jnp.asarray(rows)), [brute_force_order(row)[:5] for row in rows])
    for label in range(7):
        expected = sum(label in brute_force_order(row)[:5] for row in rows)
        assert counts(rows, np.full(4, label, np.int32))["top5_correct"] == expected


@pytest.mark.parametrize("classes", [2, 7])
def test_an_image_with_nan_is_wrong_and_has_no_guesses(classes):
    logits, labels = scores(40, classes)
    logits[::2, np.arange(20) % classes] = np.nan
    clean = counts(logits[1::2], labels[1::2])
    assert counts(logits, labels) == clean | {"images": 40}
    best = np.asarray(metrics.top5(jnp.asarray(logits)))
    assert np.all(best[::2] == -1)
    assert np.all(best[1::2] >= 0)


def test_a_label_outside_the_classes_is_never_right():
    logits, _ = scores(30, 4)
    for label in (-1, 4, 1000):
        expected = {"images": 30, "top1_correct": 0, "top5_correct": 0}
        assert counts(logits, np.full(30, label, np.int32)) == expected


@pytest.mark.parametrize("batch", [1, 7, 64, 300])
def test_the_same_integers_for_any_batch_size_with_padding(batch):
    logits, labels = scores(230, 20, tied=True)
    total = dict.fromkeys(("images", "top1_correct", "top5_correct"), 0)
    for start in range(0, 230, batch):
        part = slice(start, start + batch)
        missing = batch - len(labels[part])
        # neither padding that would be right nor padding that is NaN may count
        padded = np.pad(logits[part], ((0, missing), (0, 0)), constant_values=np.nan if batch % 2 else 0)
        weights = np.pad(np.ones(batch - missing, np.float32), (0, missing))
        part_counts = counts(padded, np.pad(labels[part], (0, missing)), weights)
        total = {key: total[key] + part_counts[key] for key in total}
    assert total == counts(logits, labels)


def test_the_same_integers_on_eight_devices():
    logits, labels = scores(240, 20, tied=True)
    split = [x.reshape(8, 30, *x.shape[1:]) for x in (logits, labels, np.ones(240, np.float32))]
    step = jax.pmap(lambda *x: jax.lax.psum(metrics.correct_counts(*x), "data"), axis_name="data")
    assert {key: int(value[0]) for key, value in step(*split).items()} == counts(logits, labels)


def test_cross_entropy_against_scikit_learn_and_between_its_two_forms():
    logits, labels = scores(200, 15)
    of_labels = metrics.cross_entropy(jnp.asarray(logits), jnp.asarray(labels))
    of_targets = metrics.cross_entropy(jnp.asarray(logits), jax.nn.one_hot(labels, 15, dtype=jnp.float32))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert float(of_labels.mean()) == pytest.approx(log_loss(labels, probabilities, labels=range(15)), rel=1e-5)
    np.testing.assert_allclose(of_labels, of_targets, rtol=1e-5)


def test_cross_entropy_of_uniform_scores_and_of_smoothed_targets():
    flat = jnp.zeros((1, 8), jnp.float32)
    assert float(metrics.cross_entropy(flat, jnp.full((1, 8), 1 / 8, jnp.float32))[0]) == pytest.approx(math.log(8))
    huge = jnp.array([[1e30, -1e30]], jnp.float32)  # no overflow, and the exact difference
    assert float(metrics.cross_entropy(huge, jnp.array([0], jnp.int32))[0]) == 0.0
    masked = jnp.array([[0.0, -jnp.inf, 0.0]], jnp.float32)
    assert float(metrics.cross_entropy(masked, jnp.array([2], jnp.int32))[0]) == pytest.approx(math.log(2))


def test_padding_adds_nothing_to_a_sum_even_when_it_is_not_a_number():
    values = jnp.array([1.0, jnp.nan, 2.0, jnp.inf], jnp.float32)
    assert float(metrics.weighted_sum(values, jnp.array([1, 0, 1, 0], jnp.float32))) == 3.0
    assert np.isnan(metrics.weighted_sum(values, jnp.ones(4, jnp.float32)))


def test_error_rates_from_counts():
    total = {"images": 2000, "top1_correct": 1236, "top5_correct": 1700}
    rates = ErrorRates.from_counts(total, 3000.0)
    assert (rates.top1_error, rates.top5_error, rates.cross_entropy) == (0.382, 0.15, 1.5)
    assert math.isnan(ErrorRates.from_counts(total).cross_entropy)
    arrays = {key: np.asarray(value, np.int32) for key, value in total.items()}
    assert ErrorRates.from_counts(arrays, jnp.float32(3000.0)) == rates
    assert str(rates) == (
        "top-1 error 38.2 [36.1, 40.4] %, top-5 error 15.0 [13.5, 16.6] %"
        " (95 % interval, new images, these checkpoints; 2,000 images)"
    )
    assert metrics.format_rate(11906, 50000) == ("23.81", "[23.44, 24.19]")


def test_no_images_is_a_user_error_and_impossible_counts_are_a_bug():
    with pytest.raises(UserError, match="no image was scored"):
        ErrorRates.from_counts({"images": 0, "top1_correct": 0, "top5_correct": 0}, 0.0)
    with pytest.raises(ValueError, match="impossible"):
        ErrorRates(images=10, top1_wrong=3, top5_wrong=4)


def test_rates_without_a_measured_cross_entropy_are_equal_and_others_differ():
    missing = ErrorRates(10, 3, 2)
    assert missing == ErrorRates(10, 3, 2, cross_entropy=float("nan"))
    assert hash(missing) == hash(ErrorRates(10, 3, 2, cross_entropy=float("nan")))
    assert missing != ErrorRates(10, 3, 2, cross_entropy=1.0)
    assert ErrorRates(10, 3, 2, cross_entropy=1.0) == ErrorRates(10, 3, 2, cross_entropy=1.0)
    assert missing != ErrorRates(10, 3, 1)
    assert missing != (10, 3, 2)

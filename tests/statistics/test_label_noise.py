import itertools

import numpy as np
import pytest

from imagenet_repro.statistics import label_noise
from imagenet_repro.statistics.label_noise import ErrorOverlap


def extremes(labels, first, second, *, classes, wrong):
    """Return the lowest and highest true difference over all true labels with at most `wrong` changes."""
    result = []
    for true in itertools.product(range(classes), repeat=len(labels)):
        if sum(a != b for a, b in zip(true, labels, strict=True)) <= wrong:
            errors = [sum(t not in g for t, g in zip(true, guesses, strict=True)) for guesses in (first, second)]
            result.append((errors[0] - errors[1]) / len(labels))
    return min(result), max(result)


def overlap_of(labels, first, second, guesses):
    wrong = [np.array([t not in g for t, g in zip(labels, one, strict=True)]) for one in (first, second)]
    return ErrorOverlap.from_wrong(*wrong, guesses)


# The systems that are right on each image with one guess: both, first, first, second, none (with different guesses).
LABELS = (0, 0, 0, 0, 0)
ONE = ((0,), (0,), (0,), (1,), (1,)), ((0,), (1,), (1,), (0,), (2,))


@pytest.mark.parametrize("wrong", range(6))
def test_bounds_of_one_guess_are_reached_by_some_labels(wrong):
    result = label_noise.difference_bounds(overlap_of(LABELS, *ONE, 1), wrong / 5)
    assert result == pytest.approx(extremes(LABELS, *ONE, classes=3, wrong=wrong))


@pytest.mark.parametrize("wrong", range(5))
def test_bounds_of_several_guesses_are_reached_by_some_labels(wrong):
    labels = (0, 0, 0, 0)
    first, second = ((0, 1), (0, 1), (1, 2), (1, 2)), ((0, 2), (3, 2), (0, 3), (3, 4))
    result = label_noise.difference_bounds(overlap_of(labels, first, second, 5), wrong / 4)
    assert result == pytest.approx(extremes(labels, first, second, classes=5, wrong=wrong))


def test_bounds_hold_whatever_the_guesses_are():
    rng = np.random.default_rng(0)
    for _ in range(40):
        count = int(rng.integers(1, 3))  # number of guesses
        labels = rng.integers(0, 4, 4).tolist()
        first, second = ([rng.permutation(4)[:count].tolist() for _ in labels] for _ in range(2))
        for wrong in range(5):
            low, high = label_noise.difference_bounds(
                overlap_of(labels, first, second, 1 if count == 1 else 5), wrong / 4
            )
            least, most = extremes(labels, first, second, classes=4, wrong=wrong)
            assert low - 1e-9 <= least <= most <= high + 1e-9


def test_bounds_lie_within_the_blind_bounds():
    one = ErrorOverlap(0.20, 0.15, 0.1, 1)
    low, high = label_noise.blind_bounds(one.difference, 0.0583)
    assert (low, high) == pytest.approx((0.05 - 0.1166, 0.05 + 0.1166))
    assert label_noise.difference_bounds(one, 0.0583) == pytest.approx((low, high))  # there are enough images
    few = ErrorOverlap(0.02, 0.01, 0.1, 1)
    assert label_noise.difference_bounds(few, 0.0583) == pytest.approx((0.01 - 0.04 - 0.0383, 0.01 + 0.02 + 0.0483))
    assert label_noise.blind_bounds(0.95, 0.0583)[1] == 1.0


@pytest.mark.parametrize("guesses", [1, 5])
def test_symmetric_noise_shrinks_a_difference_as_in_closed_form(guesses):
    rng = np.random.default_rng(0)
    images, classes, share = 400_000, 12, 0.2
    true = rng.integers(0, classes, images)
    wrong_label = rng.random(images) < share
    given = np.where(wrong_label, (true + rng.integers(1, classes, images)) % classes, true)
    right = [rng.random(images) < accuracy for accuracy in (0.5, 0.8)]
    offsets = np.arange(guesses)
    # guesses are consecutive classes, which start at the true class or at the next one
    guessed = [(true[:, None] + np.where(r[:, None], offsets, offsets + 1)) % classes for r in right]
    errors = {
        name: [np.mean(~(g == labels[:, None]).any(1)) for g in guessed]
        for name, labels in {"true": true, "given": given}.items()
    }
    seen, real = (errors[name][0] - errors[name][1] for name in ("given", "true"))
    assert label_noise.undo_symmetric_noise(seen, share, classes) == pytest.approx(real, abs=0.006)
    assert abs(seen) < 0.81 * abs(real)


def test_the_share_of_wrong_labels_in_imagenet():
    assert f"{label_noise.IMAGENET_SHARE:.2%}" == "5.83%"
    assert label_noise.undo_symmetric_noise(0.01, label_noise.IMAGENET_SHARE, 1000) == pytest.approx(
        0.010620, abs=1e-6
    )


def test_noise_that_leaves_no_difference_is_an_error():
    with pytest.raises(ValueError, match="no difference remains"):
        label_noise.undo_symmetric_noise(0.1, 0.5, 2)

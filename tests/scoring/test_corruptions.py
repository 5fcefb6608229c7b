"""Tests of ImageNet-C's numbers against their formula, written out with loops."""

import numpy as np
import pytest

from imagenet_repro.errors import UserError
from imagenet_repro.scoring import corruptions
from imagenet_repro.scoring.corruptions import ALEXNET, CONFIGS, CorruptedErrors, score_corruptions

# The order of the authors' code.
DENOMINATORS = [
    0.886428, 0.894468, 0.922640, 0.819880, 0.826268, 0.785948, 0.798360, 0.866816, 0.826572, 0.819324, 0.564592,
    0.853204, 0.646056, 0.717840, 0.606500,
]  # fmt: skip
IMAGES = 200


def random_errors(rng):
    """Return errors on images that differ in difficulty and become harder with each corruption and severity.

    Each part has its own order of images.
    """
    difficulty = rng.normal(size=IMAGES)
    ids = np.array([f"ILSVRC2012_val_{i + 1:08d}.JPEG" for i in range(IMAGES)])
    result = {}
    for number, config in enumerate(CONFIGS):
        harder = -1 + 0.1 * (number // 5) + 0.2 * (number % 5)
        order = rng.permutation(IMAGES)
        result[config] = CorruptedErrors(ids[order], (difficulty + harder + rng.normal(size=IMAGES) > 0)[order])
    return result


@pytest.fixture
def wrong():
    return random_errors(np.random.default_rng(0))


def test_corruption_errors_are_ratios_of_sums(wrong):
    expected = []
    for name, alexnet in zip(ALEXNET, DENOMINATORS, strict=True):
        total = sum(wrong[f"{name}_{severity}"].wrong.mean() for severity in (1, 2, 3, 4, 5))
        expected.append(total / (5 * alexnet))
    result = score_corruptions(wrong)
    assert [result.ce(name) for name in ALEXNET] == pytest.approx(expected)
    assert result.mce.error == pytest.approx(np.mean(expected))
    every = [wrong[config].wrong.mean() for config in CONFIGS]
    assert result.mean.error == pytest.approx(np.mean(every))
    # The ratio of the means is another number.
    assert result.mce.error != pytest.approx(np.mean(every) / np.mean(DENOMINATORS), rel=1e-3)
    assert result.mce.images == IMAGES


def test_the_interval_is_that_of_a_bootstrap_over_images(wrong):
    result = score_corruptions(wrong)
    ids = np.sort(wrong[CONFIGS[0]].id)
    table = np.stack([wrong[config].wrong[np.argsort(wrong[config].id)] for config in CONFIGS], axis=1)
    assert len(ids) == IMAGES
    weights = np.repeat([1 / (75 * one) for one in DENOMINATORS], 5)
    each = table @ weights
    rng = np.random.default_rng(1)
    means = [each[rng.integers(0, IMAGES, IMAGES)].mean() for _ in range(3_000)]
    np.testing.assert_allclose((result.mce.low, result.mce.high), np.percentile(means, [2.5, 97.5]), atol=0.01)


def test_an_image_missing_from_one_part_does_not_stop_the_evaluation(wrong):
    one = wrong["fog_3"]
    before = score_corruptions(wrong).mce
    after = score_corruptions(wrong | {"fog_3": CorruptedErrors(one.id[1:], one.wrong[1:])}).mce
    assert after.error == pytest.approx(before.error, abs=1e-3)
    assert after.images == IMAGES


def test_missing_parts_are_refused(wrong):
    del wrong["snow_4"], wrong["pixelate_5"]
    with pytest.raises(UserError, match="2 of 75 are missing, the first: snow_4"):
        score_corruptions(wrong)


def test_parts_are_the_configs_of_tfds():
    from tensorflow_datasets.datasets.imagenet2012_corrupted import imagenet2012_corrupted_dataset_builder as builder

    assert list(ALEXNET) == builder.BENCHMARK_CORRUPTIONS
    assert set(CONFIGS) <= {config.name for config in builder.Builder.BUILDER_CONFIGS}
    assert corruptions.config_name("imagenet2012_corrupted/jpeg_compression_5:3.1.0") == "jpeg_compression_5"
    assert corruptions.config_name("imagenet2012") == ""


def test_the_description_of_results(wrong):
    result = score_corruptions(wrong)
    assert str(result.mce).startswith(f"mCE {100 * result.mce.error:.1f} %, 95 % interval [")
    assert len(corruptions.terminal_table(result).rows) == 15

"""Draws of RandAugment and AutoAugment, their frequencies and strengths; test_operations.py tests the operations."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from imagenet_repro.config import AutoAugment, NoPolicy, RandAugment, TimmRandAugment
from imagenet_repro.data.augment import operations, policy

MEAN = (0.485, 0.456, 0.406)
COUNT = 20000
PICTURE = np.zeros((40, 50, 3), np.uint8)
WHOLE = ("posterize", "solarize", "solarize_add", "cutout")
SIGNED = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


@partial(jax.jit, static_argnums=0)
def draw_all(spec, keys):
    return jax.vmap(lambda key: policy.draw(spec, key, (40, 50)))(keys)


def draw_operations(spec) -> tuple[np.ndarray, np.ndarray]:
    """Return the names and arguments of operations, [count, layers]."""
    operation, argument, position = draw_all(spec, jax.random.split(jax.random.key(1), COUNT))
    assert position.shape == (*argument.shape, 3)
    return np.array(policy.names(spec))[np.asarray(operation)], np.asarray(argument)


def passed(monkeypatch, spec) -> operations.Options:
    """Return the options that `distort` passes to the operations."""
    seen = []
    monkeypatch.setattr(operations, "apply_layers", lambda images, draws, options: seen.append(options) or images)
    policy.distort(spec, jnp.asarray(PICTURE[None]), jax.random.split(jax.random.key(0), 1), MEAN)
    return seen[0]


def close_to(share: float, expected: float, count: int) -> bool:
    return abs(share - expected) < 5 * (expected * (1 - expected) / count) ** 0.5 + 1e-9


def tensorflow(name: str, level: float) -> float:
    """Return the argument of an operation in google/automl's efficientnetv2/autoaugment.py, in double precision."""
    return {
        "rotate": level / 10 * 30,
        "shear_x": level / 10 * 0.3,
        "shear_y": level / 10 * 0.3,
        "translate_x": level / 10 * 100,
        "translate_y": level / 10 * 100,
        "posterize": int(level / 10 * 4),
        "solarize": int(level / 10 * 256),
        "solarize_add": int(level / 10 * 110),
        "cutout": int(level / 10 * 40),
        **dict.fromkeys(("color", "contrast", "brightness", "sharpness"), level / 10 * 1.8 + 0.1),
    }.get(name, np.nan)


@pytest.mark.parametrize("magnitude", [10, 11.6667])
def test_randaugment_is_tensorflows(magnitude):
    names, arguments = draw_operations(RandAugment(magnitude=magnitude, layers=3))
    assert names.shape == (COUNT, 3)
    assert set(names.flat) == set(operations.OPERATIONS) - {"identity"}
    for name in set(names.flat):
        assert close_to((names == name).mean(), 1 / 16, names.size)
        actual, expected = arguments[names == name], tensorflow(name, magnitude)
        if name in SIGNED:
            assert close_to((actual > 0).mean(), 0.5, len(actual))
        if not np.isnan(expected):
            np.testing.assert_allclose(np.abs(actual), expected, rtol=1e-5)
    # The layers draw independently.
    assert close_to((names[:, 0] == names[:, 1]).mean(), 1 / 16, COUNT)


def timm(name: str, level: float, height: int, width: int) -> tuple[float, ...]:
    """Return the arguments, in both directions, of timm's increasing set at a level."""
    if name in ("color", "contrast", "brightness", "sharpness"):
        return max(0.1, 1 - level / 10 * 0.9), max(0.1, 1 + level / 10 * 0.9)
    amount = {
        "rotate": level / 10 * 30,
        "shear_x": level / 10 * 0.3,
        "shear_y": level / 10 * 0.3,
        "translate_x": level / 10 * 0.45 * width,
        "translate_y": level / 10 * 0.45 * height,
        "posterize": 4 - int(level / 10 * 4),
        "solarize": 256 - min(256, int(level / 10 * 256)),
        "solarize_add": min(128, int(level / 10 * 110)),
    }.get(name, np.nan)
    return (-amount, amount) if name in SIGNED else (amount, amount)


@pytest.mark.parametrize("magnitude", [7, 10])
def test_randaugment_timm_has_timms_arguments(magnitude):
    spec = TimmRandAugment(magnitude=magnitude, magnitude_std=0.0, probability=1.0)
    names, arguments = draw_operations(spec)
    assert set(names.flat) == set(operations.OPERATIONS) - {"identity", "cutout"}
    for name in set(names.flat):
        assert close_to((names == name).mean(), 1 / 15, names.size)
        actual, (low, high) = arguments[names == name], timm(name, magnitude, 40, 50)
        if low != high and not np.isnan(low):
            is_high = np.isclose(actual, high, rtol=1e-5)
            assert (is_high | np.isclose(actual, low, rtol=1e-5)).all()
            assert close_to(is_high.mean(), 0.5, len(actual))
        elif not np.isnan(low):
            np.testing.assert_allclose(actual, low, rtol=1e-5)


def test_without_increasing_the_levels_are_tensorflows():
    spec = TimmRandAugment(magnitude=7, magnitude_std=0.0, increasing=False, fill="grey")
    names, arguments = draw_operations(spec)
    for name in ("posterize", "solarize", "solarize_add", "color", "sharpness"):
        np.testing.assert_allclose(arguments[names == name], tensorflow(name, 7), rtol=1e-5)


def test_timms_levels_are_normal_and_clipped():
    names, arguments = draw_operations(TimmRandAugment(magnitude=9, magnitude_std=0.5))
    assert close_to((names == "identity").mean(), 0.5, names.size)
    levels = np.abs(arguments[names == "rotate"]) / 3
    assert levels.max() <= 10 + 1e-5
    assert close_to((levels > 10 - 1e-5).mean(), stats.norm.sf(2), len(levels))
    below = levels[levels < 9]
    assert stats.kstest((9 - below) / 0.5, stats.halfnorm.cdf).pvalue > 1e-3
    # Each application draws its own level.
    scale = np.select([names == "rotate", np.isin(names, ("shear_x", "shear_y"))], [3, 0.03], np.nan)
    both = (np.abs(arguments) / scale)[~np.isnan(scale).any(1)]
    assert np.abs(np.corrcoef(both.T)[0, 1]) < 5 / len(both) ** 0.5


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_a_probability_may_be_zero_or_one(probability):
    names, _ = draw_operations(TimmRandAugment(probability=probability))
    assert (names == "identity").mean() == 1 - probability


# For each operation in timm's copies of both tables: its number of entries, and the sums of probabilities and levels.
NAMED = {
    "v0": {
        "auto_contrast": (2, 1.0, 9),
        "color": (9, 5.0, 37),
        "equalize": (12, 8.0, 55),
        "invert": (1, 0.4, 9),
        "posterize": (2, 1.2, 8),
        "rotate": (7, 4.6, 39),
        "shear_x": (2, 0.2, 9),
        "shear_y": (4, 2.6, 14),
        "solarize": (8, 4.6, 41),
        "solarize_add": (2, 1.4, 10),
        "translate_y": (1, 0.8, 9),
    },
    "paper": {
        "auto_contrast": (2, 1.2, 10),
        "color": (6, 3.8, 18),
        "contrast": (2, 2.0, 16),
        "equalize": (17, 11.2, 102),
        "invert": (3, 1.8, 16),
        "posterize": (5, 2.8, 32),
        "rotate": (6, 3.6, 45),
        "sharpness": (1, 0.4, 7),
        "shear_x": (1, 0.6, 5),
        "solarize": (7, 3.6, 36),
    },
}


@pytest.mark.parametrize("table", ["v0", "paper"])
def test_autoaugment_draws_its_pairs(table):
    pairs = policy.TABLES[table]
    assert len(pairs) == 25
    assert all(len(pair) == 2 for pair in pairs)
    actual = {}
    for name, probability, level in (named for pair in pairs for named in pair):
        count, probabilities, levels = actual.get(name, (0, 0, 0))
        actual[name] = count + 1, round(probabilities + probability, 1), levels + level
    assert actual == NAMED[table]
    names, arguments = draw_operations(AutoAugment(table=table))
    for layer in (0, 1):
        expected = {}
        for pair in pairs:
            name, probability, _ = pair[layer]
            expected[name] = expected.get(name, 0) + probability / 25
        for name, share in expected.items():
            assert close_to((names[:, layer] == name).mean(), share, COUNT)
    offset = {"v0": 0, "paper": 4}[table]
    levels = {level for pair in pairs for name, _, level in pair if name == "posterize"}
    assert set(arguments[names == "posterize"]) == {offset + int(level / 10 * 4) for level in levels}
    if table == "v0":
        np.testing.assert_allclose(np.abs(arguments[names == "translate_y"]), 9 / 10 * 250)
        after = names[names[:, 1] == "translate_y"]  # rotate always precedes it
        assert (after[:, 0] == "rotate").all()


def test_an_image_is_changed_by_the_drawn_operations():
    """A policy that only inverts changes an image by the number of applied layers."""
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    images = jnp.asarray(np.broadcast_to(image, (200, 8, 8, 3)))
    keys = jax.random.split(jax.random.key(0), 200)
    run = jax.jit(partial(policy.distort, AutoAugment(), images, mean=MEAN))
    results = np.asarray(run(keys))
    assert results.dtype == np.uint8
    assert len({result.tobytes() for result in results}) > 30
    again = np.asarray(run(keys[::-1]))[::-1]
    np.testing.assert_array_equal(results, again)


@pytest.mark.parametrize(
    ("spec", "fill", "interpolation"),
    [
        (RandAugment(), (128, 128, 128), "nearest"),
        (AutoAugment(), (128, 128, 128), "nearest"),
        (TimmRandAugment(), (124, 116, 104), "bicubic"),
        (TimmRandAugment(fill="grey", interpolation="random"), (128, 128, 128), "random"),
    ],
)
def test_the_fill_and_the_interpolation_are_the_sources(monkeypatch, spec, fill, interpolation):
    options = passed(monkeypatch, spec)
    assert (options.fill, options.interpolation) == (fill, interpolation)


def test_without_a_policy_the_image_is_unchanged():
    images = jnp.asarray(PICTURE[None])
    assert policy.distort(NoPolicy(), images, jax.random.split(jax.random.key(0), 1), MEAN) is images

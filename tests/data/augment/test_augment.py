from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from PIL import Image, ImageEnhance
from scipy import stats

from imagenet_repro.config import Augment, TimmRandAugment
from imagenet_repro.data.augment.augment import augment, normalize
from imagenet_repro.errors import UserError

# No augmentation and no normalisation, so that a test sees only what it switches on.
OFF = Augment(flip=False, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
EVERYTHING = Augment(
    pca="paper",
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    mixup=0.2,
    cutmix=1.0,
    erasing=0.5,
    label_smoothing=0.1,
)


def spec(**options) -> Augment:
    return Augment(**{**vars(OFF), **options})


def pictures(count: int, height: int = 8, width: int = 8, low: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(count).integers(low, high, (count, height, width, 3), dtype=np.uint8)


@partial(jax.jit, static_argnames="options")
def run(images, labels, epoch, index, key, *, options):
    return augment(images, labels, epoch, index, seed=key, spec=options, num_classes=5)


def augmented(images: np.ndarray, options: Augment, epoch: int = 0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    index = np.arange(len(images), dtype=np.int32)
    result = run(images, index % 5, np.full_like(index, epoch), index, jax.random.key(seed), options=options)
    return tuple(np.asarray(array) for array in result)


def test_normalisation_is_the_formula_in_training_and_evaluation():
    images = pictures(6)
    options = Augment(flip=False)
    expected = (images / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(augmented(images, options)[0], expected, atol=1e-6)
    evaluated = normalize(jnp.asarray(images), options)
    np.testing.assert_allclose(evaluated, expected, atol=1e-6)
    assert evaluated.dtype == jnp.float32


def test_without_augmentation_no_random_number_is_drawn():
    numbers = jnp.zeros(4, jnp.int32)
    images, key = jnp.zeros((4, 8, 8, 3), jnp.uint8), jax.random.key(0)
    programs = [
        run.lower(images, numbers, numbers, numbers, key, options=options).compile().as_text()
        for options in (Augment(flip=False), Augment())
    ]
    assert ["xor" in program for program in programs] == [False, True]  # an operation of the generator Threefry


def test_half_of_the_images_are_mirrored():
    images = pictures(2000, 2, 3)
    result = augmented(images, spec(flip=True))[0]
    mirrored = (np.abs(result - images[:, :, ::-1] / 255) < 1e-6).all((1, 2, 3))
    stored = (np.abs(result - images / 255) < 1e-6).all((1, 2, 3))
    assert (mirrored ^ stored).all()
    assert abs(mirrored.mean() - 0.5) < 5 * 0.5 / 2000**0.5


@pytest.mark.parametrize(
    ("name", "enhance"),
    [("brightness", ImageEnhance.Brightness), ("contrast", ImageEnhance.Contrast), ("saturation", ImageEnhance.Color)],
)
def test_colour_factors_equal_pillows_enhancers(name, enhance):
    """The factor of each image is computed from the result and given to Pillow, which torchvision calls."""
    images = pictures(300, low=96, high=160)
    result = augmented(images, spec(**{name: 0.4}))[0] * 255
    black = {"brightness": 0, "contrast": 1, "saturation": 2}[name]
    factors = []
    for image, changed in zip(images, result, strict=True):
        grey = image @ np.array([0.299, 0.587, 0.114])
        other = [0.0, grey.mean(), grey[..., None]][black]
        factor = ((changed - other) * (image - other)).sum() / ((image - other) ** 2).sum()
        factors.append(factor)
        expected = np.asarray(enhance(Image.fromarray(image)).enhance(factor), np.float32)
        assert np.abs(changed - expected).max() < 1.6  # Pillow rounds its grey and its result
    assert stats.kstest(factors, "uniform", args=(0.6, 0.8)).pvalue > 1e-3


def test_colours_stay_in_range():
    images = pictures(200, low=1, high=255)  # so that 0 and 1 come from clipping alone
    for name in ("brightness", "contrast", "saturation"):
        result = augmented(images, spec(**{name: 1.0}))[0]
        assert result.max() == 1
        assert result.min() >= 0
        assert (result == 0).any() == (name != "brightness")  # which multiplies by a factor of at least 0


VALUES = np.array([0.2175, 0.0188, 0.0045])
VECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


def colours(reading: str, std: float) -> np.ndarray:
    """Return the colour added to each of 20,000 images, which is the same at every pixel."""
    images = pictures(20000, 1, 2)
    scale = 1 + std if reading == "cuda_convnet2" else 1.0
    added = augmented(images, spec(pca=reading, pca_std=std))[0] * scale - images / 255
    assert np.ptp(added, axis=(1, 2)).max() < 1e-5
    return added[:, 0, 0]


@pytest.mark.parametrize(("reading", "power"), [("paper", 1.0), ("cuda_convnet2", 0.5)])
def test_pca_colour_has_the_covariance_of_its_form(reading, power):
    """Components of deviation std x eigenvalue, or std x root of the eigenvalue (cuda-convnet2)."""
    std = 0.1
    components = colours(reading, std) @ np.linalg.inv(VECTORS).T
    np.testing.assert_allclose(components.std(0), std * VALUES**power, rtol=0.03)
    correlation = np.corrcoef(components.T)
    assert np.abs(correlation - np.eye(3)).max() < 0.05
    assert stats.kstest(components[:, 0] / (std * VALUES[0] ** power), "norm").pvalue > 1e-3


def test_both_forms_of_pca_colour_draw_the_same_and_differ_by_a_factor():
    """0.466 / 0.2175 = 2.1 on the first component (reference, section 6)."""
    first = [colours(reading, 0.1) @ np.linalg.inv(VECTORS).T[:, 0] for reading in ("cuda_convnet2", "paper")]
    np.testing.assert_allclose(first[0], first[1] * 0.2175**-0.5, atol=1e-4)


def test_cuda_convnet2_shrinks_towards_the_mean():
    images = np.full((400, 2, 2, 3), 255, np.uint8)
    mean = np.array((0.5, 0.25, 0.125))
    options = spec(pca="cuda_convnet2", pca_std=0.25, mean=tuple(mean))
    result = augmented(images, options)[0].mean((0, 1, 2))
    np.testing.assert_allclose(result, (1 - mean) / 1.25, atol=0.03)


def erased_by_torchvision(rng: np.random.Generator, height: int, width: int) -> int:
    """Return the pixels chosen by get_params of torchvision's RandomErasing, 0 where ten attempts fail."""
    for _ in range(10):
        area = height * width * rng.uniform(0.02, 0.33)
        aspect = np.exp(rng.uniform(np.log(0.3), np.log(3.3)))
        h, w = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < h < height and 0 < w < width:
            return int(h * w)
    return 0


def test_erased_rectangles_are_torchvisions():
    images = pictures(8000, 16, 24)
    result = augmented(images, spec(erasing=0.25))[0]
    masks = (np.abs(result - images / 255) > 1e-6).any(-1)
    touched = masks.any((1, 2))
    assert abs(touched.mean() - 0.25) < 5 * (0.25 * 0.75 / 8000) ** 0.5
    masks, erased = masks[touched], result[touched]
    rows, columns = masks.any(2).sum(1), masks.any(1).sum(1)
    np.testing.assert_array_equal(rows * columns, masks.sum((1, 2)))  # one rectangle
    expected = [erased_by_torchvision(np.random.default_rng(seed), 16, 24) for seed in range(3000)]
    assert stats.ks_2samp(masks.sum((1, 2)), expected).pvalue > 1e-3
    noise = erased[masks]
    assert stats.kstest(noise[::97, 0], "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(noise[:, 0], noise[:, 1])[0, 1]) < 0.02
    # Every position is drawn about as often as its mirror image.
    covered = masks.mean(0)
    assert np.abs(covered - covered[::-1, ::-1]).max() < 0.08


def test_labels_are_smoothed_over_all_classes():
    images = pictures(10)
    targets = augmented(images, spec(label_smoothing=0.1))[1]
    expected = np.full((10, 5), 0.02)
    expected[np.arange(10), np.arange(10) % 5] += 0.9
    np.testing.assert_allclose(targets, expected, atol=1e-7)


def pair_shares(targets: np.ndarray) -> np.ndarray:
    """Return the share of each image's own class in its target."""
    return targets[np.arange(len(targets)), np.arange(len(targets)) % 5]


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_mixes_both_images_of_a_pair_with_one_beta_share(alpha):
    images = pictures(4000, 12, 20)
    result, targets = augmented(images, spec(mixup=alpha))
    share = pair_shares(targets)
    np.testing.assert_array_equal(share[::2], share[1::2])
    partner = images.reshape(-1, 2, 12, 20, 3)[:, ::-1].reshape(images.shape)
    weight = share[:, None, None, None]
    np.testing.assert_allclose(result, (weight * images + (1 - weight) * partner) / 255, atol=1e-5)
    assert stats.kstest(share[::2], stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def exchanged_by_the_authors(rng: np.random.Generator, height: int, width: int, alpha: float) -> int:
    """Return the number of pixels in a box of rand_bbox of clovaai/CutMix-PyTorch."""
    ratio = np.sqrt(1.0 - rng.beta(alpha, alpha))
    cut_w, cut_h = int(width * ratio), int(height * ratio)
    x, y = rng.integers(width), rng.integers(height)
    x1, x2 = np.clip(x - cut_w // 2, 0, width), np.clip(x + cut_w // 2, 0, width)
    y1, y2 = np.clip(y - cut_h // 2, 0, height), np.clip(y + cut_h // 2, 0, height)
    return int((x2 - x1) * (y2 - y1))


def test_erasing_noise_is_normal_after_normalisation():
    images = np.zeros((300, 20, 20, 3), np.uint8)
    normalised = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}
    clean = augmented(images, spec(**normalised))[0]
    result = augmented(images, spec(erasing=1.0, erasing_fill="normal", **normalised))[0]
    uniform = augmented(images, spec(erasing=1.0, **normalised))[0]
    erased = (result != clean).any(-1)
    np.testing.assert_array_equal(erased, (uniform != clean).any(-1))  # the same boxes
    for channel in range(3):
        assert stats.kstest(result[erased][:, channel], "norm").pvalue > 1e-3


def test_a_policy_comes_after_the_mirror_and_before_colours():
    """The filled margin of a translation to the right is never mirrored but is brightened."""
    images = np.full((200, 8, 8, 3), 100, np.uint8)
    options = TimmRandAugment(layers=1, magnitude=10, magnitude_std=0, probability=1, interpolation="nearest")
    plain = augmented(images, spec(policy=options))[0]
    both = augmented(images, spec(flip=True, brightness=0.5, policy=options))[0]
    ratio = both / np.maximum(plain, 1e-9)
    bright = plain.max((1, 2, 3)) > 0
    factors = ratio[bright].reshape(bright.sum(), -1)
    uncut = (both[bright].reshape(factors.shape) < 1) & (plain[bright].reshape(factors.shape) > 0)
    low, high = np.where(uncut, factors, np.inf).min(1), np.where(uncut, factors, -np.inf).max(1)
    np.testing.assert_allclose(low[uncut.any(1)], high[uncut.any(1)], rtol=1e-4)
    assert np.ptp(low[uncut.any(1)]) > 0.8


def test_cutmix_exchanges_a_box_and_counts_its_pixels():
    images = np.zeros((4000, 12, 20, 3), np.uint8)
    images[1::2] = 255
    result, targets = augmented(images, spec(cutmix=1.0))
    exchanged = (result > 0.5).all(-1)
    assert np.isin(result, (0, 1)).all()
    np.testing.assert_array_equal(exchanged[::2], ~exchanged[1::2])
    box = exchanged[::2]
    np.testing.assert_array_equal(box.any(2).sum(1) * box.any(1).sum(1), box.sum((1, 2)))
    share = pair_shares(targets)
    np.testing.assert_allclose(share[::2], 1 - box.mean((1, 2)), atol=1e-6)
    np.testing.assert_array_equal(share[::2], share[1::2])
    expected = [exchanged_by_the_authors(np.random.default_rng(seed), 12, 20, 1.0) for seed in range(3000)]
    assert stats.ks_2samp(box.sum((1, 2)), expected).pvalue > 1e-3


def test_with_mixup_and_cutmix_each_pair_draws_one():
    images = np.zeros((4000, 12, 20, 3), np.uint8)
    images[1::2] = 255
    both, targets = augmented(images, spec(mixup=1.0, cutmix=1.0))
    alone = {name: augmented(images, spec(**{name: 1.0}))[0] for name in ("mixup", "cutmix")}
    same = {name: (both == result).all((1, 2, 3))[::2] for name, result in alone.items()}
    assert (same["mixup"] | same["cutmix"]).all()
    assert abs(same["mixup"].mean() - 0.5) < 0.06
    np.testing.assert_allclose(targets.sum(-1), 1, atol=1e-6)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_mixing_needs_pairs(name):
    with pytest.raises(UserError, match="a device's share of 3 images is odd"):
        augmented(pictures(3), spec(**{name: 1.0}))


def test_targets_are_distributions_with_everything_on():
    result, targets = augmented(pictures(16), EVERYTHING)
    assert result.dtype == targets.dtype == np.float32
    assert np.isfinite(result).all()
    assert (targets >= 0).all()
    np.testing.assert_allclose(targets.sum(-1), 1, atol=1e-6)


def test_the_result_follows_from_seed_epoch_and_index():
    images = pictures(16)
    base = augmented(images, EVERYTHING)[0]
    np.testing.assert_array_equal(base, augmented(images, EVERYTHING)[0])
    for changed in (augmented(images, EVERYTHING, epoch=1), augmented(images, EVERYTHING, seed=1)):
        assert (np.abs(base - changed[0]).max((1, 2, 3)) > 1e-3).all()


def test_a_seed_is_the_key_of_that_number():
    images, index = jnp.asarray(pictures(64)), jnp.arange(64)
    by_seed, _ = augment(images, index, index, index, seed=7, spec=spec(flip=True), num_classes=64)
    by_key, _ = augment(images, index, index, index, seed=jax.random.key(7), spec=spec(flip=True), num_classes=64)
    np.testing.assert_array_equal(by_seed, by_key)


def test_a_pair_does_not_depend_on_the_rest_of_its_batch():
    images, epoch, key = pictures(16), np.arange(16, dtype=np.int32) // 3, jax.random.key(0)
    labels, index = np.arange(16, dtype=np.int32) % 5, np.arange(100, 116, dtype=np.int32)
    complete = run(images, labels, epoch, index, key, options=EVERYTHING)
    order = np.array([14, 15, 2, 3, 8, 9, 0, 1, 4, 5, 12, 13, 10, 11, 6, 7])
    moved = run(images[order], labels[order], epoch[order], index[order], key, options=EVERYTHING)
    for one, other in zip(complete, moved, strict=True):
        np.testing.assert_allclose(one[order], other, atol=1e-5)


def test_the_number_of_devices_changes_nothing():
    images = pictures(16)
    labels, index = np.arange(16, dtype=np.int32) % 5, np.arange(16, dtype=np.int32)
    mesh, data = Mesh(np.array(jax.devices()[:8]), ("data",)), PartitionSpec("data")
    step = partial(augment, seed=0, spec=EVERYTHING, num_classes=5)
    spread = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=data, out_specs=data))
    alone = run(images, labels, index * 0, index, jax.random.key(0), options=EVERYTHING)
    for one, other in zip(alone, spread(images, labels, index * 0, index), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_an_augmentation_changes_no_draw_of_another():
    images = np.zeros((200, 4, 4, 3), np.uint8)
    images[:, :, :2] = 128
    left = [augmented(images, options)[0][:, :, :2].mean((1, 2, 3)) > 0.2 for options in (spec(flip=True), FLIP_AND)]
    np.testing.assert_array_equal(*left)


FLIP_AND = spec(flip=True, brightness=0.1, contrast=0.1, saturation=0.1, pca="paper", pca_std=0.01)

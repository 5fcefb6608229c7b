"""Augmentation on the device, inside the compiled step: from uint8 crops and labels to float images and targets.

The order is fixed: mirror; RandAugment or AutoAugment; brightness, contrast, saturation; PCA colour; random erasing;
normalisation; mixup or CutMix. All but the policies work on the [0, 1] scale of RGB. An augmentation that the
configuration switches off is not in the compiled program.

An image's randomness follows from (seed, epoch, index) alone, and each augmentation draws from its own stream, so
switching one on changes no draw of another. Mixup and CutMix mix the two images of a pair (2j, 2j + 1) with each
other, both with the draw of the even one. Batches are split between devices at even positions, so the result does not
depend on the number of devices.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int, Key, UInt8

from imagenet_repro.config import Augment, NoPolicy
from imagenet_repro.data.augment.beta import draw_share
from imagenet_repro.data.augment.policy import distort
from imagenet_repro.errors import UserError

# Principal components of RGB over ImageNet's training pixels on the [0, 1] scale (facebookarchive/fb.resnet.torch,
# datasets/imagenet.lua): variances, and directions as columns.
_EIGENVALUES = (0.2175, 0.0188, 0.0045)
_EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
_LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601, as torchvision rounds it
# Random erasing: the ranges of area (as a share of the image) and aspect in torchvision; timm's end at 1/3 and 1/0.3.
_ERASED_AREA = (0.02, 0.33)
_ERASED_ASPECT = (0.3, 3.3)
_ERASING_ATTEMPTS = 10

# One stream of random numbers for each augmentation. Changing a number changes the images that a seed leads to.
_FLIP, _BRIGHTNESS, _CONTRAST, _SATURATION, _PCA, _ERASING, _MIXUP, _CUTMIX, _SWITCH, _POLICY = range(10)

Image = Float32[Array, "h w 3"]
Scalar = Float32[Array, ""]


def augment(
    images: UInt8[Array, "b h w 3"],
    labels: Int[Array, " b"],
    epoch: Int[Array, " b"],
    index: Int[Array, " b"],
    *,
    seed: int | Key[Array, ""],
    spec: Augment,
    num_classes: int,
) -> tuple[Float32[Array, "b h w 3"], Float32[Array, "b {num_classes}"]]:
    """Augment and normalise a device's share of a batch.

    Args:
        images: RGB crops.
        labels: class indices.
        epoch: epoch of each image, as in the loader's batches.
        index: index of each image in its split; with the epoch and the seed it decides every draw.
        seed: a number, or a key of `jax.random`.
        spec: the augmentations; static.
        num_classes: width of the targets.

    Returns:
        The images, normalised by `spec.mean` and `spec.std`, and targets that sum to one for each image.

    Raises:
        UserError: mixup or CutMix is on and b is odd.
    """
    mixes = spec.mixup > 0 or spec.cutmix > 0
    if mixes and images.shape[0] % 2:
        raise UserError(
            f"augment.mixup and augment.cutmix mix pairs, and a device's share of {images.shape[0]} images is odd; "
            "choose a batch_size that gives every device an even number"
        )
    key = jax.random.key(seed) if isinstance(seed, int) else seed
    keys = jax.vmap(lambda e, i: jax.random.fold_in(jax.random.fold_in(key, e), i))(epoch, index)
    if spec.flip:
        images = jax.vmap(_mirror)(images, keys)
    if not isinstance(spec.policy, NoPolicy):
        images = distort(spec.policy, images, jax.vmap(_stream, (0, None))(keys, _POLICY), spec.mean)
    pixels = _standardise(jax.vmap(partial(_colour_and_erase, spec=spec))(images, keys), spec)
    targets = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
    if spec.label_smoothing:
        targets = (1 - spec.label_smoothing) * targets + spec.label_smoothing / num_classes
    return _mix_pairs(pixels, targets, keys, spec) if mixes else (pixels, targets)


def normalize(images: UInt8[Array, "b h w 3"], spec: Augment) -> Float32[Array, "b h w 3"]:
    """Normalise crops as evaluation does: on the [0, 1] scale, less `spec.mean`, divided by `spec.std`."""
    return _standardise(images.astype(jnp.float32) / 255, spec)


def _standardise(pixels: Float32[Array, "b h w 3"], spec: Augment) -> Float32[Array, "b h w 3"]:
    mean, std = jnp.array(spec.mean, jnp.float32), jnp.array(spec.std, jnp.float32)
    return (pixels - mean) / std


def _stream(key: Key[Array, ""], number: int) -> Key[Array, ""]:
    return jax.random.fold_in(key, number)


def _mirror(crop: UInt8[Array, "h w 3"], key: Key[Array, ""]) -> UInt8[Array, "h w 3"]:
    return jnp.where(jax.random.bernoulli(_stream(key, _FLIP)), crop[:, ::-1], crop)


def _colour_and_erase(crop: UInt8[Array, "h w 3"], key: Key[Array, ""], *, spec: Augment) -> Image:
    image = crop.astype(jnp.float32) / 255
    if spec.brightness:
        image = _blend(image, jnp.float32(0), _factor(_stream(key, _BRIGHTNESS), spec.brightness))
    if spec.contrast:
        image = _blend(image, _grey(image).mean(), _factor(_stream(key, _CONTRAST), spec.contrast))
    if spec.saturation:
        image = _blend(image, _grey(image), _factor(_stream(key, _SATURATION), spec.saturation))
    if spec.pca != "none":
        image = _pca_colour(image, _stream(key, _PCA), spec)
    if spec.erasing:
        image = _erase(image, _stream(key, _ERASING), spec)
    return image


def _factor(key: Key[Array, ""], strength: float) -> Scalar:
    return jax.random.uniform(key, minval=1 - strength, maxval=1 + strength)


def _grey(image: Image) -> Float32[Array, "h w 1"]:
    return (image * jnp.array(_LUMA, jnp.float32)).sum(-1, keepdims=True)


def _blend(image: Image, other: Float32[Array, "..."], factor: Scalar) -> Image:
    """Blend as torchvision's ColorJitter: the image at factor 1, `other` (black, mean grey, grey) at 0; in [0, 1]."""
    return jnp.clip(factor * image + (1 - factor) * other, 0, 1)


def _pca_colour(image: Image, key: Key[Array, ""], spec: Augment) -> Image:
    """Add one colour to an image, drawn along the principal components of RGB.

    `paper` (Krizhevsky et al. 2012, sec. 4.1): component i gets alpha_i times its eigenvalue, with alpha_i ~ N(0,
    pca_std) on the [0, 1] scale, as in fb.resnet.torch. `cuda_convnet2` (its convdata.py): component i gets pca_std
    times a unit normal times the component's standard deviation, and the image less its mean is then scaled by
    1 / (1 + pca_std). Neither clips the result to [0, 1].
    """
    normal = jax.random.normal(key, (3,))
    values, vectors = jnp.array(_EIGENVALUES, jnp.float32), jnp.array(_EIGENVECTORS, jnp.float32)
    if spec.pca == "paper":
        return image + (vectors * values * normal).sum(-1) * spec.pca_std
    mean = jnp.array(spec.mean, jnp.float32)
    colour = (vectors * jnp.sqrt(values) * normal).sum(-1) * spec.pca_std
    return mean + (image - mean + colour) / (1 + spec.pca_std)


def _erase(image: Image, key: Key[Array, ""], spec: Augment) -> Image:
    """Fill a rectangle with noise, drawn for each pixel and channel.

    The noise is uniform in [0, 1] (Zhong et al. 2017, RE-R), or normal with the mean and deviation that normalisation
    removes, so that it is a unit normal afterwards (timm's mode `pixel`). Area and aspect are drawn ten times, and the
    first rectangle smaller than the image is used. The aspect is drawn log-uniformly, as in torchvision and timm.
    """
    height, width, _ = image.shape
    shape_key, noise_key = jax.random.split(key)
    # One call draws every number of the rectangle, because each call is compiled as a separate block.
    coin, row, column, *shapes = jax.random.uniform(shape_key, (3 + 2 * _ERASING_ATTEMPTS,))
    area = height * width * _between(jnp.stack(shapes[::2]), *_ERASED_AREA)
    aspect = jnp.exp(_between(jnp.stack(shapes[1::2]), *map(math.log, _ERASED_ASPECT)))
    h, w = jnp.round(jnp.sqrt(area * aspect)), jnp.round(jnp.sqrt(area / aspect))
    fits = (h < height) & (w < width) & (h > 0) & (w > 0)
    first = jnp.argmax(fits)
    h, w = h[first], w[first]
    corner = jnp.floor(jnp.stack([row * (height - h + 1), column * (width - w + 1)]))
    erased = _box((height, width), corner, corner + jnp.stack([h, w])) & fits[first] & (coin < spec.erasing)
    if spec.erasing_fill == "uniform":
        noise = jax.random.uniform(noise_key, image.shape)
    else:
        noise = jnp.array(spec.mean) + jnp.array(spec.std) * jax.random.normal(noise_key, image.shape)
    return jnp.where(erased[:, :, None], noise, image)


def _between(unit: Float32[Array, "..."], low: float, high: float) -> Float32[Array, "..."]:
    return low + (high - low) * unit


def _box(shape: tuple[int, int], start: Float32[Array, "2"], end: Float32[Array, "2"]) -> Bool[Array, "h w"]:
    rows, columns = jnp.arange(shape[0])[:, None], jnp.arange(shape[1])[None, :]
    return (rows >= start[0]) & (rows < end[0]) & (columns >= start[1]) & (columns < end[1])


def _mix_pairs(
    images: Float32[Array, "b h w 3"], targets: Float32[Array, "b c"], keys: Key[Array, " b"], spec: Augment
) -> tuple[Float32[Array, "b h w 3"], Float32[Array, "b c"]]:
    """Mix images 2j and 2j + 1 with each other, and their targets by the same share."""
    pairs = images.reshape(-1, 2, *images.shape[1:])
    height_width = images.shape[1], images.shape[2]
    share, mask = jax.vmap(partial(_pair_mask, shape=height_width, spec=spec))(keys[::2])
    mask = mask[:, None, :, :, None]
    pairs = mask * pairs + (1 - mask) * pairs[:, ::-1]
    share = share[:, None, None]
    mixed = targets.reshape(-1, 2, targets.shape[-1])
    mixed = share * mixed + (1 - share) * mixed[:, ::-1]
    return pairs.reshape(images.shape), mixed.reshape(targets.shape)


def _pair_mask(key: Key[Array, ""], *, shape: tuple[int, int], spec: Augment) -> tuple[Scalar, Float32[Array, "h w"]]:
    """Return the share of an image's label in its mixed target, and the share of its pixel in each mixed pixel."""
    if not spec.cutmix:
        return _mixup_mask(key, shape, spec.mixup)
    if not spec.mixup:
        return _cutmix_mask(key, shape, spec.cutmix)
    mixup = _mixup_mask(key, shape, spec.mixup)
    cutmix = _cutmix_mask(key, shape, spec.cutmix)
    choice = jax.random.bernoulli(_stream(key, _SWITCH))
    return jax.tree.map(partial(jnp.where, choice), cutmix, mixup)


def _mixup_mask(key: Key[Array, ""], shape: tuple[int, int], alpha: float) -> tuple[Scalar, Float32[Array, "h w"]]:
    """Return the share and the mask of mixup: x = lambda x_i + (1 - lambda) x_j, lambda ~ Beta(alpha, alpha).

    Zhang et al. 2017, eq. 1.
    """
    share = draw_share(_stream(key, _MIXUP), alpha)
    return share, jnp.full(shape, share)


def _cutmix_mask(key: Key[Array, ""], shape: tuple[int, int], alpha: float) -> tuple[Scalar, Float32[Array, "h w"]]:
    """Return the share and the mask of CutMix: a box of area share 1 - lambda around a uniform centre.

    The box ends at the image's edges, and the targets follow the share of pixels that it really exchanges, as in the
    authors' code (Yun et al. 2019, sec. 3.1).
    """
    draw, centre = jax.random.split(_stream(key, _CUTMIX))
    size = jnp.array(shape, jnp.float32)
    cut = jnp.sqrt(1 - draw_share(draw, alpha))
    half = jnp.floor(size * cut) // 2
    middle = jnp.floor(jax.random.uniform(centre, (2,)) * size)
    box = _box(shape, jnp.clip(middle - half, 0, size), jnp.clip(middle + half, 0, size))
    keep = 1 - box.astype(jnp.float32)
    return keep.mean(), keep

"""RandAugment and AutoAugment: the operations of an image and their strengths, drawn inside the compiled step.

The operations themselves are in operations.py. Levels run from 0 to 10 and mean, unless a table here says otherwise:
rotation up to 30 degrees, shear up to 0.3, factors of enhancement from 0.1 to 1.9, and both directions of a geometric
operation equally often.

`randaugment` (Cubuk et al. 2019, arXiv 1909.13719) is the code that EfficientNet, EfficientNetV2 and big_vision share
(google/automl, efficientnetv2/autoaugment.py): each layer draws one of 16 operations and always applies it. Levels
may exceed 10; the arguments are then extrapolated. Translation is by up to 10 pixels for each level and cutout's box
has up to 8 pixels for each level, for any size of the image.

`randaugment_timm` is timm's "rand-m9-mstd0.5-inc1" (timm/data/auto_augment.py), used by DeiT, ConvNeXt and ResNet
strikes back: 15 operations without cutout, each applied with a probability; each application draws its level from a
normal distribution around the magnitude, clipped to [0, 10]; translation is by up to 0.45 of a side.

`autoaugment` (Cubuk et al. 2018, arXiv 1805.09501) draws one of 25 pairs of operations with their own probabilities
and levels; `paper` is the ImageNet policy of the paper's appendix, `v0` that of EfficientNet's code.

Deviations. Every operation is Pillow's, also where TensorFlow's code differs: its contrast blends with a level that
follows from the number of pixels and not with the mean grey, its shears turn about the first pixel's centre, half a
pixel away, and it truncates where Pillow rounds the grey and the smoothed picture. For the paper's policy, levels have
timm's meaning: posterize keeps 4 to 8 bits and solarize inverts from 25.6 times the level on.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int, Key, UInt8

from imagenet_repro.config import AutoAugment, NoPolicy, Policy, RandAugment, TimmRandAugment
from imagenet_repro.data.augment import operations
from imagenet_repro.data.augment.operations import Draws, Options

_GREY = (128, 128, 128)
_SIGNED = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
_ENHANCE = ("color", "contrast", "brightness", "sharpness")
_MAX_LEVEL = 10.0

_COMMON = (
    "auto_contrast",
    "equalize",
    "invert",
    "rotate",
    "posterize",
    "solarize",
    "solarize_add",
    "color",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
_TENSORFLOW = (*_COMMON, "cutout")
_TIMM = (*_COMMON, operations.IDENTITY)  # the last is not drawn; it stands for an operation that is not applied

# Columns of each layer's six uniform numbers; the last three are `place` of `operations.Draws`.
_CHOICE, _APPLY, _SIGN, _PLACE = range(4)

_V0 = (
    (("equalize", 0.8, 1), ("shear_y", 0.8, 4)),
    (("color", 0.4, 9), ("equalize", 0.6, 3)),
    (("color", 0.4, 1), ("rotate", 0.6, 8)),
    (("solarize", 0.8, 3), ("equalize", 0.4, 7)),
    (("solarize", 0.4, 2), ("solarize", 0.6, 2)),
    (("color", 0.2, 0), ("equalize", 0.8, 8)),
    (("equalize", 0.4, 8), ("solarize_add", 0.8, 3)),
    (("shear_x", 0.2, 9), ("rotate", 0.6, 8)),
    (("color", 0.6, 1), ("equalize", 1.0, 2)),
    (("invert", 0.4, 9), ("rotate", 0.6, 0)),
    (("equalize", 1.0, 9), ("shear_y", 0.6, 3)),
    (("color", 0.4, 7), ("equalize", 0.6, 0)),
    (("posterize", 0.4, 6), ("auto_contrast", 0.4, 7)),
    (("solarize", 0.6, 8), ("color", 0.6, 9)),
    (("solarize", 0.2, 4), ("rotate", 0.8, 9)),
    (("rotate", 1.0, 7), ("translate_y", 0.8, 9)),
    (("shear_x", 0.0, 0), ("solarize", 0.8, 4)),
    (("shear_y", 0.8, 0), ("color", 0.6, 4)),
    (("color", 1.0, 0), ("rotate", 0.6, 2)),
    (("equalize", 0.8, 4), ("equalize", 0.0, 8)),
    (("equalize", 1.0, 4), ("auto_contrast", 0.6, 2)),
    (("shear_y", 0.4, 7), ("solarize_add", 0.6, 7)),
    (("posterize", 0.8, 2), ("solarize", 0.6, 10)),
    (("solarize", 0.6, 8), ("equalize", 0.6, 1)),
    (("color", 0.8, 6), ("rotate", 0.4, 5)),
)
_PAPER = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 5)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 4), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 7)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 2)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 8), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 2)),
    (("equalize", 0.0, 7), ("equalize", 0.8, 8)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 8)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 9)),
    (("color", 0.4, 0), ("equalize", 0.6, 3)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 5)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
)
TABLES = {"v0": _V0, "paper": _PAPER}


def distort(
    policy: Policy,
    images: UInt8[Array, "b h w 3"],
    keys: Key[Array, " b"],
    mean: tuple[float, float, float],
) -> UInt8[Array, "b h w 3"]:
    """Apply a policy to the images of a batch.

    Args:
        policy: one of the policies of `config`, static.
        images: RGB.
        keys: one for each image, which decides every draw.
        mean: mean RGB in [0, 1], the fill colour of some policies.
    """
    if isinstance(policy, NoPolicy):
        return images
    draws = jax.vmap(lambda key: draw(policy, key, images.shape[1:3]))(keys)
    return operations.apply_layers(images, draws, options(policy, mean))


def options(policy: Policy, mean: tuple[float, float, float]) -> Options:
    """Return what is the same for all images; `mean` is the mean RGB in [0, 1]."""
    if not isinstance(policy, TimmRandAugment):
        return Options(names(policy), _GREY)
    if policy.fill == "grey":
        return Options(names(policy), _GREY, policy.interpolation)
    red, green, blue = (min(255, round(255 * channel)) for channel in mean)
    return Options(names(policy), (red, green, blue), policy.interpolation)


@functools.singledispatch
def names(policy: Policy) -> tuple[str, ...]:
    """Return the operations that the indices of `draw` count."""
    raise TypeError(f"no policy for {type(policy).__name__}")


@functools.singledispatch
def draw(policy: Policy, key: Key[Array, ""], shape: tuple[int, int]) -> Draws:
    """Draw the operations, arguments and places for `operations.apply_layers`.

    Args:
        policy: the policy.
        key: decides every draw.
        shape: height and width of the image in pixels.

    Returns:
        For each layer, the operation as an index into `names(policy)`, its argument and its place.
    """
    raise TypeError(f"no policy for {type(policy).__name__}")


@names.register
def _(policy: RandAugment) -> tuple[str, ...]:
    return _TENSORFLOW


@draw.register
def _(policy: RandAugment, key: Array, shape: tuple) -> Draws:
    uniform = _uniform(key, policy.layers)
    operation = (uniform[:, _CHOICE] * len(_TENSORFLOW)).astype(jnp.int32)
    level = jnp.full(policy.layers, policy.magnitude, jnp.float32)
    arguments = {name: tensorflow_argument(name, level) for name in _TENSORFLOW}
    arguments |= {"translate_x": 10 * level, "translate_y": 10 * level, "cutout": jnp.floor(4 * level + 1e-5)}
    argument = _directed(_pick(arguments, operation), operation, _TENSORFLOW, uniform)
    return Draws(operation, argument, uniform[:, _PLACE:])


@names.register
def _(policy: TimmRandAugment) -> tuple[str, ...]:
    return _TIMM


@draw.register
def _(policy: TimmRandAugment, key: Array, shape: tuple) -> Draws:
    uniform = _uniform(key, policy.layers)
    operation = (uniform[:, _CHOICE] * len(_COMMON)).astype(jnp.int32)
    level = policy.magnitude + policy.magnitude_std * _normal(key, policy.layers)
    level = jnp.clip(level, 0, _MAX_LEVEL)
    height, width = shape
    arguments = {name: tensorflow_argument(name, level) for name in _COMMON}
    arguments |= {"translate_x": 0.045 * level * width, "translate_y": 0.045 * level * height}
    if policy.increasing:
        sign = jnp.where(uniform[:, _SIGN] < 0.5, 1.0, -1.0)
        arguments |= dict.fromkeys(_ENHANCE, jnp.maximum(0.1, 1 + 0.09 * level * sign))
        arguments |= {"posterize": 4 - arguments["posterize"], "solarize": 256 - arguments["solarize"]}
    argument = _directed(_pick(arguments, operation), operation, _COMMON, uniform)
    operation = jnp.where(uniform[:, _APPLY] < policy.probability, operation, _TIMM.index(operations.IDENTITY))
    return Draws(operation, argument, uniform[:, _PLACE:])


@names.register
def _(policy: AutoAugment) -> tuple[str, ...]:
    return (operations.IDENTITY, *sorted({name for pair in TABLES[policy.table] for name, _, _ in pair}))


@draw.register
def _(policy: AutoAugment, key: Array, shape: tuple) -> Draws:
    among, uniform = names(policy), _uniform(key, 2)
    pair = (uniform[0, _CHOICE] * len(TABLES[policy.table])).astype(jnp.int32)
    operation, probability, argument = (jnp.asarray(column)[pair] for column in _columns(policy.table, among))
    argument = _directed(argument, operation, among, uniform)
    operation = jnp.where(uniform[:, _APPLY] < probability, operation, among.index(operations.IDENTITY))
    return Draws(operation, argument, uniform[:, _PLACE:])


def tensorflow_argument(name: str, level: Float32[Array, " n"]) -> Float32[Array, " n"]:
    """Return an operation's arguments at levels in EfficientNet's code, before a direction is drawn.

    The arguments of translation and cutout differ between policies and are set by the callers; for them, and for
    operations without an argument, the level itself is returned.
    """
    if name in _ENHANCE:
        return 0.18 * level + 0.1
    scales = {"rotate": 3.0, "shear_x": 0.03, "shear_y": 0.03}
    integer_scales = {"posterize": 0.4, "solarize": 25.6, "solarize_add": 11.0}
    if name in integer_scales:
        # In single precision, a product such as 0.4 x 5 may fall below an integer; the small number prevents that.
        return jnp.floor(integer_scales[name] * level + 1e-5)
    return scales.get(name, 1.0) * level


def _columns(name: str, among: tuple[str, ...]) -> tuple[Array, Array, Array]:
    """Return the operations, probabilities and arguments of a table, 25 x 2 each."""
    table = np.array(TABLES[name], dtype=object)
    operation = np.vectorize(among.index)(table[:, :, 0]).astype(np.int32)
    levels = jnp.asarray(table[:, :, 2].astype(np.float32).reshape(-1))
    arguments = {operation: tensorflow_argument(operation, levels) for operation in among}
    arguments["translate_y"] = 25 * levels
    if name == "paper":
        arguments["posterize"] += 4
    argument = _pick({operation: arguments[operation] for operation in among}, jnp.asarray(operation.reshape(-1)))
    return jnp.asarray(operation), jnp.asarray(table[:, :, 1].astype(np.float32)), argument.reshape(operation.shape)


def _uniform(key: Key[Array, ""], layers: int) -> Float32[Array, "{layers} 6"]:
    return jax.random.uniform(key, (layers, _PLACE + 3))


def _normal(key: Key[Array, ""], layers: int) -> Float32[Array, " {layers}"]:
    return jax.random.normal(jax.random.fold_in(key, 1), (layers,))


def _pick(arguments: dict[str, Array], operation: Int[Array, " n"]) -> Float32[Array, " n"]:
    table = jnp.stack(list(arguments.values()))
    return jnp.take_along_axis(table, operation[None], axis=0)[0]


def _directed(argument: Array, operation: Array, among: tuple[str, ...], uniform: Array) -> Float32[Array, " n"]:
    """Return the argument, negated in half of the cases where the operation has a direction."""
    signed = jnp.array([name in _SIGNED for name in among])[operation]
    return jnp.where(signed & (uniform[:, _SIGN] < 0.5), -argument, argument)

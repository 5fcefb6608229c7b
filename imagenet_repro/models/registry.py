"""The zoo: one family to a file, its variants as a table; nothing about training.

`create(name)` makes a network, `names()` lists them, `SPECS` says what each is, `abstract(name)` gives shapes alone.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from imagenet_repro.errors import UserError, nearest
from imagenet_repro.models import (
    alexnet,
    convnext,
    efficientnet,
    googlenet,
    inception,
    inception_v4,
    lenet,
    resnet,
    resnet_cifar,
    resnetv2,
    resnext,
    senet,
    vgg,
    vit,
    zfnet,
)
from imagenet_repro.models.nn.initialisers import DrawnRngs, Draws, initialise
from imagenet_repro.models.nn.network import Network
from imagenet_repro.models.options import check_num_classes, check_options
from imagenet_repro.models.spec import Origin, Spec

FAMILIES = (
    lenet,
    alexnet,
    zfnet,
    vgg,
    googlenet,
    inception,
    inception_v4,
    resnet,
    resnet_cifar,
    resnetv2,
    resnext,
    senet,
    efficientnet,
    convnext,
    vit,
)
SPECS: dict[str, Spec] = {name: spec for family in FAMILIES for name, spec in family.VARIANTS.items()}
_ALIASES = {alias: name for name, spec in SPECS.items() for alias in spec.aliases}


def names() -> tuple[str, ...]:
    """Every network's name, in the order of the story."""
    return tuple(SPECS)


def aliases() -> tuple[str, ...]:
    """Other names under which networks are known."""
    return tuple(_ALIASES)


def spec(name: str) -> Spec:
    """What is known of the network `name` (or an alias of it). Raises UserError with the nearest name."""
    name = _ALIASES.get(name, name)
    if name not in SPECS:
        raise UserError(f"no network is called '{name}': {nearest(name, [*SPECS, *_ALIASES])}")
    return SPECS[name]


def build(
    name: str, *, rngs: nnx.Rngs, num_classes: int | None = None, dtype: DTypeLike = jnp.float32, **options: Any
) -> Network:
    """The network itself, to be called under a transformation; `create` and `abstract` are that.

    Raises UserError for an unknown name or option, or a value that the option does not take.
    """
    found = spec(name)
    num_classes = found.num_classes if num_classes is None else num_classes
    check_options(name, found.options, options)
    check_num_classes(name, num_classes)
    network = found.builder(*found.sizes, rngs=rngs, num_classes=num_classes, dtype=jnp.dtype(dtype), **options)
    network.origin = Origin(_ALIASES.get(name, name), num_classes, options)
    return network


def create(
    name: str, num_classes: int | None = None, dtype: DTypeLike = jnp.float32, seed: int = 0, **options: Any
) -> Network:
    """The initialised network, in training mode; `.eval()` switches it to evaluation.

    Called with float images [batch, height, width, 3] it returns float32 logits [batch, num_classes], or features
    where `num_classes` is 0. Its default is that of the published weights: 1000, but 10 for LeNet and CIFAR, 0 for
    DINOv2. `dtype` is that of the computation; parameters are float32. The same seed gives the same parameters on
    every platform. `options` are the network's own (`spec(name).options`). Raises UserError for an unknown name or
    option, or a value that the option does not take.
    """
    make = functools.partial(build, name, num_classes=num_classes, dtype=dtype, **options)
    return initialise(lambda rngs: make(rngs=rngs), jax.random.key(seed))


def abstract(name: str, num_classes: int | None = None, dtype: DTypeLike = jnp.float32, **options: Any) -> Network:
    """The network with `jax.ShapeDtypeStruct`s for arrays: names, shapes and counts without allocating anything."""

    def make() -> Network:
        # Draws that are only counted: the time for random numbers, even traced ones, grows as the square of the depth.
        rngs = DrawnRngs(jax.random.key(0), Draws())
        return build(name, rngs=rngs, num_classes=num_classes, dtype=dtype, **options)

    return nnx.eval_shape(make)


def canonical(name: str) -> str:
    """The name in `SPECS` of which `name` is an alias; any other name as it is."""
    return _ALIASES.get(name, name)

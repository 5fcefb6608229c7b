"""The registry of networks: every variant of every family by its name, and the functions that make one."""

import functools
import importlib
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from imagenet_repro.errors import UserError, nearest
from imagenet_repro.models.nn.initialisers import DrawnRngs, Draws, initialise
from imagenet_repro.models.nn.network import Network
from imagenet_repro.models.options import check_num_classes, check_options
from imagenet_repro.models.spec import Origin, Spec

# The modules of this package that have a table VARIANTS, the specification of every variant by its name. A new family
# is one more line here.
FAMILIES = (
    "lenet",
    "alexnet",
    "zfnet",
    "vgg",
    "googlenet",
    "inception",
    "inception_v4",
    "resnet",
    "resnet_cifar",
    "resnetv2",
    "resnext",
    "senet",
    "efficientnet",
    "regnet",
    "convnext",
    "vit",
    "eva02",
    "dinov3",
    "maxvit",
)
SPECS: dict[str, Spec] = {
    name: spec
    for family in FAMILIES
    for name, spec in importlib.import_module(f"imagenet_repro.models.{family}").VARIANTS.items()
}
# The names that torchvision and timm give to these networks, where no other network has them here.
_THEIRS = {spec.reference.partition(":")[2]: name for name, spec in reversed(SPECS.items())}
_ALIASES = {theirs: name for theirs, name in _THEIRS.items() if theirs and theirs not in SPECS}
_ALIASES |= {alias: name for name, spec in SPECS.items() for alias in spec.aliases}


def names() -> tuple[str, ...]:
    """Return the name of every network, family by family."""
    return tuple(SPECS)


def published_names() -> tuple[str, ...]:
    """Return the name of every network that is not an own one."""
    return tuple(name for name, spec in SPECS.items() if spec.is_published)


def aliases() -> tuple[str, ...]:
    """Return the other names by which networks are known."""
    return tuple(_ALIASES)


def canonical(name: str) -> str:
    """Return the name in `SPECS` that an alias stands for; any other name is returned unchanged."""
    return _ALIASES.get(name, name)


def family(name: str) -> str:
    """Return the family of the network `name` (or an alias of it), one of `FAMILIES`; empty if none has it."""
    name = canonical(name)
    modules = {one: importlib.import_module(f"imagenet_repro.models.{one}") for one in FAMILIES}
    return next((one for one, module in modules.items() if name in module.VARIANTS), "")


def spec(name: str) -> Spec:
    """Return the specification of the network `name` (or an alias of it).

    Raises:
      UserError: no network has that name; the message names the nearest.
    """
    name = canonical(name)
    if name not in SPECS:
        raise UserError(f"no network is called '{name}': {nearest(name, [*SPECS, *_ALIASES])}")
    return SPECS[name]


def build(
    name: str, *, rngs: nnx.Rngs, num_classes: int | None = None, dtype: DTypeLike = jnp.float32, **options: Any
) -> Network:
    """Return the network with parameters drawn from `rngs`, op by op; `create` compiles this, `abstract` traces it.

    Raises:
      UserError: an unknown name or option, or a value that the option does not take.
    """
    specification = spec(name)
    num_classes = specification.num_classes if num_classes is None else num_classes
    check_options(name, specification.options, options)
    check_num_classes(name, num_classes)
    network_dtype = jnp.dtype(dtype)
    network = specification.builder(
        *specification.sizes, rngs=rngs, num_classes=num_classes, dtype=network_dtype, **options
    )
    if network_dtype == jnp.float64:
        widen_parameters(network)
    network.origin = Origin(canonical(name), num_classes, options)
    return network


def widen_parameters(network: nnx.Module) -> None:
    """Change the parameters and running statistics of a network to float64, in place."""
    state = nnx.state(network, nnx.Any(nnx.Param, nnx.BatchStat))
    nnx.update(network, jax.tree.map(lambda value: value.astype(jnp.float64), state))


def create(
    name: str, num_classes: int | None = None, dtype: DTypeLike = jnp.float32, seed: int = 0, **options: Any
) -> Network:
    """Return an initialised network in training mode; its `.eval()` switches to evaluation.

    The network takes float images [batch, height, width, 3] and returns float32 logits [batch, num_classes]. The same
    seed gives the same parameters on every platform.

    Args:
      name: of the network, or an alias.
      num_classes: 0 for a network without a head, which returns features; None for the number of the published
        weights: 1000, but 10 for LeNet and CIFAR, 0 for DINOv2.
      dtype: of the computation. Parameters are float32; with float64, which needs `jax_enable_x64`, they are float64.
      seed: of the initial parameters and of the random streams.
      options: the network's own, as `spec(name).options` lists them.

    Raises:
      UserError: an unknown name or option, or a value that the option does not take.
    """
    build_network = functools.partial(build, name, num_classes=num_classes, dtype=dtype, **options)
    return initialise(lambda rngs: build_network(rngs=rngs), jax.random.key(seed))


def abstract(name: str, num_classes: int | None = None, dtype: DTypeLike = jnp.float32, **options: Any) -> Network:
    """Return the network with a `jax.ShapeDtypeStruct` for every array: names, shapes and counts, nothing allocated.

    Arguments and errors are those of `create`.
    """

    def build_network() -> Network:
        # Draws that are only counted: the time for random numbers, even traced ones, grows as the square of the depth.
        rngs = DrawnRngs(jax.random.key(0), Draws())
        return build(name, rngs=rngs, num_classes=num_classes, dtype=dtype, **options)

    return nnx.eval_shape(build_network)

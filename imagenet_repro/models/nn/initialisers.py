"""Random initial parameters, drawn together.

XLA takes a third of a second to compile a kernel of random numbers, and a network would have one for each tensor. So a
network is built twice: once on abstract values, which counts the numbers that each distribution must supply, and once
under `jit`, where one draw for each distribution supplies them all (ResNet-50 on two cores: 1.6 s instead of 9 s).
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Key

Module = TypeVar("Module", bound=nnx.Module)

Shape = tuple[int, ...]
Scale = float | np.ndarray  # one number, or one for each entry of the last axis


def _unit_uniform(key: Key[Array, ""], shape: Shape) -> Float[Array, "..."]:
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)


def _truncated_normal(key: Key[Array, ""], shape: Shape) -> Float[Array, "..."]:
    return jax.random.truncated_normal(key, -2.0, 2.0, shape)


DISTRIBUTIONS = {"normal": jax.random.normal, "truncated_normal": _truncated_normal, "uniform": _unit_uniform}
CONSTANT = "constant"  # the degenerate distribution, which draws nothing


@dataclasses.dataclass(frozen=True)
class Initialiser:
    """Initial values: `scale(shape)` times a draw from a distribution.

    "normal" is the standard normal distribution, "truncated_normal" the same cut off at -2 and 2 (with a standard
    deviation of 0.88), "uniform" the uniform distribution on [-1, 1), and "constant" is always 1.
    """

    distribution: str  # of DISTRIBUTIONS, or CONSTANT
    scale: Callable[[Shape], Scale]


def fan_in(shape: Shape) -> int:
    """Return the number of inputs of one output of a kernel [..., in, out]."""
    return math.prod(shape[:-1])


def fan_out(shape: Shape) -> int:
    """Return the number of outputs that one input of a kernel [height, width, in, out] or [in, out] reaches.

    Groups are not taken into account.
    """
    return math.prod(shape[:-2]) * shape[-1]


def normal(std: float) -> Initialiser:
    """Return an initialiser that draws from N(0, std^2)."""
    return Initialiser("normal", lambda _: std)


def truncated_normal(std: float) -> Initialiser:
    """Return an initialiser that draws from N(0, std^2) cut off at two deviations and not rescaled (TensorFlow's)."""
    return Initialiser("truncated_normal", lambda _: std)


def halves(initialiser: Initialiser, second: float) -> Initialiser:
    """Return `initialiser` for the first half of the last axis, and the same with the scale `second` for the other."""

    def scale(shape: Shape) -> np.ndarray:
        return np.repeat(np.array([initialiser.scale(shape), second], np.float32), shape[-1] // 2)

    return Initialiser(initialiser.distribution, scale)


def constant(value: float) -> Initialiser:
    """Return an initialiser whose values are all `value`."""
    return Initialiser(CONSTANT, lambda _: value)


# The default of PyTorch's layers, for weights and biases.
torch_uniform = Initialiser("uniform", lambda shape: fan_in(shape) ** -0.5)
# He et al. 2015 (arXiv 1502.01852), sec. 2.2: keeps the variance of the gradient the same through a ReLU.
kaiming_fan_out = Initialiser("normal", lambda shape: math.sqrt(2 / fan_out(shape)))


class Draws:
    """Random numbers for one network.

    `take` counts the numbers that each distribution must supply; after `fill` it returns them.
    """

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self._pools: dict[str, Array] = {}

    def fill(self, key: Key[Array, ""], count: Counter[str]) -> "Draws":
        """Draw `count[name]` numbers from each distribution; return self."""
        for name, total in sorted(count.items()):
            drawn = DISTRIBUTIONS[name](jax.random.fold_in(key, len(self._pools)), (total,))
            self._pools[name] = lax.optimization_barrier(drawn)  # else XLA draws again in the kernel of every slice
        return self

    def take(self, distribution: str, shape: Shape) -> Float[Array, "..."]:
        """Return the next numbers in this shape, or zeros before `fill`."""
        size, start = math.prod(shape), self.count[distribution]
        self.count[distribution] += size
        if distribution not in self._pools:
            return jnp.zeros(shape, jnp.float32)
        return self._pools[distribution][start : start + size].reshape(shape)


class DrawnRngs(nnx.Rngs):
    """Random streams of a network, and `draws`, which supplies its initial parameters."""

    def __init__(self, key: Key[Array, ""], draws: Draws):
        super().__init__(key)
        self.draws = draws


def parameter(rngs: nnx.Rngs, initialiser: Initialiser, shape: Shape, scale: Scale | None = None) -> nnx.Param:
    """Return a float32 parameter of this shape; `scale` replaces the initialiser's own."""
    factor: Scale = initialiser.scale(shape) if scale is None else scale
    if initialiser.distribution == CONSTANT:
        return nnx.Param(jnp.full(shape, factor, jnp.float32))
    if isinstance(rngs, DrawnRngs):
        return nnx.Param(factor * rngs.draws.take(initialiser.distribution, shape))
    return nnx.Param(factor * DISTRIBUTIONS[initialiser.distribution](rngs.params(), shape))


def initialise(build: Callable[[nnx.Rngs], Module], key: Key[Array, ""]) -> Module:
    """Return the module that `build` makes, with parameters and random streams from `key`, in one compiled program."""
    needed = Draws()
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: build(DrawnRngs(jax.random.key(0), needed))))

    @jax.jit
    def initial_state(key: Key[Array, ""]) -> nnx.State:
        pool_key, stream_key = jax.random.split(key)
        return nnx.state(build(DrawnRngs(stream_key, Draws().fill(pool_key, needed.count))))

    return nnx.merge(graphdef, initial_state(key))

"""Random initial parameters, drawn together.

A random-number kernel takes XLA a third of a second to compile, and a network would have one for each tensor. So the
networks are built twice: once on abstract values, which counts the numbers that each distribution must supply, and
once under `jit`, where one draw for each distribution supplies them all (ResNet-50 on two cores: 1.6 s, not 9).
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Key

Shape = tuple[int, ...]


def _unit_uniform(key: Key[Array, ""], shape: Shape) -> Float[Array, "..."]:
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)


def _truncated_normal(key: Key[Array, ""], shape: Shape) -> Float[Array, "..."]:
    return jax.random.truncated_normal(key, -2.0, 2.0, shape)


DISTRIBUTIONS = {"normal": jax.random.normal, "truncated_normal": _truncated_normal, "uniform": _unit_uniform}
CONSTANT = "constant"  # the degenerate one: nothing is drawn


@dataclasses.dataclass(frozen=True)
class Initialiser:
    """`scale(shape)` times a draw; a scale is one number, or one for each entry of the last axis.

    "normal" is the standard normal, "truncated_normal" the same without what lies beyond 2 (its deviation is then
    0.88), "uniform" the uniform distribution on [-1, 1), "constant" always 1.
    """

    distribution: str  # of DISTRIBUTIONS, or CONSTANT
    scale: Callable[[Shape], float | np.ndarray]


def fan_in(shape: Shape) -> int:
    """Inputs that one output of a kernel [..., in, out] sees."""
    return math.prod(shape[:-1])


def fan_out(shape: Shape) -> int:
    """Outputs that one input of a kernel [height, width, in, out] or [in, out] reaches; groups are not known here."""
    return math.prod(shape[:-2]) * shape[-1]


def normal(std: float) -> Initialiser:
    """N(0, std^2)."""
    return Initialiser("normal", lambda _: std)


def truncated_normal(std: float) -> Initialiser:
    """N(0, std^2) without what lies beyond two deviations, not widened to make up for it (as TensorFlow has it)."""
    return Initialiser("truncated_normal", lambda _: std)


def halves(initialiser: Initialiser, second: float) -> Initialiser:
    """`initialiser` for the first half of the last axis; in the other half the scale is `second`."""

    def scale(shape: Shape) -> np.ndarray:
        return np.repeat(np.float32([initialiser.scale(shape), second]), shape[-1] // 2)

    return Initialiser(initialiser.distribution, scale)


def constant(value: float) -> Initialiser:
    """Always `value`."""
    return Initialiser(CONSTANT, lambda _: value)


# What PyTorch's layers start from when nothing is said, weights and biases.
torch_uniform = Initialiser("uniform", lambda shape: fan_in(shape) ** -0.5)
# He et al. 2015 (arXiv 1502.01852), sec. 2.2: keeps the variance of the gradient through a ReLU.
kaiming_fan_out = Initialiser("normal", lambda shape: math.sqrt(2 / fan_out(shape)))


class Draws:
    """Numbers for one network: `take` counts what is asked of each distribution, and hands it out once `fill`ed."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self._pools: dict[str, Array] = {}

    def fill(self, key: Key[Array, ""], count: Counter[str]) -> "Draws":
        """Draws `count[name]` numbers from each distribution."""
        for name, total in sorted(count.items()):
            drawn = DISTRIBUTIONS[name](jax.random.fold_in(key, len(self._pools)), (total,))
            self._pools[name] = lax.optimization_barrier(drawn)  # never drawn again inside the kernel of a slice
        return self

    def take(self, distribution: str, shape: Shape) -> Float[Array, "..."]:
        """The next numbers, in this shape; zeros while only counting."""
        size, start = math.prod(shape), self.count[distribution]
        self.count[distribution] += size
        if distribution not in self._pools:
            return jnp.zeros(shape, jnp.float32)
        return self._pools[distribution][start : start + size].reshape(shape)


class DrawnRngs(nnx.Rngs):
    """Random streams as usual, and initial parameters from `draws`."""

    def __init__(self, key: Key[Array, ""], draws: Draws):
        super().__init__(key)
        self.draws = draws


def parameter(rngs: nnx.Rngs, initialiser: Initialiser, shape: Shape, scale: float | None = None) -> nnx.Param:
    """A float32 parameter of this shape; `scale` replaces the initialiser's own."""
    scale = initialiser.scale(shape) if scale is None else scale
    if initialiser.distribution == CONSTANT:
        return nnx.Param(jnp.full(shape, scale, jnp.float32))
    if isinstance(rngs, DrawnRngs):
        return nnx.Param(scale * rngs.draws.take(initialiser.distribution, shape))
    return nnx.Param(scale * DISTRIBUTIONS[initialiser.distribution](rngs.params(), shape))


def initialise(build: Callable[[nnx.Rngs], nnx.Module], key: Key[Array, ""]) -> nnx.Module:
    """The module that `build` makes, its parameters and random streams from `key`, compiled once."""
    needed = Draws()
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: build(DrawnRngs(jax.random.key(0), needed))))

    @jax.jit
    def initial_state(key: Key[Array, ""]) -> nnx.State:
        pool_key, stream_key = jax.random.split(key)
        return nnx.state(build(DrawnRngs(stream_key, Draws().fill(pool_key, needed.count))))

    return nnx.merge(graphdef, initial_state(key))

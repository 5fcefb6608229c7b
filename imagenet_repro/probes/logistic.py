"""Multinomial logistic regression on stored features, by L-BFGS over all images (Radford et al. 2021, appendix A.3).

The loss is scikit-learn's: the sum of the images' cross-entropies and half of the strength times the sum of squared
weights; the bias is not regularised. SciPy's L-BFGS runs on the host in float64. The loss and its gradient are
computed on the devices in float32, block by block, so that memory does not grow with the number of images.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float16, Float32, Int32

from imagenet_repro.config.probe import LogisticProbe
from imagenet_repro.errors import UserError
from imagenet_repro.probes.device_blocks import DeviceBlocks

FIRST_STEP = 2.0  # decades between the strengths with which the search begins
HISTORY = 10  # gradients that L-BFGS keeps
IN_FLIGHT = 2  # blocks whose transfer may have begun before the one in use is done
LINE_SEARCH = 50  # evaluations in one line search


@dataclasses.dataclass(frozen=True)
class Fit:
    """A fitted classifier.

    Attributes:
      strength: of the regularisation, lambda = 1 / C.
      weight: [d, c] float32.
      bias: [c] float32.
      iterations: of L-BFGS.
      has_converged: whether the gradient fell below the tolerance.
    """

    strength: float
    weight: Float32[np.ndarray, "d c"]
    bias: Float32[np.ndarray, " c"]
    iterations: int
    has_converged: bool

    def scores(self, features: Float16[np.ndarray, "n d"]) -> Float32[np.ndarray, "n c"]:
        """Return the logits of images."""
        return np.asarray(logits(jnp.asarray(self.weight), jnp.asarray(self.bias), jnp.asarray(features)))


def fit(
    blocks: DeviceBlocks,
    strength: float,
    settings: LogisticProbe,
    *,
    num_classes: int,
    start: Fit | None = None,
) -> Fit:
    """Return the classifier of one strength.

    Args:
      blocks: the training rows, split over the devices.
      strength: of the regularisation.
      settings: `max_iterations` and `tolerance` are used.
      num_classes: number of classes.
      start: the classifier from which the search begins; None: zeros.
    """
    from scipy import optimize

    width = blocks.width
    images = sum(len(block.index) for block in blocks)

    def loss_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = tuple(jnp.asarray(part, jnp.float32) for part in _unpack(x, num_classes))
        total: tuple[Array, Array] | None = None
        losses: list[Array] = []
        for block in blocks:
            value, gradients = _block_loss(*parameters, block.features, block.label)
            total = gradients if total is None else _add(total, gradients)
            losses.append(value)
            if len(losses) > IN_FLIGHT:
                losses[-IN_FLIGHT].block_until_ready()
        assert total is not None, "there are training images"
        # Summed in float64: near the minimum the loss changes by less than float32 resolves.
        loss = sum(np.sum(values, dtype=np.float64) for values in jax.device_get(losses))
        slope = np.concatenate([np.asarray(gradient, np.float64).ravel() for gradient in total])
        penalty = x.copy()
        penalty[width * num_classes :] = 0.0  # the bias
        return float(loss + 0.5 * strength * penalty @ penalty) / images, (slope + strength * penalty) / images

    first = np.zeros((width + 1) * num_classes)
    if start is not None:
        first = np.concatenate([start.weight.ravel(), start.bias]).astype(np.float64)
    options = {
        "maxiter": settings.max_iterations,
        "maxfun": 4 * settings.max_iterations,
        "maxls": LINE_SEARCH,
        "maxcor": HISTORY,
        "gtol": settings.tolerance,
        "ftol": 64 * np.finfo(float).eps,
    }
    result = optimize.minimize(loss_and_gradient, first, jac=True, method="L-BFGS-B", options=options)
    weight, bias = (part.astype(np.float32) for part in _unpack(result.x, num_classes))
    return Fit(strength, weight, bias, int(result.nit), bool(result.success))


def _unpack(x: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    return x[:-num_classes].reshape(-1, num_classes), x[-num_classes:]


@jax.jit
def logits(
    weight: Float32[Array, "d c"], bias: Float32[Array, " c"], features: Float16[Array, "n d"]
) -> Float32[Array, "n c"]:
    """Return the logits of a linear classifier."""
    return jnp.matmul(features.astype(jnp.float32), weight, precision=lax.Precision.HIGHEST) + bias


@jax.jit
def _block_loss(
    weight: Float32[Array, "d c"],
    bias: Float32[Array, " c"],
    features: Float16[Array, "n d"],
    label: Int32[Array, " n"],
) -> tuple[Float32[Array, " n"], tuple[Float32[Array, "d c"], Float32[Array, " c"]]]:
    """Return the cross-entropy of each row of a block and the gradients of their sum; rows of label -1 are padding."""

    def loss(weight: Array, bias: Array) -> tuple[Array, Array]:
        log_probabilities = jax.nn.log_softmax(logits(weight, bias, features))
        of_label = jnp.take_along_axis(log_probabilities, jnp.maximum(label, 0)[:, None], axis=1)[:, 0]
        losses = jnp.where(label >= 0, -of_label, 0.0)
        return jnp.sum(losses), losses

    gradients, losses = jax.grad(loss, argnums=(0, 1), has_aux=True)(weight, bias)
    return losses, gradients


@jax.jit
def _add(one: tuple[Array, Array], other: tuple[Array, Array]) -> tuple[Array, Array]:
    return one[0] + other[0], one[1] + other[1]


def search(
    fit_one: Callable[[float, Fit | None], Fit], error_of: Callable[[Fit], int], settings: LogisticProbe
) -> Iterator[tuple[Fit, int]]:
    """Yield the classifiers of CLIP's search for the strength, each with its errors on held-out images.

    The search begins with strengths two decades apart. It then halves the step, and tries both neighbours of the best
    strength, until there are `per_decade` steps in a factor of ten: 15 fits in place of 97 with the defaults. Each fit
    starts from the result of the nearest strength, which changes only the number of iterations: the loss is convex.

    Args:
      fit_one: the fit of a strength from a start.
      error_of: the number of held-out images that a fit classifies wrongly.
      settings: the range, and the steps in a decade.

    Raises:
      UserError: the range is empty.
    """
    low, high = _range(settings)
    fits: dict[float, tuple[Fit, int]] = {}

    def visit(exponent: float) -> Iterator[tuple[Fit, int]]:
        if exponent in fits or not low <= exponent <= high:
            return
        nearest = min(fits, key=lambda other: abs(other - exponent), default=None)
        fitted = fit_one(10**exponent, None if nearest is None else fits[nearest][0])
        fits[exponent] = fitted, error_of(fitted)
        yield fits[exponent]

    for exponent in _first_exponents(settings):
        yield from visit(exponent)
    step = FIRST_STEP
    while step > 1 / settings.per_decade:
        step /= 2
        centre = max(fits, key=lambda exponent: (-fits[exponent][1], exponent))
        for exponent in (centre + step, centre - step):
            yield from visit(exponent)


def select(errors: Sequence[int], strengths: Sequence[float]) -> int:
    """Return the number of the fit with the fewest errors; of equal ones, the most regularised."""
    return min(range(len(errors)), key=lambda number: (errors[number], -strengths[number]))


def n_fits(settings: LogisticProbe) -> int:
    """Return the most fits that `search` makes."""
    halvings = math.ceil(math.log2(FIRST_STEP * settings.per_decade))
    return len(_first_exponents(settings)) + 2 * max(halvings, 0)


def _range(settings: LogisticProbe) -> tuple[float, float]:
    """Return the exponents of the weakest and of the strongest regularisation."""
    low, high = math.log10(settings.weakest), math.log10(settings.strongest)
    if low > high:
        raise UserError("--probe.logistic.weakest must not be larger than --probe.logistic.strongest")
    return low, high


def _first_exponents(settings: LogisticProbe) -> list[float]:
    """Return exponents two apart, the largest first, and the smallest."""
    low, high = _range(settings)
    return [*np.arange(high, low, -FIRST_STEP).tolist(), low]

"""Parameters, multiply-adds and floating point operations, counted from traces without allocation or compilation.

There are two conventions for the taps of convolutions (`Taps`). "full" counts every tap, also on padding, as papers
count multiply-adds and as a program does that pads its inputs. "real" counts the taps on elements of the input alone,
as XLA counts operations. They differ most on small maps with large kernels, and not at all for matrix products.
`multiply_adds` takes "full" unless told otherwise, `flops` takes "real", and a run's `config.flops` decides for its
training steps. Counts depend on shapes only, so they are the same on every platform.
"""

import math
import typing
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend import core

from imagenet_repro import models
from imagenet_repro.config.run import Taps
from imagenet_repro.models import wrong_size


def parameter_count(model: nnx.Module) -> int:
    """Return the number of trainable parameters of a module of arrays or of shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def multiply_adds(
    network: str | nnx.Module, image_size: int, *, num_classes: int | None = None, taps: Taps = "full", **options: Any
) -> int:
    """Return the multiply-adds of a network on one image in evaluation mode.

    Convolutions and matrix products count; biases, norms, pooling and activations do not.

    Args:
      network: a name, or a module of arrays or of shapes.
      image_size: pixels of the square image.
      num_classes: of the network by that name; None: those of its published weights.
      taps: the taps of convolutions that count; the default is the papers' convention.
      options: of the network by that name.

    Raises:
      UserError: an unknown network or option, or a size that the network cannot take.
    """
    model = models.abstract(network, num_classes, **options) if isinstance(network, str) else nnx.clone(network)
    return evaluation_counts(model, image_size)[taps]


def evaluation_counts(network: nnx.Module, image_size: int) -> dict[Taps, int]:
    """Return the multiply-adds of a module on one image in evaluation mode by both conventions, from one trace."""
    model = nnx.clone(network)
    model.eval()
    graph, state = nnx.split(model)
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    with wrong_size.explained(getattr(network, "origin", None), images.shape):
        program = jax.make_jaxpr(lambda state, images: nnx.merge(graph, state)(images))(state, images).jaxpr
    return {taps: _count_jaxpr(program, taps) for taps in typing.get_args(Taps)}


def flops(function: Callable, *arguments: Any, taps: Taps = "real") -> int:
    """Return the floating point operations of a function, from its trace on arrays or `jax.ShapeDtypeStruct`s.

    The body of a `scan` counts once for every iteration, the body of a `while` loop once, since the number of its
    iterations is unknown. The most expensive branch of a `cond` counts. A function that `shard_map` maps counts once
    for each device. Where a program has a form for each platform (models/nn/cpu_convolution.py), the default form
    counts.

    Args:
      function: the function.
      arguments: its arguments.
      taps: the taps of convolutions that count.
    """
    return 2 * _count_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr, taps)


def _count_jaxpr(jaxpr: core.Jaxpr, taps: Taps) -> int:
    return sum(_count_equation(equation, taps) for equation in jaxpr.eqns)


def _count_equation(equation: core.JaxprEqn, taps: Taps) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _count_product(equation)
    if name == "conv_general_dilated":
        return _count_convolution(equation, taps)
    inner = [_count_jaxpr(jaxpr, taps) for jaxpr in _inner_jaxprs(params)]
    if not inner:
        return 0
    if name == "cond":
        platforms = params.get("branches_platforms")
        return inner[platforms.index(None)] if platforms else max(inner)
    repetitions = {"scan": params.get("length", 1), "shard_map": params["mesh"].size if "mesh" in params else 1}
    return sum(inner) * repetitions.get(name, 1)


def _inner_jaxprs(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    """Yield the programs that an equation calls."""
    for value in params.values():
        for entry in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(entry, "jaxpr", entry)  # a closed program has the program itself
            if isinstance(inner, core.Jaxpr):
                yield inner


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _count_product(equation: core.JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, out = _shape(equation.invars[0]), _shape(equation.outvars[0])
    return math.prod(out) * math.prod(left[axis] for axis in contracted)


def _count_convolution(equation: core.JaxprEqn, taps: Taps) -> int:
    """Count output elements x input features x (position, tap) pairs.

    A pair on a hole between dilated elements never counts: in the input gradient of a strided convolution the holes
    are not padding, and the other pairs are those of the convolution itself.
    """
    params = equation.params
    numbers = params["dimension_numbers"]
    inputs, kernel, out = map(_shape, (*equation.invars[:2], equation.outvars[0]))
    pairs = 1
    for dimension, (low, _) in enumerate(params["padding"]):
        size, positions = kernel[numbers.rhs_spec[2 + dimension]], out[numbers.out_spec[2 + dimension]]
        stride, hole, spread = (params[k][dimension] for k in ("window_strides", "lhs_dilation", "rhs_dilation"))
        reads = [at * stride + tap * spread - low for at in range(positions) for tap in range(size)]
        last = (inputs[numbers.lhs_spec[2 + dimension]] - 1) * hole
        pairs *= sum(read % hole == 0 and (taps == "full" or 0 <= read <= last) for read in reads)
    return out[numbers.out_spec[0]] * out[numbers.out_spec[1]] * kernel[numbers.rhs_spec[1]] * pairs

"""Parameters, multiply-adds and floating point operations, counted from traces: nothing is allocated or compiled.

Two conventions. `multiply_adds` is the papers': every tap of every convolution counts, those on padding too.
`flops` is what an unoptimised program has to do: twice the multiply-adds on real input elements of every convolution
and matrix product in a traced function, gradients included. It depends on shapes alone, hence on no platform.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend import core

from imagenet_repro import models


def parameter_count(model: nnx.Module) -> int:
    """Trainable parameters of a module, whether its arrays exist or are shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def multiply_adds(
    network: str | nnx.Module, image_size: int, *, num_classes: int | None = None, **options: Any
) -> int:
    """Multiply-adds on one image of `image_size` pixels square, in evaluation mode.

    `network` is a name (`num_classes` and `options` are then its own) or a module, of arrays or of shapes.
    Convolutions and matrix products count, padding included; biases, norms, pooling and activations do not.

    Raises:
      UserError: an unknown network or option, or a size that the network cannot take.
    """
    model = models.abstract(network, num_classes, **options) if isinstance(network, str) else nnx.clone(network)
    model.eval()
    graph, state = nnx.split(model)
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    return _count(lambda state, images: nnx.merge(graph, state)(images), state, images, padding=True)


def flops(function: Callable, *arguments: Any) -> int:
    """Floating point operations of a function, from its trace on arrays or `jax.ShapeDtypeStruct`s.

    A loop counts as often as it runs (`scan`); of a `cond` the dearest branch counts, a `while` loop's body once,
    since its turns are unknown; what `shard_map` maps counts once for each device. Where a program has a form for each
    platform (convolution.py), the one for all others counts.
    """
    return 2 * _count(function, *arguments, padding=False)


def _count(function: Callable, *arguments: Any, padding: bool) -> int:
    return _of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr, padding)


def _of_jaxpr(jaxpr: core.Jaxpr, padding: bool) -> int:
    return sum(_of_equation(equation, padding) for equation in jaxpr.eqns)


def _of_equation(equation: core.JaxprEqn, padding: bool) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _of_product(equation)
    if name == "conv_general_dilated":
        return _of_convolution(equation, padding)
    inner = [_of_jaxpr(jaxpr, padding) for jaxpr in _inner_jaxprs(params)]
    if not inner:
        return 0
    if name == "cond":
        platforms = params.get("branches_platforms")
        return inner[platforms.index(None)] if platforms else max(inner)
    times = {"scan": params.get("length", 1), "shard_map": params["mesh"].size if "mesh" in params else 1}
    return sum(inner) * times.get(name, 1)


def _inner_jaxprs(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    """The programs that an equation calls."""
    for value in params.values():
        for entry in value if isinstance(value, tuple | list) else (value,):
            if isinstance(entry, core.ClosedJaxpr):
                yield entry.jaxpr
            elif isinstance(entry, core.Jaxpr):
                yield entry


def _of_product(equation: core.JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    return math.prod(out) * math.prod(left[axis] for axis in contracted)


def _of_convolution(equation: core.JaxprEqn, padding: bool) -> int:
    """Output elements x input features x (place, tap) pairs, all or only those on an element of the input."""
    params = equation.params
    numbers = params["dimension_numbers"]
    inputs, kernel, out = (v.aval.shape for v in (*equation.invars[:2], equation.outvars[0]))
    pairs = 1
    for dimension, (low, _) in enumerate(params["padding"]):
        taps, places = kernel[numbers.rhs_spec[2 + dimension]], out[numbers.out_spec[2 + dimension]]
        if padding:
            pairs *= places * taps
            continue
        stride, hole, spread = (params[k][dimension] for k in ("window_strides", "lhs_dilation", "rhs_dilation"))
        seen = (at * stride + tap * spread - low for at in range(places) for tap in range(taps))
        last = (inputs[numbers.lhs_spec[2 + dimension]] - 1) * hole
        pairs *= sum(0 <= at <= last and at % hole == 0 for at in seen)
    return out[numbers.out_spec[0]] * out[numbers.out_spec[1]] * kernel[numbers.rhs_spec[1]] * pairs

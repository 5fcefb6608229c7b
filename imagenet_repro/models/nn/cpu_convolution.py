"""Convolution that is fast enough on the CPU; NHWC images, HWIO kernels.

The module exists because XLA's CPU kernels are very slow for some shapes, so that a network could not be trained or
tested without an accelerator. It depends on JAX alone, and can go when XLA's kernels are fast enough. On an
accelerator the convolution is XLA's own operation.

The choice was measured on two AVX-512 cores in float32 with JAX 0.10 and 0.12 (other work ran beside it), where a
matrix product reaches 190 GFLOP/s. XLA has a fast convolution for stride 1 and for maps at least as large as the
kernel; without it a 3x3 convolution on 2x2 maps and the input gradient of one with stride 2 on 4x4 maps run at 2
GFLOP/s. So on the CPU the same numbers are also computed as matrix products. Forward and weight gradient lay the
inputs of all taps side by side and are one product; the input gradient is a product for each kernel row, whose parts
are added where they came from. Each of the three uses its product or XLA's form, whichever is faster for the shape.

With groups of channels XLA's kernels are slower still. A depthwise convolution and its gradients took 8 to 1,000 times
as long as the sums over the kernel's taps in this module. With 32 groups a weight gradient took about 100 times as
long as products of merged groups, and the rest as long or a few times longer.

Both forms are part of the traced program, and the compiler for a platform drops one (`platform_dependent`). So the
result of `counting.flops` does not depend on the platform.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from imagenet_repro.models.nn import target
from imagenet_repro.models.nn.precision import wide_dtype, widen
from imagenet_repro.models.nn.windows import Pads, Pair, Windows, add_taps, split_into_taps

Convolve = Callable[[Array, Array], Array]  # of x and weight

# Largest output map, in positions, on which products beat XLA's form.
SMALL_MAP = 9
# Inputs of an output, up to which products beat XLA's form on every map: first layers with small kernels.
FEW_INPUTS = 64
# Input channels of the groups that are merged into one product: fewer make small products, more multiply zeros.
MERGE_UP_TO = 32


def convolve(
    x: Float[Array, "b h w i"],
    weight: Float[Array, "kh kw i_per_group o"],
    *,
    stride: Pair = (1, 1),
    padding: Pads = ((0, 0), (0, 0)),
    groups: int = 1,
) -> Float[Array, "b oh ow o"]:
    """Return the cross-correlation of each image with the kernels, with `padding` zeros before and after each axis.

    `x` and `weight` have the same dtype, which the result has too; products are summed in float32, or in float64 where
    the inputs are float64.
    """
    if target.platform() != "cpu":
        return _xla(x, weight, stride=stride, padding=padding, groups=groups)
    return _cpu_convolve(x, weight, Windows(x.shape, (weight.shape[0], weight.shape[1]), stride, padding, groups))


def _xla(x: Array, weight: Array, *, stride: Pair, padding: Pads, groups: int = 1) -> Array:
    return lax.conv_general_dilated(
        x,
        weight,
        window_strides=stride,
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=lax.Precision.HIGHEST,
    )


# --- convolution on the CPU ------------------------------------------------------------------------------------


def _xla_pays(windows: Windows) -> bool:
    """Return whether XLA's form of a convolution is the faster."""
    small = math.prod(windows.positions) <= SMALL_MAP or math.prod(windows.size) * windows.shape[-1] <= FEW_INPUTS
    return _xla_is_fast(windows) and not small


def _xla_pays_for_input(windows: Windows) -> bool:
    """Return whether XLA's form of the input gradient is the faster."""
    return _xla_is_fast(windows) and windows.stride == (1, 1) and math.prod(windows.positions) > SMALL_MAP


def _xla_pays_for_weight(windows: Windows) -> bool:
    """Return whether XLA's form of the weight gradient is the faster."""
    overlapping = all(k > s for k, s in zip(windows.size, windows.stride, strict=True))
    return _xla_pays(windows) and overlapping


def _xla_is_fast(windows: Windows) -> bool:
    """Return whether XLA has a fast kernel, and the convolution is not a matrix product by itself."""
    pointwise = windows.size == (1, 1) and not any(map(any, windows.padding))
    fits = all(side >= k for side, k in zip(windows.shape[1:3], windows.size, strict=True))
    return windows.groups == 1 and fits and not pointwise


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _cpu_convolve(x: Array, weight: Array, windows: Windows) -> Array:
    if _xla_pays(windows):
        return _xla_of(windows)(x, weight)
    form = functools.partial(_forms(windows, weight.shape[-1]).convolve, windows)
    return lax.platform_dependent(x, weight, cpu=form, default=_xla_of(windows))


def _forward(x: Any, weight: Any, windows: Windows) -> tuple[Array, tuple[Array | None, Array | None]]:
    """Store `x` and `weight` only where the other's gradient is needed; for images it is not."""
    y = cast(Array, _cpu_convolve(x.value, weight.value, windows))
    return y, (x.value if weight.perturbed else None, weight.value if x.perturbed else None)


def _backward(windows: Windows, residuals: tuple[Array | None, Array | None], dy: Any) -> tuple[Array | None, ...]:
    x, weight = residuals
    if isinstance(dy, jax.custom_derivatives.SymbolicZero):
        return None, None
    dx = None if weight is None else _input_gradient(weight, dy, windows)
    return dx, None if x is None else _weight_gradient(x, dy, windows)


_cpu_convolve.defvjp(_forward, _backward, symbolic_zeros=True)


def _input_gradient(weight: Array, dy: Array, windows: Windows) -> Array:
    by_xla = functools.partial(_transposed_for_input, _xla_of(windows), windows)
    if _xla_pays_for_input(windows):
        return by_xla(weight, dy)
    form = functools.partial(_forms(windows, dy.shape[-1]).input_gradient, windows)
    return lax.platform_dependent(weight, dy, cpu=form, default=by_xla)


def _weight_gradient(x: Array, dy: Array, windows: Windows) -> Array:
    by_xla = functools.partial(_transposed_for_weight, _xla_of(windows), windows)
    if _xla_pays_for_weight(windows):
        return by_xla(x, dy)
    form = functools.partial(_forms(windows, dy.shape[-1]).weight_gradient, windows)
    return lax.platform_dependent(x, dy, cpu=form, default=by_xla)


def _xla_of(windows: Windows) -> Convolve:
    return functools.partial(_xla, stride=windows.stride, padding=windows.padding, groups=windows.groups)


def _transposed_for_input(convolve: Convolve, windows: Windows, weight: Array, dy: Array) -> Array:
    x = jax.ShapeDtypeStruct(windows.shape, dy.dtype)
    return jax.linear_transpose(lambda x: convolve(x, weight), x)(dy)[0]


def _transposed_for_weight(convolve: Convolve, windows: Windows, x: Array, dy: Array) -> Array:
    weight = jax.ShapeDtypeStruct((*windows.size, x.shape[-1] // windows.groups, dy.shape[-1]), dy.dtype)
    return jax.linear_transpose(lambda weight: convolve(x, weight), weight)(dy)[0]


class Forms(NamedTuple):
    """A way to compute a convolution and its gradients on the CPU."""

    convolve: Callable[[Windows, Array, Array], Array]  # of x and weight
    input_gradient: Callable[[Windows, Array, Array], Array]  # of weight and dy
    weight_gradient: Callable[[Windows, Array, Array], Array]  # of x and dy


def _forms(windows: Windows, out_features: int) -> Forms:
    if windows.groups == 1:
        return Forms(_column_convolve, _row_input_gradient, _column_weight_gradient)
    if windows.groups == windows.shape[-1] == out_features:
        return Forms(_tap_convolve, _tap_input_gradient, _tap_weight_gradient)
    return Forms(_group_convolve, _group_input_gradient, _group_weight_gradient)


# By matrix products: all channels in one group.


def _column_convolve(windows: Windows, x: Array, weight: Array) -> Array:
    y = _dot(_columns(x, windows), weight.reshape(-1, weight.shape[-1]), 3, 0)
    return y.astype(x.dtype)


def _column_weight_gradient(windows: Windows, x: Array, dy: Array) -> Array:
    columns = _columns(x, windows)
    gradient = _dot(columns.reshape(-1, columns.shape[-1]), dy.reshape(-1, dy.shape[-1]), 0, 0)
    return gradient.reshape(*windows.size, x.shape[-1], dy.shape[-1]).astype(dy.dtype)


def _columns(x: Array, windows: Windows) -> Array:
    """Return at each position the inputs of all taps side by side: [b, oh, ow, kh * kw * c]."""
    return jnp.concatenate(list(split_into_taps(x, windows, 0.0).values()), -1)


def _row_input_gradient(windows: Windows, weight: Array, dy: Array) -> Array:
    height, width, features, _ = weight.shape
    shares = {}
    for i in range(height):
        row = _dot(dy, weight[i].reshape(width * features, -1), dy.ndim - 1, 1)
        for j in range(width):
            shares[i, j] = row[..., j * features : (j + 1) * features]
    return add_taps(shares, windows).astype(dy.dtype)


def _dot(a: Array, b: Array, a_axis: int, b_axis: int, batch: Pair | None = None) -> Array:
    dimensions = (((a_axis,), (b_axis,)), ((batch[0],), (batch[1],)) if batch else ((), ()))
    sums = wide_dtype(a.dtype)
    return lax.dot_general(a, b, dimensions, precision=lax.Precision.HIGHEST, preferred_element_type=sums)


def _total(terms: Iterable[Array]) -> Array:
    return cast(Array, sum(terms))  # never the 0 of an empty sum


# By taps: every channel with its own kernel (depthwise), where a tap is one elementwise product.


def _tap_convolve(windows: Windows, x: Array, weight: Array) -> Array:
    taps, kernels = split_into_taps(x, windows, 0.0), widen(weight[:, :, 0])
    return _total(widen(tap) * kernels[position] for position, tap in taps.items()).astype(x.dtype)


def _tap_input_gradient(windows: Windows, weight: Array, dy: Array) -> Array:
    if windows.stride != (1, 1):
        kernels = widen(weight[:, :, 0])
        height, width = windows.size
        shares = {(i, j): widen(dy) * kernels[i, j] for i in range(height) for j in range(width)}
        return add_taps(shares, windows).astype(dy.dtype)
    # The transpose of a convolution of stride 1 is a convolution with the flipped kernel, whose sums run faster.
    axes = zip(windows.size, windows.padding, strict=True)
    down, across = ((k - 1 - low, k - 1 - high) for k, (low, high) in axes)
    return _tap_convolve(Windows(dy.shape, windows.size, (1, 1), (down, across)), dy, weight[::-1, ::-1])


def _tap_weight_gradient(windows: Windows, x: Array, dy: Array) -> Array:
    """Sum image by image: every tap reads its image again, and the whole batch would not stay in the cache."""
    one = dataclasses.replace(windows, shape=(1, *windows.shape[1:]))

    def add(total: Array, image: tuple[Array, Array]) -> tuple[Array, None]:
        x, dy = (widen(a[None]) for a in image)
        products = [tap * dy for tap in split_into_taps(x, one, 0.0).values()]
        return total + jnp.stack([product.sum((0, 1)).sum(0) for product in products]), None

    total, _ = lax.scan(add, jnp.zeros((math.prod(windows.size), dy.shape[-1]), wide_dtype(dy.dtype)), (x, dy))
    return total.reshape(*windows.size, 1, -1).astype(dy.dtype)


# By groups: row products for every group, or for several groups at once.


def _group_convolve(windows: Windows, x: Array, weight: Array) -> Array:
    taps, (height, width) = split_into_taps(x, windows, 0.0), windows.size
    kernels = _merged_kernels(weight, windows.groups)
    parts = kernels.shape[1]
    y = jnp.zeros((), wide_dtype(x.dtype))
    for i in range(height):
        row = [taps[i, j].reshape(-1, parts, x.shape[-1] // parts) for j in range(width)]
        row = jnp.moveaxis(jnp.concatenate(row, -1), 1, 0)
        y = y + _dot(row, kernels[i], 2, 1, (0, 0))
    return jnp.moveaxis(y, 0, 1).reshape(*taps[0, 0].shape[:3], -1).astype(x.dtype)


def _merged_kernels(weight: Array, groups: int) -> Array:
    """Return kernels [kh, parts, kw * i, o]: a part merges neighbouring groups while its product stays narrow."""
    height, width, features, out_features = weight.shape
    fitting = [m for m in range(1, groups + 1) if groups % m == 0 and m * features <= MERGE_UP_TO]
    merged = max(fitting, default=1)
    split = weight.reshape(height, width, features, groups // merged, merged, out_features // groups)
    # By padding, whose transpose is a slice: XLA crashed on the transpose of a product with the identity.
    blocks = [jnp.pad(split[..., m, :], [(0, 0)] * 4 + [_place(m, merged, split.shape[-1])]) for m in range(merged)]
    kernels = jnp.stack(blocks).transpose(1, 4, 2, 0, 3, 5)  # [kh, parts, kw, merged, i, o]
    return kernels.reshape(height, groups // merged, width * merged * features, -1)


def _place(index: int, count: int, size: int) -> Pair:
    """Return the zeros before and after neighbour `index` of `count` neighbours of `size`."""
    return index * size, (count - 1 - index) * size


def _group_input_gradient(windows: Windows, weight: Array, dy: Array) -> Array:
    return _transposed_for_input(functools.partial(_group_convolve, windows), windows, weight, dy)


def _group_weight_gradient(windows: Windows, x: Array, dy: Array) -> Array:
    return _transposed_for_weight(functools.partial(_group_convolve, windows), windows, x, dy)

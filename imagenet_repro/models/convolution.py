"""Convolution and pooling as functions, NHWC and HWIO."""

import contextlib
from collections.abc import Iterator

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Pair = tuple[int, int]


def convolve(
    x: Float[Array, "b h w c"],
    weight: Float[Array, "kh kw i o"],
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Float[Array, "b oh ow o"]:
    """Convolution, NHWC by HWIO."""
    return lax.conv_general_dilated(
        x,
        weight,
        window_strides=stride,
        padding=[(p, p) for p in padding],
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=lax.Precision.HIGHEST,
    )


def max_pool(x: Float[Array, "b h w c"], window: Pair, stride: Pair, padding: Pair) -> Float[Array, "b oh ow c"]:
    """Maximum over windows."""
    return lax.reduce_window(
        x,
        -jnp.inf,
        lax.max,
        (1, *window, 1),
        (1, *stride, 1),
        [(0, 0), *((p, p) for p in padding), (0, 0)],
    )


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Within the block convolutions are traced as XLA's own on every platform, which is how FLOPs are counted."""
    yield

"""The precision of sums, norms and logits: float32 at least, whatever the precision of the activations."""

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float


def wide_dtype(dtype: DTypeLike) -> jnp.dtype:
    """Return float32 for a dtype that is no wider, and float64 for float64."""
    return jnp.promote_types(dtype, jnp.float32)


def widen(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return `x` in float32, or as it is where it is float64."""
    return x.astype(wide_dtype(x.dtype))

"""Parameters that are split over devices, and gathered where a network needs them.

Under `fsdp` a parameter of a network may hold a `Shard`, this device's part, in place of its array. `Stack` gathers
the parameters of one block at a time, inside the block's rematerialisation, so that a device never holds those of
all blocks.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["part"], meta_fields=["counts", "axis_name", "dtype"]
)
@dataclasses.dataclass(frozen=True)
class Shard:
    """One device's part of an array.

    Attributes:
      part: a block of the array, from an equal division of every axis; device i has block i in row-major order.
      counts: the number of blocks along each axis; their product is the number of devices.
      axis_name: the mapped axis of the devices.
      dtype: the type in which the array is gathered. A layer that computes in bfloat16 reads its weights in bfloat16,
        so they are rounded before they travel and not after it.
    """

    part: Any  # an array; while JAX transforms a tree it may be any other object
    counts: tuple[int, ...]
    axis_name: str
    dtype: Any

    def gather(self) -> Float[Array, "..."]:
        """Return the complete array; its gradient is summed over the devices in the part's own type."""
        return _gather(self.part, self.counts, self.axis_name, str(jnp.dtype(self.dtype)), str(self.part.dtype))


def complete(tree: Any) -> Any:
    """Return the tree with every `Shard` replaced by its complete array."""
    return jax.tree.map(lambda x: x.gather() if is_shard(x) else x, tree, is_leaf=is_shard)


def is_shard(value: Any) -> bool:
    """Return whether a node of a tree is a `Shard`."""
    return isinstance(value, Shard)


# The gradient of `lax.all_gather` would be summed in the type that was gathered. A sum of bfloat16 numbers over many
# devices loses digits that the step of one device keeps.
@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _gather(part: Array, counts: tuple[int, ...], axis_name: str, dtype: str, part_dtype: str) -> Array:
    part = part.astype(dtype)
    axis = _only_axis(counts)
    if axis is not None:
        return lax.all_gather(part, axis_name, axis=axis, tiled=True)
    blocks = lax.all_gather(part, axis_name).reshape(*counts, *part.shape)
    rank = part.ndim
    order = [position for axis in range(rank) for position in (axis, rank + axis)]
    return blocks.transpose(order).reshape([n * size for n, size in zip(counts, part.shape, strict=True)])


def _gather_forward(
    part: Array, counts: tuple[int, ...], axis_name: str, dtype: str, part_dtype: str
) -> tuple[Array, None]:
    return _gather(part, counts, axis_name, dtype, part_dtype), None


def _scatter(
    counts: tuple[int, ...], axis_name: str, dtype: str, part_dtype: str, _: None, gradient: Array
) -> tuple[Array]:
    """Return this device's part of the sum of all devices' gradients."""
    gradient = gradient.astype(part_dtype)
    axis = _only_axis(counts)
    if axis is not None:
        return (lax.psum_scatter(gradient, axis_name, scatter_dimension=axis, tiled=True),)
    rank = gradient.ndim
    sizes = [size // n for n, size in zip(counts, gradient.shape, strict=True)]
    blocks = gradient.reshape([number for pair in zip(counts, sizes, strict=True) for number in pair])
    blocks = blocks.transpose([*range(0, 2 * rank, 2), *range(1, 2 * rank, 2)]).reshape(math.prod(counts), *sizes)
    return (lax.psum_scatter(blocks, axis_name, scatter_dimension=0, tiled=False),)


_gather.defvjp(_gather_forward, _scatter)


def _only_axis(counts: tuple[int, ...]) -> int | None:
    """Return the one axis that is divided; None where several are."""
    divided = [axis for axis, n in enumerate(counts) if n > 1]
    return divided[0] if len(divided) == 1 else None

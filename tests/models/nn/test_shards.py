"""Shards on eight devices against the complete array."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from imagenet_repro.models.nn.shards import Shard, complete

SHAPE = (12, 40)
MESH = Mesh(np.asarray(jax.devices()), ("data",))
SHARE = PartitionSpec("data")


def blocks(array, counts):
    """Return the blocks of an array, row by row, behind an axis of devices."""
    rows = np.split(array, counts[0], axis=0)
    return np.stack([block for row in rows for block in np.split(row, counts[1], axis=1)])


@pytest.mark.parametrize("counts", [(1, 8), (4, 2), (2, 4)])
def test_the_gathered_array_is_complete_and_its_gradient_is_the_sum_over_devices(counts):
    assert jax.device_count() == 8
    rng = np.random.default_rng(0)
    array = rng.normal(size=SHAPE).astype(np.float32)
    factors = rng.normal(size=(8, *SHAPE)).astype(np.float32)  # each device multiplies by its own

    def loss(parts, factor):
        whole = complete({"weight": Shard(parts[0], counts, "data", parts.dtype)})["weight"]
        return (whole * factor[0]).sum(), whole

    @functools.partial(jax.shard_map, mesh=MESH, in_specs=SHARE, out_specs=(SHARE, SHARE), check_vma=False)
    def gather(parts, factor):
        gradient, whole = jax.grad(loss, has_aux=True)(parts, factor)
        return gradient, whole[None]

    gradient, whole = jax.jit(gather)(blocks(array, counts), factors)
    for device in range(8):
        np.testing.assert_array_equal(whole[device], array)
    np.testing.assert_allclose(gradient, blocks(factors.sum(0), counts), rtol=1e-5, atol=1e-5)


def test_bfloat16_arrays_travel_rounded_and_their_gradients_are_summed_in_float32():
    array = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    counts = (1, 8)

    @functools.partial(jax.shard_map, mesh=MESH, in_specs=SHARE, out_specs=(SHARE, SHARE), check_vma=False)
    def gather(parts):
        def loss(parts):
            whole = Shard(parts[0], counts, "data", jnp.bfloat16).gather()
            return (whole * jnp.bfloat16(1 / 256 + (jax.lax.axis_index("data") == 0))).astype(jnp.float32).sum(), whole

        gradient, whole = jax.grad(loss, has_aux=True)(parts)
        return gradient, whole[None]

    gradient, whole = jax.jit(gather)(blocks(array, counts))
    np.testing.assert_array_equal(whole[0], jnp.asarray(array, jnp.bfloat16))
    assert gradient.dtype == jnp.float32
    # 1 + 1/256 rounds to 1 in bfloat16, and so would every further 1/256.
    np.testing.assert_array_equal(gradient, np.full_like(gradient, 1 + 7 / 256))

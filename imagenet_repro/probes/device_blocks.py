"""Blocks of stored features on the devices, padded to one length; as many as a budget allows stay there."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float16, Int32

from imagenet_repro.probes.stored_features import BLOCK, SHARD, FeatureRows

AXIS = "data"
HOST_BYTES = 2**30  # of features that stay in memory between two passes where the device is the host
DEVICE_SHARE = 0.5  # of an accelerator's free memory that they may take


class DeviceBlock(NamedTuple):
    """Rows on the devices; the label of padding is -1."""

    features: Float16[Array, "b d"]
    label: Int32[Array, " b"]
    index: np.ndarray  # on the host, without padding


def mesh() -> Mesh:
    """Return the local devices along one axis."""
    return Mesh(np.asarray(jax.local_devices()), (AXIS,))


class DeviceBlocks:
    """Rows that are read many times, in order.

    Args:
      rows: the rows.
      is_split: whether the devices share the rows of a block; otherwise each has all of them.
      budget: bytes that stay on the devices between two passes; None: half of their free memory, on a CPU 1 GiB.
    """

    def __init__(self, rows: FeatureRows, *, is_split: bool, budget: int | None = None):
        devices = mesh()
        self._rows = rows
        self._sharding = NamedSharding(devices, PartitionSpec(AXIS) if is_split else PartitionSpec())
        self._budget = _free_bytes() if budget is None else budget
        longest = min(BLOCK * SHARD, rows.stop - rows.start)
        self._length = -(-longest // devices.size) * devices.size
        self._kept: dict[int, DeviceBlock] = {}

    @property
    def width(self) -> int:
        """The length of a row."""
        return self._rows.width

    def __iter__(self) -> Iterator[DeviceBlock]:
        block_bytes = 2 * self._length * self._rows.width
        numbers = range(self._rows.n_blocks)
        missing = self._rows.blocks([number for number in numbers if number not in self._kept])
        for number in numbers:
            if number in self._kept:
                yield self._kept[number]
                continue
            block = next(missing)
            padding = self._length - len(block.label)
            features = np.pad(block.features, ((0, padding), (0, 0)))
            label = np.pad(block.label, (0, padding), constant_values=-1)
            features, label = jax.device_put((features, label), self._sharding)
            on_device = DeviceBlock(features, label, block.index)
            if (len(self._kept) + 1) * block_bytes <= self._budget:
                self._kept[number] = on_device
            yield on_device


def _free_bytes() -> int:
    """Return the bytes that blocks may take on each device."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" not in statistics:
        return HOST_BYTES
    return int(DEVICE_SHARE * (statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)))

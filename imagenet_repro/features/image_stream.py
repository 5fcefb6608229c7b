"""Running a compiled function over the images of a split, batch by batch, on all local devices."""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imagenet_repro.config import FeatureConfig
from imagenet_repro.data import loader
from imagenet_repro.data.batch import Batch
from imagenet_repro.data.prefetch import prefetch_to_device
from imagenet_repro.data.sources import Split

AXIS = "data"


class ImageStream:
    """Compiles functions of a batch of images and runs them over splits.

    Args:
      config: data, eval_crop and the image size are used.

    Attributes:
      compilation_seconds: spent in `compile` so far.
    """

    def __init__(self, config: FeatureConfig):
        self._config = config
        self.compilation_seconds = 0.0

    def shape(self, images: int) -> jax.ShapeDtypeStruct:
        """Return the shape of a batch of `images` images."""
        size = self._config.data.image_size
        return jax.ShapeDtypeStruct((images, size, size, 3), jnp.uint8)

    def compile(self, function: Callable, batch_size: int, *arguments: Any) -> Callable:
        """Compile `function(images, *arguments)` for a batch that all devices share equally."""
        replicated, share = PartitionSpec(), PartitionSpec(AXIS)
        mapped = jax.shard_map(
            function,
            mesh=self._mesh,
            in_specs=(share, *[replicated] * len(arguments)),
            out_specs=share,
            check_vma=False,
        )
        images = jax.ShapeDtypeStruct(
            self.shape(batch_size).shape, jnp.uint8, sharding=NamedSharding(self._mesh, share)
        )
        start_time = time.perf_counter()
        compiled = jax.jit(mapped).lower(images, *arguments).compile()
        self.compilation_seconds += time.perf_counter() - start_time
        return compiled

    def timer(self) -> Callable[[], float]:
        """Return a function that returns the seconds since now, without those spent in `compile`."""
        start_time, compiling = time.perf_counter(), self.compilation_seconds
        return lambda: time.perf_counter() - start_time - (self.compilation_seconds - compiling)

    def run(
        self,
        split: Split,
        compiled: Callable,
        batch_size: int,
        *arguments: Any,
        start_step: int = 0,
        on_batch: Callable[[Batch], None] = lambda batch: None,
    ) -> Iterator[tuple[Batch, np.ndarray]]:
        """Yield the batches of a split from number `start_step` on, with the results of a compiled function.

        One batch is on the devices while the results of the one before are transferred back.

        Args:
          split: the images.
          compiled: from `compile`.
          batch_size: images of a batch.
          *arguments: of the function, after the images.
          start_step: number of the first batch.
          on_batch: called with each batch before the function; may raise to end the iteration.
        """
        batches = loader.eval_batches(
            split, self._config.data, self._config.eval_crop, batch_size=batch_size, start_step=start_step
        )
        sharding = NamedSharding(self._mesh, PartitionSpec(AXIS))
        previous = None
        for batch, images in prefetch_to_device(batches, lambda batch: jax.device_put(batch["image"], sharding)):
            on_batch(batch)
            current = batch, compiled(images, *arguments)
            if previous is not None:
                yield previous[0], np.asarray(previous[1])
            previous = current
        if previous is not None:
            yield previous[0], np.asarray(previous[1])

    @functools.cached_property
    def _mesh(self) -> Mesh:
        return Mesh(np.asarray(jax.local_devices()), (AXIS,))

"""The interface that every system offers to training, evaluation and measurement of cost."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, UInt8

from imagenet_repro.config import TrainedConfig
from imagenet_repro.config.run import Taps
from imagenet_repro.training.functional import Tensors
from imagenet_repro.training.parallel import Spread
from imagenet_repro.training.state import TrainState
from imagenet_repro.training.step import AXIS, DeviceStep
from imagenet_repro.zoo import counting


@dataclasses.dataclass(frozen=True)
class PreparationCost:
    """The cost of the work that a system does once before its first step, such as coding every image."""

    seconds: float = 0.0
    flops: float = 0.0
    compilation_seconds: float = 0.0


@runtime_checkable
class System(Protocol):
    """A classifier, which computes one score per class from images: a network, or hand-made features with linear SVMs.

    A system holds no parameters. They are in a `TrainState`, and every method that needs them takes them
    as an argument.

    Attributes:
      num_classes: the number of classes of the data set.
      spread: the way in which batches and parameters are spread over devices.
    """

    num_classes: int
    spread: Spread

    @property
    def config(self) -> TrainedConfig:
        """The configuration of the run."""
        ...

    @property
    def scores_are_logits(self) -> bool:
        """Whether the softmax of the scores is a probability, as it is for networks but not for SVMs."""
        ...

    def initial_state(self) -> TrainState:
        """Return the state before the first step, on the devices; a checkpoint can be restored into its shapes."""
        ...

    def scoring_state(self, train_state: TrainState) -> TrainState:
        """Return the state that is scored: with what is computed from the parameters once, before any image."""
        ...

    def score(self, params: Tensors, stats: Tensors, images: UInt8[Array, "b h w 3"]) -> Float[Array, "b classes"]:
        """Return the score of each class for images of the system's own size, in evaluation mode."""
        ...

    def class_map(
        self, params: Tensors, stats: Tensors, images: UInt8[Array, "b h w 3"]
    ) -> Float[Array, "b oh ow classes"]:
        """Return the scores at every position at which the system's own size fits into larger images.

        Raises:
          UserError: the system cannot be applied at every position.
        """
        ...

    def train_step(self, num_examples: int) -> DeviceStep:
        """Return one device's training step for an epoch of `num_examples` images."""
        ...

    def blank_batch(self, size: int) -> dict[str, np.ndarray]:
        """Return a batch of zeros with the shapes and dtypes that the training step takes."""
        ...

    def flops_per_step(self, train_state: TrainState) -> int:
        """Return the floating point operations of one step over the whole batch."""
        ...

    def measure_preparation(self, num_examples: int) -> PreparationCost:
        """Measure the cost of preparing `num_examples` training images before the first step."""
        ...

    def summary(self) -> dict[str, Any]:
        """Return `system` (its name), `parameters`, and `multiply_adds` of scoring one image."""
        ...


def step_flops(
    step: DeviceStep, train_state: TrainState, batch: dict[str, jax.ShapeDtypeStruct], *, taps: Taps
) -> int:
    """Return the floating point operations of a step over a whole batch, counted in its trace on one device.

    Args:
      step: the step.
      train_state: the state that it takes.
      batch: shapes of the whole batch.
      taps: the taps of convolutions that count, the configuration's `flops`.
    """
    replicated = PartitionSpec()
    one_device = jax.shard_map(
        step,
        mesh=Mesh(np.asarray(jax.local_devices()[:1]), (AXIS,)),
        in_specs=(replicated, PartitionSpec(AXIS), replicated),
        out_specs=replicated,
        check_vma=False,
    )
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), train_state)
    learning_rate = jax.ShapeDtypeStruct((), jnp.float32)
    return counting.flops(one_device, shapes, batch, learning_rate, taps=taps)

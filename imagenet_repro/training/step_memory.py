"""The memory of a compiled training step, by what takes it."""

import dataclasses
from typing import Any

import jax
import numpy as np

from imagenet_repro.training.state import TrainState

WAITING_BATCHES = 2  # on the devices besides the one in use: the default of `prefetch_to_device`


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepMemory:
    """The memory of a step; sizes are bytes on one device.

    Attributes:
      arguments: the sizes of the step's inputs by name: parameters, statistics, optimizer, average, batch.
      argument_bytes: of all inputs, with the padding of the device.
      output_bytes: of the results.
      aliased_bytes: of the results that take the buffers of inputs.
      temporary_bytes: of activations, gradients and scratch memory.
      code_bytes: of the program.
      waiting_bytes: of the batches that wait on the device while another is in use.
      needed_bytes: of all of these. Of a step that the compiler refuses: what it says that it needs, 0 where it does
        not say.
    """

    arguments: dict[str, int]
    argument_bytes: int = 0
    output_bytes: int = 0
    aliased_bytes: int = 0
    temporary_bytes: int = 0
    code_bytes: int = 0
    waiting_bytes: int = 0
    needed_bytes: int = 0

    @property
    def bytes_besides_state(self) -> int:
        """The bytes that a run takes once its state is on the device: batches, results, temporaries and program."""
        return self.needed_bytes - (self.argument_bytes - self.arguments["batch"])


def measure(compiled: Any, arguments: dict[str, int]) -> dict[str, Any]:
    """Return the fields of `StepMemory` besides `arguments` for a compiled step.

    Args:
      compiled: the step; a backend without an analysis of its memory gives zeros.
      arguments: the result of `argument_sizes`.
    """
    memory = compiled.memory_analysis()
    waiting = WAITING_BATCHES * arguments["batch"]
    if memory is None:
        return {}
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return {
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "aliased_bytes": memory.alias_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "code_bytes": memory.generated_code_size_in_bytes,
        "waiting_bytes": waiting,
        "needed_bytes": held + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes + waiting,
    }


def argument_sizes(state: TrainState, batch: dict[str, Any]) -> dict[str, int]:
    """Return the bytes that each part of a step's inputs takes on one device; shapes may stand for the arrays."""
    parts = {
        "parameters": state.params,
        "statistics": state.stats,
        "optimizer": state.opt_state,
        "average": state.ema,
        "batch": batch,
    }
    return {name: sum(map(bytes_on_a_device, jax.tree.leaves(part))) for name, part in parts.items()}


def bytes_on_a_device(array: Any) -> int:
    """Return the bytes of an array, or of its shape, on one of the devices that it is spread over."""
    shape = array.shape if array.sharding is None else array.sharding.shard_shape(array.shape)
    return int(np.prod(shape, dtype=np.int64)) * array.dtype.itemsize

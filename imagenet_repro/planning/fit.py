"""The check before the first step that a run's memory suffices, and the settings with which it would.

A compiled step says what it takes (training/step_memory.py). The state is on the device by then, so the rest is
compared with what is free. Only a step that does not fit is compiled again, with fewer images at a time.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax

from imagenet_repro.config import Config
from imagenet_repro.errors import UserError
from imagenet_repro.planning.show import format_bytes
from imagenet_repro.training.fitting import FittedStep
from imagenet_repro.training.parallel import Pmap, Spread
from imagenet_repro.training.state import TrainState
from imagenet_repro.training.step import NetworkStep
from imagenet_repro.training.step_memory import StepMemory, argument_sizes, measure

READ_BATCHES = 2  # being put together by the loader, in the host's memory
MARGIN = 1.02  # of an estimate, which leaves out what does not grow with the images
TRIES = 3  # compilations in search of a setting
FINENESS = 8  # a suggested batch is a multiple of the power of two that is about this part of it


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A setting of the step.

    Attributes:
      batch_size: images of a step over all devices.
      accumulate: the parts into which a device divides its share.
    """

    batch_size: int
    accumulate: int


class StepMeter:
    """Measures the memory that a run takes besides its state, of the step of a configuration or with other batches.

    Args:
      spread: the way in which the step is spread over devices.
      step: the training step.
      state: the state, or its shapes.
      batch: the configuration's batch on the devices, or its shapes.
      policy: the rematerialisation with which the step is compiled.
    """

    def __init__(self, spread: Spread, step: NetworkStep, state: TrainState, batch: dict[str, Any], policy: str):
        self._spread, self._state, self._batch = spread, state, batch
        self._step = step.replace(network=step.network.with_remat(policy))
        self._on_host = spread.mesh.devices.flat[0].platform == "cpu"

    @property
    def config(self) -> Config:
        """The configuration of the step."""
        return self._step.config

    @property
    def devices(self) -> int:
        """The number of devices."""
        return self._spread.mesh.size

    def bytes_of(self, memory: StepMemory) -> int:
        """Return the bytes that a run takes on a device besides its state, of a step that was measured.

        On the CPU, the loader's batches and the copy of the state for a checkpoint are in the same memory.
        """
        if not self._on_host:
            return memory.bytes_besides_state
        batch = memory.arguments["batch"]
        return memory.bytes_besides_state + READ_BATCHES * batch + memory.argument_bytes - batch

    def measure(self, candidate: Candidate) -> int | None:
        """Compile the step of a candidate and return its bytes; None where it or the compiler refuses the setting."""
        config = dataclasses.replace(self.config, batch_size=candidate.batch_size, accumulate=candidate.accumulate)
        batch: dict[str, Any] = self._shapes(candidate.batch_size)
        try:
            compiled = self._spread.compile_training(self._step.replace(config=config), self._state, batch)
        except UserError:  # such as pairs to mix among an odd number of images
            return None
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return None
        sizes = argument_sizes(self._state, batch)
        return self.bytes_of(StepMemory(arguments=sizes, **measure(compiled, sizes)))

    def _shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        axis = 1 if isinstance(self._spread, Pmap) else 0  # of the images
        images = batch_size // self.devices if axis else batch_size
        return {
            name: jax.ShapeDtypeStruct((*x.shape[:axis], images, *x.shape[axis + 1 :]), x.dtype, sharding=x.sharding)
            for name, x in self._batch.items()
        }


def require_fit(
    meter: StepMeter,
    fitted: FittedStep,
    free: int | None,
    stage: Callable[[str], contextlib.AbstractContextManager] = contextlib.nullcontext,
) -> None:
    """Check that a step takes no more memory than is free.

    Args:
      meter: of the configuration's step.
      fitted: the compiled step.
      free: bytes on each device besides the state, the same in every process; None: not known, and nothing is checked.
      stage: returns a context that shows the name of a stage while other settings are compiled.

    Raises:
      UserError: it takes more; the message has settings that fit.
    """
    needed = meter.bytes_of(fitted.memory)
    if free is None or needed <= free:
        return
    search = Search(
        measure=meter.measure,
        config=meter.config,
        devices=meter.devices,
        needed=needed,
        temporary=fitted.memory.temporary_bytes,
        batch=fitted.memory.arguments["batch"] + fitted.memory.waiting_bytes,
        free=free,
    )
    with stage("the step needs more memory than is free; compiling smaller ones"):
        parts = search.find_accumulate()
        batch = search.find_batch(parts)
    raise UserError("\n".join(_refusal(search, fitted.memory, parts, batch)))


Measured = tuple[Candidate, int]  # a setting that was compiled, and its bytes


@dataclasses.dataclass(frozen=True)
class Search:
    """A search for settings with which a step fits.

    Attributes:
      measure: compiles a setting and returns its bytes, None where it is refused.
      config: the configuration.
      devices: the number of devices.
      needed: the bytes of the configuration's own step.
      temporary: of these, the bytes that shrink with the images at a time.
      batch: of these, the bytes of batches.
      free: bytes.
    """

    measure: Callable[[Candidate], int | None]
    config: Config
    devices: int
    needed: int
    temporary: int
    batch: int
    free: int

    def find_accumulate(self) -> Measured | None:
        """Return the least number of parts with which the configured batch fits; None if none is found."""
        batch_size, before = self.config.batch_size, self.config.accumulate
        share, available = batch_size // self.devices, self.free - (self.needed - self.temporary)
        choices = [n for n in range(before + 1, share + 1) if share % n == 0]
        choices = [n for n in choices if MARGIN * self.temporary * before / n <= available]
        for accumulate in choices[:TRIES]:
            candidate = Candidate(batch_size, accumulate)
            size = self.measure(candidate)
            if size is not None and size <= self.free:
                return candidate, size
        return None

    def find_batch(self, parts: Measured | None) -> Measured | None:
        """Return a batch that fits with the configured number of parts, close to the largest; None if none is found.

        The first guess follows a straight line through both measurements. Without `parts`, the result of
        `find_accumulate`, all temporaries are taken to grow with the images.
        """
        images, accumulate = self.config.batch_size, self.config.accumulate
        growth = self.temporary / images
        if parts:
            growth = (self.needed - parts[1]) / (images - images * accumulate // parts[0].accumulate)
        growth += self.batch / images
        largest = (self.free - (self.needed - growth * images)) / (MARGIN * growth)
        for _ in range(TRIES):
            size = round_down(int(largest), self.devices * accumulate)
            if not size:
                return None
            candidate = Candidate(size, accumulate)
            taken = self.measure(candidate)
            if taken is not None and taken <= self.free:
                return candidate, taken
            largest = (1 - 1 / FINENESS) * size
        return None


def round_down(images: int, unit: int) -> int:
    """Return the largest multiple of `unit` up to a number of images, in steps of about an eighth of it."""
    step = unit
    while 2 * step * FINENESS <= images:
        step *= 2
    return max(0, images) // step * step


def _refusal(search: Search, memory: StepMemory, parts: Measured | None, batch: Measured | None) -> Iterator[str]:
    config, state = search.config, memory.needed_bytes - memory.bytes_besides_state
    yield (
        f"config.batch_size: a step of {config.batch_size:,} images needs {format_bytes(search.needed)} of memory"
        f" besides its state of {format_bytes(state)}, and {format_bytes(search.free)} are free. Activations and"
        f" gradients take {format_bytes(memory.temporary_bytes)}"
    )
    if batch:
        yield f"  --config.batch_size={batch[0].batch_size} needs {format_bytes(batch[1])}; no much larger batch fits"
    if parts:
        accumulate = parts[0].accumulate
        at_once = config.batch_size // accumulate
        evaluation = "" if config.data.eval_batch_size else f" --config.data.eval_batch_size={at_once}"
        norm = "; batch norm then sees one part at a time" if memory.arguments["statistics"] else ""
        yield (
            f"  --config.accumulate={accumulate}{evaluation} keeps the batch of {config.batch_size:,}, needs"
            f" {format_bytes(parts[1])}{norm}"
        )
    if not (batch or parts):
        yield "  smaller images (config.data.image_size) or a smaller network need less; no smaller batch fits"
    if search.devices > 1 and config.parallel != "fsdp":
        yield "  --config.parallel=fsdp splits parameters and optimizer state over the devices"

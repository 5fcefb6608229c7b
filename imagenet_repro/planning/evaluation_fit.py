"""The check before the first step that the memory suffices for an evaluation between steps.

The evaluation step is compiled before training begins, and every evaluation of the run uses that program, so the check
takes no compilation of its own. Only where a batch does not fit are smaller ones compiled.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import jax

from imagenet_repro.config import Config
from imagenet_repro.errors import UserError
from imagenet_repro.inference.evaluator import IN_FLIGHT, Evaluator
from imagenet_repro.planning.fit import READ_BATCHES, Candidate, Search
from imagenet_repro.planning.show import format_bytes
from imagenet_repro.training import fitting
from imagenet_repro.training.state import TrainState
from imagenet_repro.training.step_memory import StepMemory, bytes_on_a_device, measure


def require_evaluation_fit(
    evaluator: Evaluator,
    config: Config,
    state: TrainState,
    training: StepMemory,
    *,
    free: int | None,
    stage: Callable[[str], contextlib.AbstractContextManager] = contextlib.nullcontext,
) -> None:
    """Compile the evaluation step, and check that it takes no more memory than is free.

    Args:
      evaluator: of the run; its later evaluations use the program.
      config: the configuration of the run.
      state: the state, which is on the devices.
      training: memory of the training step; two of its batches wait on the devices meanwhile.
      free: bytes on each device besides the state, the same in every process; None: not known, and the compiler alone
        may refuse.
      stage: returns a context that shows the name of a stage while smaller batches are compiled.

    Raises:
      UserError: it takes more; the message has a batch that fits.
    """
    on_host = evaluator.spread.mesh.devices.flat[0].platform == "cpu"
    waiting = training.waiting_bytes + on_host * READ_BATCHES * training.arguments["batch"]
    meter = _Meter(evaluator, state, waiting, on_host)
    with stage("compiling the evaluation"):
        memory, is_refused = meter.measure_own()
    needed = meter.bytes_of(memory)
    if not is_refused and (free is None or needed <= free):
        return
    search = Search(
        measure=meter.measure,
        config=dataclasses.replace(config, batch_size=evaluator.batch_size, accumulate=1),
        devices=evaluator.spread.mesh.size,
        needed=needed,
        temporary=memory.temporary_bytes,
        batch=needed - waiting - memory.temporary_bytes - memory.code_bytes,
        free=needed // 2 if free is None else free,
    )
    with stage("an evaluation needs more memory than is free; compiling smaller ones"):
        batch = search.find_batch(None)
    raise UserError("\n".join(_refusal(search, batch, is_default=not config.data.eval_batch_size)))


@dataclasses.dataclass(frozen=True)
class _Meter:
    """Measures the memory of evaluation steps besides the state.

    Attributes:
      evaluator: its step is measured.
      state: the state, or its shapes.
      waiting: bytes of the batches of training.
      on_host: whether the device is the CPU, whose memory the loader's batches are in too.
    """

    evaluator: Evaluator
    state: TrainState
    waiting: int
    on_host: bool

    def bytes_of(self, memory: StepMemory) -> int:
        """Return the bytes on a device: the step, results that are not read yet, and batches."""
        read = self.on_host * READ_BATCHES * memory.arguments["batch"]
        return memory.bytes_besides_state + IN_FLIGHT * memory.output_bytes + read + self.waiting

    def measure_own(self) -> tuple[StepMemory, bool]:
        """Compile the evaluator's own step; return its memory, as far as known, and whether it is refused."""
        arguments = self._arguments(self.evaluator.batch_size)
        try:
            compiled = self.evaluator.compile(self.state)
        except jax.errors.JaxRuntimeError as error:
            said = fitting.memory_in(str(error))
            if said is None:
                raise
            needed = round(said[0])
            return StepMemory(arguments=arguments, temporary_bytes=needed, needed_bytes=needed), True
        return StepMemory(arguments=arguments, **measure(compiled, arguments)), False

    def measure(self, candidate: Candidate) -> int | None:
        """Compile the step for another number of images and return its bytes; None where the compiler refuses it."""
        arguments = self._arguments(candidate.batch_size)
        try:
            compiled = self.evaluator.compile_for(self.state, candidate.batch_size)
        except jax.errors.JaxRuntimeError as error:
            if fitting.memory_in(str(error)) is None:
                raise
            return None
        return self.bytes_of(StepMemory(arguments=arguments, **measure(compiled, arguments)))

    def _arguments(self, batch_size: int) -> dict[str, int]:
        batch = self.evaluator.blank_batch(batch_size)
        return {"batch": sum(map(bytes_on_a_device, batch.values()))}


def _refusal(search: Search, batch: tuple[Candidate, int] | None, *, is_default: bool) -> Iterator[str]:
    images = search.config.batch_size
    source = ", which is config.batch_size where it is not set," if is_default else ""
    yield (
        f"config.data.eval_batch_size: an evaluation of {images:,} images at a time{source} needs"
        f" {format_bytes(search.needed)} of memory besides the state, and {format_bytes(search.free)} are free."
        f" Activations take {format_bytes(search.temporary)}"
    )
    if batch:
        size, needed = batch[0].batch_size, format_bytes(batch[1])
        yield f"  --config.data.eval_batch_size={size} needs {needed}; no much larger batch fits"
    else:
        yield "  smaller images (config.data.eval_image_size) or a smaller network need less; no smaller batch fits"

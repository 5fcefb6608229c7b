"""Estimate the cost of a run from a few of its steps on this machine.

`python -m imagenet_repro.runs.estimate_cost FILE` runs in a separate process for each configuration, so that memory
and devices are free afterwards. FILE holds the configuration as JSON; the cost is printed as one line of JSON.
"""

import collections
import contextlib
import dataclasses
import functools
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from imagenet_repro.config import AnyConfig, Config, FrozenConfig, TrainedConfig, resolve_config
from imagenet_repro.config.amount import Amount
from imagenet_repro.data import loader, pairs, sources
from imagenet_repro.data.prefetch import prefetch_to_device
from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.inference.evaluator import Evaluator
from imagenet_repro.planning import evaluation_fit, fit
from imagenet_repro.training import cpu_precision, devices, fitting, memory, systems, teachers
from imagenet_repro.training.budget import Meter
from imagenet_repro.training.checkpoint import Checkpoints
from imagenet_repro.training.parallel import NO_RATE
from imagenet_repro.training.state import TrainState
from imagenet_repro.training.systems.system import PreparationCost

OWN_STATE, START_FIELD = Path("/proc/self/stat"), 19  # starttime, after the name of the program: proc_pid_stat(5)
UPTIME = Path("/proc/uptime")
SECONDS, WARM_UP = 3.0, 1.0  # of the steps that are timed, at the least, and of those before
LONGEST_STEP = 10.0  # seconds of a first step, or of a first batch that is evaluated, after which no other is taken
KEPT = "/jax/compilation_cache/cache_misses"  # the event that JAX records when it keeps a program
IN_FLIGHT = 2  # steps given to the devices before their results are read, as in training
EVALUATED_BATCHES = 4  # of an evaluation that is timed, at the most


@dataclasses.dataclass(frozen=True)
class RunCost:
    """The estimated cost of one run.

    Attributes:
      images: number of images seen in training.
      steps: number of training steps.
      flops: floating point operations of training, and of coding every image once if the system has hand-made
        features.
      seconds: measured time of this work with the reading of its images, without evaluation and saving, and without
        learning vocabularies.
      compilation_seconds: time to compile the training step, or to load it where it was compiled before.
      startup_seconds: time from the start of the process to the first step, with the compilation of both steps.
      has_compiled: whether a program was compiled that is kept, so that a run only loads it: it then starts faster and
        takes less memory.
      evaluation_seconds: time of all evaluations of the run; 0 for hand-made features.
      peak_memory: the result of `memory.peak` after these steps.
      device: the device of the measurement.
      parameters: number of parameters.
      flops_per_step: floating point operations of a step over the whole batch.
      step_seconds: measured time of a step.
      timed_steps: number of steps whose mean that is, after some that are not counted; 0: the first step alone, which
        took so long that no other followed.
      evaluation_compilation_seconds: time to compile the step of evaluations, or to load it from the cache.
      precision: of the computation; empty for a system of hand-made features.
      step_memory: fields of `StepMemory`; None for a system of hand-made features.
      free_memory: bytes that were free on each device once the state was there; None where that is not known.
    """

    images: int
    steps: int
    flops: float
    seconds: float
    compilation_seconds: float
    peak_memory: dict[str, Any]
    device: str
    startup_seconds: float = 0.0
    has_compiled: bool = False
    evaluation_seconds: float = 0.0
    parameters: int = 0
    flops_per_step: int = 0
    step_seconds: float = 0.0
    timed_steps: int = 0
    evaluation_compilation_seconds: float = 0.0
    precision: str = ""
    step_memory: dict[str, Any] | None = None
    free_memory: int | None = None

    @property
    def total_seconds(self) -> float:
        """The time from the start of the process to the end of the last evaluation."""
        return self.startup_seconds + self.seconds + self.evaluation_seconds


@dataclasses.dataclass(frozen=True)
class _Measured:
    """The times and the memory of a few steps and evaluations of one system.

    Attributes:
      compilation_seconds: of the training step.
      evaluation_compilation_seconds: of the evaluation step.
      first_batch_seconds: until the first batch was there.
      step_seconds: of a step, with the reading of its images.
      timed_steps: whose mean that is; 0: of the first one.
      image_seconds: of an image that is evaluated.
      memory: of the compiled step; None for hand-made features.
      free: bytes that were free on each device before the first step; None where that is not known.
    """

    compilation_seconds: float
    step_seconds: float
    timed_steps: int
    first_batch_seconds: float = 0.0
    evaluation_compilation_seconds: float = 0.0
    image_seconds: float = 0.0
    memory: dict[str, Any] | None = None
    free: int | None = None


def estimate_cost(config: AnyConfig, say: Callable[[str], None] = lambda stage: None) -> RunCost:
    """Build the system, compile its step, and take a few steps and evaluations.

    A network is measured on images of the data set, read as in training. A run in stages is measured at its last
    stage, whose images are the largest. A system of hand-made features is measured on blank images.

    Args:
      config: the configuration of a run.
      say: called with the name of each stage of this work when it begins.

    Raises:
      UserError: the data set is not prepared, the system cannot be built, its step or its evaluation needs more memory
        than is free, or the configuration describes a classifier on frozen features.
    """
    if isinstance(config, FrozenConfig):
        raise UserError("a classifier on frozen features takes no training steps that could be measured")
    say(f"reading the data set {config.data.name}")
    devices.start()
    kept = _watch_compilation()
    splits = pairs.open_splits(config)
    if isinstance(config, Config):
        config = systems.with_image_size(dataclasses.replace(config, precision=cpu_precision.choose(config.precision)))
    say(f"building {config.system_name}")
    system = systems.create_system(config, splits.train.class_names)
    began = time.perf_counter()
    preparation = system.measure_preparation(splits.train.num_examples)
    not_of_a_run = time.perf_counter() - began
    state = system.initial_state()
    if isinstance(system, systems.NetworkSystem):
        system = teachers.attach(system, splits.train.class_names)
        state = system.with_teacher(state)
    say("counting the operations of a step")
    flops = system.flops_per_step(state)
    parameters = sum(x.size for x in jax.tree.leaves(state.without_teacher().params))
    before = _seconds_since_start() - not_of_a_run
    if isinstance(config, Config) and isinstance(system, systems.NetworkSystem):
        measured = _NetworkProbe(config, system, splits, say).measure(state)
    else:
        measured = _measure_features(config, system, splits, state, say)
    meter = Meter(config.batch_size, splits.train.num_examples, flops, flops_before=round(preparation.flops))
    steps = _count_steps(config, meter, measured.step_seconds, preparation)
    evaluated = _count_evaluated(config, meter, splits, steps, measured.step_seconds)
    compilation = preparation.compilation_seconds + measured.compilation_seconds
    loading = compilation + measured.evaluation_compilation_seconds
    return RunCost(
        images=steps * config.batch_size,
        steps=steps,
        flops=preparation.flops + steps * flops,
        seconds=preparation.seconds + steps * measured.step_seconds,
        compilation_seconds=compilation,
        has_compiled=bool(kept),
        startup_seconds=before + loading + measured.first_batch_seconds,
        evaluation_seconds=evaluated * measured.image_seconds,
        peak_memory=memory.peak(),
        device=f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        parameters=int(parameters),
        flops_per_step=flops,
        step_seconds=measured.step_seconds,
        timed_steps=measured.timed_steps,
        evaluation_compilation_seconds=measured.evaluation_compilation_seconds,
        precision=config.precision if isinstance(config, Config) else "",
        step_memory=measured.memory,
        free_memory=measured.free,
    )


class _NetworkProbe:
    """Measures a network as a run trains and evaluates it.

    Args:
      config: the configuration of the run, with the image size and the precision that it computes with.
      system: the network.
      splits: the images of the run.
      say: called with the name of each stage of this work when it begins.
    """

    def __init__(
        self, config: Config, system: systems.NetworkSystem, splits: sources.Splits, say: Callable[[str], None]
    ):
        self._config, self._system, self._splits, self._say = config, system, splits, say
        self._step = system.train_step(splits.train.num_examples)

    def measure(self, state: TrainState) -> _Measured:
        """Return what compiling, steps and an evaluation took; the state's buffers are used up."""
        batch = self._system.spread.put_batch(self._system.blank_batch(self._config.batch_size))
        fitted, evaluator, compilation, free = self._compile(state, batch)
        del batch
        self._say("measuring steps")
        state, first_batch, step_seconds, timed = self._time_steps(fitted.compiled, state)
        self._say("measuring an evaluation")
        image_seconds = self._time_image(evaluator, state)
        if memory.peak()["of"] == "process":
            self._say("saving a checkpoint into a temporary directory")
            _save(state)
        return _Measured(
            compilation_seconds=compilation,
            first_batch_seconds=first_batch,
            step_seconds=step_seconds,
            timed_steps=timed,
            evaluation_compilation_seconds=evaluator.compilation_seconds,
            image_seconds=image_seconds,
            memory=dataclasses.asdict(fitted.memory),
            free=free,
        )

    def _compile(
        self, state: TrainState, batch: dict[str, jax.Array]
    ) -> tuple[fitting.FittedStep, Evaluator, float, int | None]:
        """Compile both steps and check their memory; return them, the seconds of the first, and the bytes before."""
        self._say("compiling the step")
        began = time.perf_counter()
        spread, limit = self._system.spread, fitting.device_limit()
        fitted = fitting.compile_training(spread, self._step, state, batch, limit)
        seconds = time.perf_counter() - began
        free, stage = memory.free(), functools.partial(_stage, self._say)
        meter = fit.StepMeter(spread, self._step, state, batch, fitted.record["policy"])
        fit.require_fit(meter, fitted, free, stage)
        evaluator = Evaluator(self._config, self._system.score, spread, self._splits.evaluated, lambda line: None)
        evaluation_fit.require_evaluation_fit(
            evaluator,
            self._config,
            self._system.scoring_state(state),
            fitted.memory,
            free=memory.free(),
            stage=stage,
        )
        return fitted, evaluator, seconds, free

    def _time_steps(self, compiled: Callable, state: TrainState) -> tuple[TrainState, float, float, int]:
        """Return the state after some steps, the seconds until the first batch, those of a step, and how many it took.

        The first step is not counted, nor are those in the time of `WARM_UP`, unless it takes `LONGEST_STEP` or more.
        """
        began = time.perf_counter()
        config, spread = self._config, self._system.spread
        batches = loader.train_batches(
            self._splits.train,
            config.data,
            config.train_crop,
            batch_size=config.batch_size,
            seed=config.seed,
            captioner=self._system.captioner(self._splits.train),
        )
        keys = self._system.device_keys
        on_device: Any = prefetch_to_device(
            batches, lambda batch: spread.put_batch({name: batch[name] for name in keys})
        )
        with contextlib.closing(on_device):
            _, first = next(on_device)
            first_batch = time.perf_counter() - began
            began = time.perf_counter()
            state, measures = compiled(state, first, NO_RATE)
            jax.block_until_ready(measures)
            step_seconds = time.perf_counter() - began
            if step_seconds >= LONGEST_STEP:
                return state, first_batch, step_seconds, 0
            if step_seconds < WARM_UP:
                state, _, _ = _take_steps(compiled, state, on_device, WARM_UP)
            state, count, seconds = _take_steps(compiled, state, on_device, SECONDS)
        return state, first_batch, seconds / count, count

    def _time_image(self, evaluator: Evaluator, state: TrainState) -> float:
        """Return the seconds of an image in an evaluation of some batches, which follows one of a single batch.

        Where that one takes `LONGEST_STEP` or more, it is the answer.
        """
        split = self._splits.evaluated
        state = self._system.scoring_state(state)
        for batches in (1, EVALUATED_BATCHES):
            part = split.subset(range(min(split.num_examples, batches * evaluator.batch_size)))
            on_part = evaluator.on(part, self._config.data, lambda images: None)
            began = time.perf_counter()
            on_part.rates(state)
            seconds = time.perf_counter() - began
            if seconds >= LONGEST_STEP:
                break
        return seconds / part.num_examples


def _save(state: TrainState) -> None:
    """Save a checkpoint into a directory that is removed: what it takes is part of the peak of a run on the CPU."""
    with tempfile.TemporaryDirectory() as directory, contextlib.suppress(SaveError):
        checkpoints = Checkpoints(Path(directory) / "checkpoints", 1)
        try:
            checkpoints.save(1, state.without_teacher(), {"steps": 1, "seconds": 0.0}, None)
        finally:
            checkpoints.close()


def _take_steps(
    compiled: Callable, state: TrainState, batches: Iterator[tuple[Any, Any]], seconds: float
) -> tuple[TrainState, int, float]:
    """Take one step or more, for some seconds, as training does; return the state, their number and their seconds."""
    pending: collections.deque = collections.deque()
    began, count = time.perf_counter(), 0
    while not count or time.perf_counter() - began < seconds:
        _, batch = next(batches)
        state, measures = compiled(state, batch, NO_RATE)
        pending.append(measures)
        if len(pending) > IN_FLIGHT:
            jax.device_get(pending.popleft())
        count += 1
    jax.block_until_ready((state, list(pending)))
    return state, count, time.perf_counter() - began


def _measure_features(
    config: TrainedConfig,
    system: systems.System,
    splits: sources.Splits,
    state: TrainState,
    say: Callable[[str], None],
) -> _Measured:
    """Return what compiling and a few steps of a system of hand-made features took."""
    batch = system.spread.put_batch(system.blank_batch(config.batch_size))
    say("compiling the step")
    began = time.perf_counter()
    compiled = system.spread.compile_training(system.train_step(splits.train.num_examples), state, batch)
    compilation = time.perf_counter() - began
    say("measuring steps")
    state, measures = compiled(state, batch, NO_RATE)
    jax.block_until_ready(measures)
    _, count, seconds = _take_steps(compiled, state, itertools.repeat((None, batch)), SECONDS)
    return _Measured(compilation, seconds / count, count)


def _watch_compilation() -> list[str]:
    """Return a list that grows whenever JAX puts a program that it has compiled into its cache."""
    kept: list[str] = []

    def note(event: str, **_: Any) -> None:
        if event == KEPT:
            kept.append(event)

    jax.monitoring.register_event_listener(note)
    return kept


def _seconds_since_start() -> float:
    """Return the age of this process, which holds the time of its imports; 0 outside of Linux."""
    try:
        started = float(OWN_STATE.read_text(encoding="utf-8").rpartition(")")[2].split()[START_FIELD])
        now = float(UPTIME.read_text(encoding="utf-8").split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0
    return now - started / os.sysconf("SC_CLK_TCK")


def _stage(say: Callable[[str], None], name: str) -> contextlib.AbstractContextManager:
    say(name)
    return contextlib.nullcontext()


def _count_steps(config: TrainedConfig, meter: Meter, seconds: float, preparation: PreparationCost) -> int:
    """Return the steps until the budget is spent; for seconds, the number that fits after the preparation."""
    amount = Amount.parse(config.budget)
    steps = meter.steps_to(amount)
    return max(1, int((amount.value - preparation.seconds) / seconds)) if steps is None else steps


def _count_evaluated(
    config: TrainedConfig, meter: Meter, splits: sources.Splits, steps: int, step_seconds: float
) -> int:
    """Return the images of all evaluations of a run, that of its result included."""
    amount = Amount.parse(config.evaluate_every)
    interval = meter.steps_to(amount) or max(1, round(amount.value / step_seconds))
    evaluations = -(-steps // interval)
    scored = splits.scored.num_examples if config.data.test_split else 0
    return evaluations * splits.evaluated.num_examples + scored


def main(path: str) -> int:
    """Print the cost of the configuration in a file; return the exit code."""
    try:
        cost = estimate_cost(resolve_config(json.loads(Path(path).read_text(encoding="utf-8"))))
    except UserError as error:
        print(f"\n{error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(dataclasses.asdict(cost)))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""One run of a system of hand-made features and linear SVMs: its stages, its codes and its budget."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from imagenet_repro.config import FeatureConfig
from imagenet_repro.config.amount import Amount
from imagenet_repro.data import loader
from imagenet_repro.data.bad_records import BadRecords
from imagenet_repro.data.prefetch import prefetch_to_device
from imagenet_repro.data.sources import Splits
from imagenet_repro.errors import InterruptedRunError, UserError
from imagenet_repro.features import stored_codes
from imagenet_repro.features.encoding import quantisation
from imagenet_repro.features.encoding.quantisation import Quantiser
from imagenet_repro.features.stages import ChannelStages, LearnedChannel, StageCost, StoppedError
from imagenet_repro.inference.evaluator import Evaluator
from imagenet_repro.report.plots.descriptors import plot_descriptors
from imagenet_repro.report.sections import stages
from imagenet_repro.runs.run import Run
from imagenet_repro.scoring.terminal import duration
from imagenet_repro.storage import user
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.training import energy, log, loop
from imagenet_repro.training.budget import Budget, Meter, Spent
from imagenet_repro.training.clock import StopSignal
from imagenet_repro.training.state import TrainState
from imagenet_repro.training.step import AXIS
from imagenet_repro.training.svm_step import CODES
from imagenet_repro.training.systems.features import FeatureSystem, average_start, create_encoders
from imagenet_repro.zoo import counting

SVM = "SVM"  # the last stage, of all channels together
DRAWN = 4  # images whose descriptors a run draws


class _Watcher:
    """Shows the progress of the stages on the screen, and passes on stop signals to them.

    Args:
      stop: the stop signals.
      check: called after each batch with the seconds that the stages of the channel have taken so far; it may raise.
    """

    def __init__(self, stop: StopSignal, check: Callable[[float], None]):
        self._stop, self._check, self._screen = stop, check, log.Screen()
        self.start_channel()

    def start_channel(self) -> None:
        """Count the seconds of another channel."""
        self._stage: tuple[str, float, int] = ("", 0.0, 0)
        self._before = self._seconds = 0.0  # of the stages before this one, and of all so far

    def say(self, text: str) -> None:
        self._screen.say(text)

    def show(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self._stage[0]:
            self._stage, self._before = (stage, now, done), self._seconds
        _, began, before = self._stage
        self._seconds = self._before + now - began
        self._check(self._seconds)
        if done == before:  # the first batch, whose start was not measured
            return
        rate = (done - before) / (now - began)
        left = duration((total - done) / rate)
        self._screen.show(done / total, f"{stage}: {done:,}/{total:,} images  {rate:,.0f} img/s  {left} left")

    def stopping(self) -> bool:
        return self._stop.received is not None

    def flops(self, function: Callable, *shapes: Any) -> int:
        return counting.flops(function, *shapes)  # no stage has a convolution, so both conventions give this count

    def close(self) -> None:
        self._screen.close()


class FeatureRun(Run[FeatureConfig, FeatureSystem]):
    """One call of `train` for a system of features; the arguments are those of `Run`.

    Raises:
      UserError: a batch does not divide among the devices, or the system cannot be built.
    """

    def __init__(self, config: FeatureConfig, workdir: Workdir, splits: Splits):
        self.system = FeatureSystem.create(config, splits.train.num_classes)
        spread = self.system.spread
        spread.check_batch_size(config.batch_size, 1, "batch_size")
        spread.check_batch_size(config.data.eval_batch_size or config.batch_size, 1, "data.eval_batch_size")
        create_encoders(config, config.data.size_evaluated)  # raises UserError if the images are smaller than a patch
        average_start(config)
        self.learned: dict[str, LearnedChannel] = {}
        super().__init__(config, workdir, splits)

    def go(self) -> None:
        """Train as `Run.go` does; the stages before the SVM can be stopped too."""
        try:
            super().go()
        except StoppedError as stopped:
            raise InterruptedRunError(
                f"stopped by {stopped}, finished stages are kept; the same command continues"
            ) from stopped
        finally:
            for one in self.learned.values():
                one.codes.close()

    def _learn(self) -> None:
        """Run the stages of the channels that are not finished."""
        with StopSignal("stopping after this batch of images") as stop:
            watcher = _Watcher(stop, self._check_budget)
            try:
                self._run_stages(watcher)
            except StoppedError as stopped:
                raise StoppedError(stop.received) from stopped
            finally:
                watcher.close()

    def _run_stages(self, watcher: _Watcher) -> None:
        config, split = self.config, self.train_split
        watcher.say(
            f"{config.system}: {len(config.channels)} channels, {sum(self.system.features.values()):,} features,"
            f" {split.num_classes:,} classes, over {jax.device_count()} x {jax.devices()[0].device_kind}"
        )
        watcher.say(f"{split.name} {split.split}: {split.num_examples:,} images at {config.data.image_size} px")
        directory = user.expand(config.cache_dir) if config.cache_dir else self.workdir.path / "features"
        for name, encoder in self.system.encoders.items():
            watcher.say(
                f"{name}: {encoder.points:,} descriptors of {encoder.numbers} numbers, codes of {encoder.features:,}"
            )
            watcher.start_channel()
            self.learned[name] = ChannelStages(name, config, split, directory, watcher).run()
            self._check_budget()
        self._draw(watcher)

    def _draw(self, watcher: _Watcher) -> None:
        """Draw HOG and LBP of the first evaluated images; print a line instead if these are too small."""
        path, data = self.workdir.path / "descriptors.png", self.config.data
        if path.exists() and path.with_suffix(".svg").exists():  # written in this order
            return
        batch = next(loader.eval_batches(self.eval_split, data, self.config.eval_crop, batch_size=DRAWN))
        images = batch["image"][batch["weight"] > 0]
        if not len(images):
            watcher.say(f"no figure of the descriptors: the first {DRAWN} images cannot be decoded")
            return
        try:
            plot_descriptors(images, path)
        except UserError as error:
            watcher.say(f"no figure of the descriptors: {error}")

    def _job(self) -> loop.TrainingJob:
        self._learn()
        first = self.system.initial_state({name: one.vocabulary for name, one in self.learned.items()})
        restored = self.checkpoints.restore(first)
        train_state = self.system.spread.put_state(restored.state) if restored else first
        costs = self._stage_costs()
        seconds, flops = (sum(getattr(cost, key) for cost in costs) for key in ("seconds", "flops"))
        budget = self._budget(train_state, flops)
        spent = (
            budget.meter.spent(restored.info["steps"], restored.info["seconds"])
            if restored
            else Spent(seconds=seconds, flops=float(flops))
        )
        run_log = log.RunLog(self.workdir.path, spent.steps, self.config)
        self._introduce(run_log, budget, spent)
        self.evaluator = Evaluator(self.config, self.system.score, self.system.spread, self.eval_split, run_log.say)
        return loop.TrainingJob(
            config=self.config,
            state=train_state,
            steps=[self._compile(run_log, train_state)],
            batches=self._batches(spent.steps, budget),
            evaluate=self._evaluate,
            name_images=self._image_names,
            budget=budget,
            spent=spent,
            checkpoints=self.checkpoints,
            bad_records=BadRecords(
                self.train_split,
                self.config.data,
                run_log.say,
                log.left_out(self.workdir.metrics, spent.steps),
            ),
            log=run_log,
            known=restored.info if restored else {},
            energy=energy.EnergyMeter(before=energy.unknown_so_far("the stages before the SVM are not measured")),
            early_stopping=self.config.svm.early_stopping,
        )

    def _stage_costs(self) -> list[StageCost]:
        return [cost for one in self.learned.values() for cost in one.costs.values()]

    def _budget(self, train_state: TrainState, flops_before: int) -> Budget:
        flops = self.system.flops_per_step(train_state)
        meter = Meter(self.config.batch_size, self.train_split.num_examples, flops, flops_before=flops_before)
        return Budget(Amount.parse(self.config.budget), meter)

    def _check_budget(self, seconds: float = 0.0) -> None:
        """Raise UserError if the features of the channels so far have used up the budget.

        Args:
          seconds: what the stages of an unfinished channel have taken so far.
        """
        amount = Amount.parse(self.config.budget)
        costs = self._stage_costs()
        used = {"s": seconds + sum(cost.seconds for cost in costs), "flop": sum(cost.flops for cost in costs)}
        if used.get(amount.unit, 0) >= amount.value:
            begun = len(self.learned) + (seconds > 0)
            channels = f"{begun} of {len(self.config.channels)} channels"
            raise UserError(
                f"config.budget: {amount} was spent before the SVM saw an image: the features of {channels} took"
                f" {used[amount.unit]:.4g}{amount.unit}; they are kept, and a new workdir with the same"
                " config.cache_dir and a larger budget uses them"
            )

    def _compile(self, run_log: log.RunLog, train_state: TrainState) -> Callable:
        began = time.perf_counter()
        spread = self.system.spread
        step = self.system.train_step(self.train_split.num_examples)
        batch = spread.put_batch(self.system.blank_batch(self.config.batch_size))
        with run_log.stage("compiling the step"):
            compiled = spread.compile_training(step, train_state, batch)
        self.compilation_seconds = time.perf_counter() - began
        run_log.say(f"compiled the step in {duration(self.compilation_seconds)}")
        return compiled

    def _batches(
        self, start_step: int, budget: Budget
    ) -> Iterator[tuple[dict[str, np.ndarray], dict[str, jax.Array]]]:
        batches = stored_codes.train_batches(
            {name: one.codes for name, one in self.learned.items()},
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            start_step=start_step,
            num_steps=None if budget.total_steps is None else budget.total_steps - start_step,
        )
        decoders = {name: self._decoder(one) for name, one in self.learned.items()}

        def put(batch: dict[str, Any]) -> dict[str, jax.Array]:
            stored = {CODES + name: rows for name, rows in batch["codes"].items()}
            placed = self.system.spread.put_batch(stored | {"label": batch["label"]})
            decoded = {CODES + name: decode(placed[CODES + name]) for name, decode in decoders.items()}
            return placed | decoded

        return prefetch_to_device(batches, put)

    def _decoder(self, learned: LearnedChannel) -> Callable[[jax.Array], jax.Array]:
        """Return the function that converts stored codes to float32, on the devices that hold them."""
        sharding = NamedSharding(self.system.spread.mesh, PartitionSpec(AXIS))
        if learned.quantiser is None:
            return jax.jit(lambda stored: stored.astype(jnp.float32), out_shardings=sharding)
        quantiser = jax.device_put(learned.quantiser, NamedSharding(self.system.spread.mesh, PartitionSpec()))

        @functools.partial(jax.jit, out_shardings=sharding)
        def decode(stored: jax.Array, quantiser: Quantiser) -> jax.Array:
            rows = stored.reshape(-1, stored.shape[-1])
            return quantisation.decode(rows, quantiser).reshape(*stored.shape[:-1], -1)

        return functools.partial(decode, quantiser=quantiser)

    def _introduce(self, run_log: log.RunLog, budget: Budget, spent: Spent) -> None:
        steps = f"{budget.total_steps:,} steps" if budget.total_steps else "as many steps as fit"
        size = sum(one.codes.bytes for one in self.learned.values())
        run_log.say(
            f"budget {self.config.budget}: {steps} of {self.config.batch_size} images,"
            f" {budget.meter.flops_per_step / 1e9:,.1f} GFLOP each; {size / 1e9:,.2f} GB of codes"
        )
        run_log.say(f"workdir {self.workdir.path}")
        if spent.steps:
            run_log.say(f"resumed at step {spent.steps:,}, {100 * budget.progress(spent):.1f} % of the budget spent")

    def _finish(self, outcome: loop.Outcome) -> None:
        before = sum(cost.seconds for cost in self._stage_costs())
        flops = outcome.spent.flops - sum(cost.flops for cost in self._stage_costs())
        self._svm = StageCost(outcome.spent.seconds - before, int(flops), 0)
        super()._finish(outcome)
        stages.show(self._stages(), self.train_split.num_examples)

    def _stages(self) -> dict[str, dict[str, Any]]:
        """Return the cost of each stage, under `CHANNEL.STAGE`."""
        costs = {f"{name}.{stage}": cost for name, one in self.learned.items() for stage, cost in one.costs.items()}
        return {stage: dataclasses.asdict(cost) for stage, cost in (costs | {SVM: self._svm}).items()}

    def _summary(self) -> dict[str, Any]:
        return super()._summary() | {"stages": self._stages(), "train_images": self.train_split.num_examples}

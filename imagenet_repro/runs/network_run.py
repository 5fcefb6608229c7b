"""One run of a network: its images, its stages and its budget."""

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import jax

from imagenet_repro.config import AnyConfig, Config
from imagenet_repro.config.amount import Amount
from imagenet_repro.data import loader
from imagenet_repro.data.bad_records import BadRecords
from imagenet_repro.data.batch import Batch
from imagenet_repro.data.prefetch import prefetch_to_device
from imagenet_repro.data.sources import Splits
from imagenet_repro.inference.evaluator import Evaluator
from imagenet_repro.planning import evaluation_fit, fit
from imagenet_repro.runs import initial_weights, weights_images
from imagenet_repro.runs.run import Run
from imagenet_repro.scoring import terminal
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.training import (
    cpu_precision,
    energy,
    extension,
    fitting,
    hosts,
    log,
    loop,
    memory,
    parallel,
    progressive,
    teachers,
)
from imagenet_repro.training.budget import Budget, Meter, Spent
from imagenet_repro.training.clock import Agreement
from imagenet_repro.training.learning_rate import LearningRate
from imagenet_repro.training.state import TrainState
from imagenet_repro.training.systems.network import NetworkSystem, describe_loaded


class NetworkRun(Run[Config, NetworkSystem]):
    """One call of `train` for a network; the arguments are those of `Run`.

    Attributes:
      before: the configuration, with a smaller budget, of the run that this one extends; None: it extends none.

    Raises:
      UserError: a batch does not divide among the devices, or the network or its weights cannot be loaded.
    """

    before: AnyConfig | None = None

    def __init__(self, config: Config, workdir: Workdir, splits: Splits):
        spread = parallel.create(config.parallel, deterministic=config.deterministic)
        spread.check_batch_size(config.batch_size, config.accumulate, "batch_size")  # before anything large is built
        self.system = self._create_system(_as_computed(config, workdir), workdir, splits)
        self.stages = [self.system.at_stage(stage) for stage in range(config.progressive.stages)]
        super().__init__(config, workdir, splits)

    def _create_system(self, config: Config, workdir: Workdir, splits: Splits) -> NetworkSystem:
        """Return the system, with its initial weights where the run is new, and its teacher."""
        source = "" if workdir.has_checkpoints else config.model.weights
        weights = initial_weights.read_source(source) if source else ""
        classes = splits.train.class_names
        system = NetworkSystem.create(config, len(classes), weights, class_names=classes)
        system = teachers.attach(system, classes)
        if system.teacher:
            teachers.check_unchanged(system.teacher, workdir, is_new=not workdir.has_checkpoints)
        return system

    def _job(self) -> loop.TrainingJob:
        """Restore or create the state, compile the steps, and print a summary of the run."""
        with terminal.show_stages(hosts.console()) as begin:
            begin("restoring the state" if self.workdir.has_checkpoints else "drawing the initial weights")
            first = self.system.initial_state()
            restored = self.checkpoints.restore(first)
            train_state = self.system.spread.put_state(restored.state) if restored else first
            train_state = self.system.with_teacher(train_state)
            begin("counting the operations of a step")
            budget = self._budget(train_state)
            self.system.check_evaluated_size()
        spent = budget.meter.spent(restored.info["steps"], restored.info["seconds"]) if restored else Spent()
        self._extend(budget, spent)
        run_log = log.RunLog(self.workdir.path, spent.steps, self.config)
        self._introduce(run_log, budget, spent, train_state)
        self.evaluator = Evaluator(self.config, self.system.score, self.system.spread, self.eval_split, run_log.say)
        learning_rate = LearningRate(
            self.config.optimizer.learning_rate,
            self.config.schedule,
            restored.info.get("plateau") if restored else None,
        )
        known = log.left_out(self.workdir.metrics, spent.steps)
        bad_records = BadRecords(self.train_split, self.config.data, run_log.say, known)
        batches = self._batches(spent.steps, budget)
        agreement = self._agreement(spent.seconds)
        meter = energy.open_meter(energy.restored(restored.info) if restored else None)
        if measured := meter.describe():
            run_log.say(measured)
        try:
            steps, self.compilation_seconds = self._compile(run_log, train_state, agreement)
        except BaseException:  # a step that does not fit, or Ctrl-C: the terminal gets its cursor back
            run_log.close()
            raise
        return loop.TrainingJob(
            config=self.config,
            state=train_state,
            steps=[step.compiled for step in steps],
            batches=batches,
            evaluate=self._evaluate,
            name_images=self._image_names,
            budget=budget,
            spent=spent,
            checkpoints=self.checkpoints,
            bad_records=bad_records,
            log=run_log,
            known=restored.info if restored else {},
            learning_rate=learning_rate,
            agreement=agreement,
            energy=meter,
        )

    def _extend(self, budget: Budget, spent: Spent) -> None:
        """Record the larger budget of a run that is extended, if its steps so far are those of the larger budget."""
        if not isinstance(self.before, Config):
            return
        extension.check_same_rates(self.before, self.config, budget, spent)
        if jax.process_index() == 0:
            self.workdir.extend(self.config, spent.steps)
            print(f"extends the run of {self.before.budget} from step {spent.steps:,} to {self.config.budget}")

    def _agreement(self, seconds: float) -> Agreement:
        if jax.process_count() == 1:
            return Agreement()
        amounts = (self.config.budget, self.config.evaluate_every, self.config.checkpoint.every)
        timed = any(Amount.parse(amount).unit == "s" for amount in amounts)
        return Agreement(self.system.spread.put_batch, self._share, timed=timed, seconds=seconds)

    @property
    def _share(self) -> int:
        """The images of a batch that this process loads."""
        return self.config.batch_size // jax.process_count()

    def _budget(self, train_state: TrainState) -> Budget:
        first, *later = (stage.flops_per_step(train_state) for stage in self.stages)
        amount = Amount.parse(self.config.budget)
        meter = Meter(self.config.batch_size, self.train_split.num_examples, first)
        return Budget(amount, progressive.staged(meter, amount, later))

    def _batches(self, start_step: int, budget: Budget) -> Any:
        starts = [0, *(first for first, _ in budget.meter.later)]
        ends = [*starts[1:], budget.total_steps]
        batches = loader.chain_batches(
            [
                self._stage_batches(stage.config, max(start, start_step), end)
                for stage, start, end in zip(self.stages, starts, ends, strict=True)
                if end is None or start_step < end
            ]
        )
        keys = self.system.device_keys
        return prefetch_to_device(
            batches, lambda batch: self.system.spread.put_batch({name: batch[name] for name in keys})
        )

    def _stage_batches(self, config: Config, start_step: int, end: int | None) -> Iterator[Batch]:
        return loader.train_batches(
            self.train_split,
            config.data,
            config.train_crop,
            batch_size=config.batch_size,
            seed=config.seed,
            start_step=start_step,
            num_steps=None if end is None else end - start_step,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            captioner=self.system.captioner(self.train_split),
        )

    def _compile(
        self, run_log: log.RunLog, train_state: TrainState, agreement: Agreement
    ) -> tuple[list[fitting.FittedStep], float]:
        """Compile the step of every stage, so that no stage begins with a wait."""
        began = time.perf_counter()
        limit = fitting.device_limit()
        steps = "the step" if len(self.stages) == 1 else f"the steps of {len(self.stages)} stages"
        with run_log.stage(f"compiling {steps}"):
            compiled = [self._compile_stage(stage, train_state, agreement, limit) for stage in self.stages]
        seconds = time.perf_counter() - began
        self._require_fit(run_log, train_state, agreement, compiled)
        evaluation_fit.require_evaluation_fit(
            self.evaluator,
            self.config,
            self.system.scoring_state(train_state),
            compiled[-1].memory,
            free=memory.free(),
            stage=run_log.stage,
        )
        evaluation = terminal.duration(self.evaluator.compilation_seconds)
        run_log.say(f"compiled {steps} in {terminal.duration(seconds)} and the evaluation in {evaluation}")
        for line in dict.fromkeys(step.describe() for step in compiled):
            if line:
                run_log.say(line)
        self.memory_of_steps = [step.record for step in compiled]
        return compiled, seconds

    def _require_fit(
        self, run_log: log.RunLog, train_state: TrainState, agreement: Agreement, compiled: list[fitting.FittedStep]
    ) -> None:
        free = memory.free()
        for stage, fitted in zip(reversed(self.stages), reversed(compiled), strict=True):  # the largest images first
            step, policy = stage.train_step(self.train_split.num_examples), fitted.record["policy"]
            meter = fit.StepMeter(stage.spread, step, train_state, self._blank_batch(stage, agreement), policy)
            fit.require_fit(meter, fitted, free, run_log.stage)

    def _blank_batch(self, stage: NetworkSystem, agreement: Agreement) -> dict[str, jax.Array]:
        return stage.spread.put_batch(stage.blank_batch(self._share)) | agreement.entry(0.0, False)

    def _compile_stage(
        self, stage: NetworkSystem, train_state: TrainState, agreement: Agreement, limit: int | None
    ) -> fitting.FittedStep:
        batch = self._blank_batch(stage, agreement)
        step = stage.train_step(self.train_split.num_examples)
        return fitting.compile_training(stage.spread, step, train_state, batch, limit)

    def _summary(self) -> dict[str, Any]:
        return super()._summary() | {"rematerialisation": self.memory_of_steps}

    def _introduce(self, run_log: log.RunLog, budget: Budget, spent: Spent, train_state: TrainState) -> None:
        config, split = self.config, self.train_split
        parameters = sum(x.size for x in self.system.network.params.values())
        precision = self.system.config.precision
        steps = f"{budget.total_steps:,} steps" if budget.total_steps else "as many steps as fit"
        run_log.say(
            f"{config.model.name}: {parameters / 1e6:,.2f} M parameters, {split.num_classes:,} classes,"
            f" {precision}, {config.parallel} over {jax.device_count()} x {jax.devices()[0].device_kind}"
        )
        different = cpu_precision.explain(config.precision, precision)
        if different:
            run_log.say(different)
        sizes = ", ".join(str(stage.config.data.image_size) for stage in self.stages)
        flops = [budget.meter.flops_per_step, *(flops for _, flops in budget.meter.later)]
        run_log.say(
            f"{split.name} {split.split}: {split.num_examples:,} images at {sizes} px;"
            f" budget {config.budget}: {steps} of {config.batch_size} images,"
            f" {', '.join(f'{each / 1e9:,.1f}' for each in flops)} GFLOP each"
        )
        for line in (self.system.spread.describe(train_state), self._norm_warning()):
            if line:
                run_log.say(line)
        if self.system.frozen:
            share = f"{self.system.trained_parameters / 1e6:,.2f} M parameters are trained"
            run_log.say(f"{share}; batch norm of frozen layers is in {config.train.frozen_norm} mode")
        if self.system.teacher:
            run_log.say(self.system.teacher.description)
        run_log.say(f"workdir {self.workdir.path}")
        if self.system.loaded:
            run_log.say(describe_loaded(self.system.loaded))
            run_log.say(weights_images.describe(config, self.system.loaded.preprocessing))
        if spent.steps:
            run_log.say(f"resumed at step {spent.steps:,}, {100 * budget.progress(spent):.1f} % of the budget spent")

    def _norm_warning(self) -> str:
        """Return a warning where batch norm sees one image at a time; else nothing."""
        config = self.config
        images = config.batch_size // jax.device_count() // config.accumulate
        if images > 1 or config.cross_device_norm or not self.system.network.stats:
            return ""
        return (
            "warning: each device has one image at a time, and batch norm computes its statistics from that image"
            " alone; config.cross_device_norm=true computes them from the images of all devices"
        )


def _as_computed(config: Config, workdir: Workdir) -> Config:
    """Return the configuration with the precision that the first process recorded; every process must call this."""
    precision = hosts.from_first(workdir.precision() if jax.process_index() == 0 else None)
    return dataclasses.replace(config, precision=precision or config.precision)

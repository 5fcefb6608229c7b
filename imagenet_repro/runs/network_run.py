"""Networks: what a configuration builds, and how it is trained."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from imagenet_repro import models, pretrained
from imagenet_repro.config import Config, Model
from imagenet_repro.config.amount import Amount
from imagenet_repro.data import loader
from imagenet_repro.data.augment import augment
from imagenet_repro.data.bad_records import BadRecords
from imagenet_repro.data.batch import TRAINING_KEYS, Batch
from imagenet_repro.data.prefetch import prefetch_to_device
from imagenet_repro.data.sources import Splits
from imagenet_repro.errors import UserError
from imagenet_repro.inference import evaluator as evaluation
from imagenet_repro.inference import maps
from imagenet_repro.runs.run import Run, step_flops
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.training import log, loop, optimizer, parallel, progressive, state, step
from imagenet_repro.training.budget import Budget, Meter, Spent
from imagenet_repro.training.functional import FunctionalNetwork, Tensors
from imagenet_repro.zoo import counting

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
RESERVED_OPTIONS = {  # what the run itself hands to a network, and where it comes from
    "name": "config.model.name",
    "num_classes": "the data set",
    "dtype": "config.precision",
    "seed": "config.seed",
    "rngs": "config.seed",
}


@dataclasses.dataclass
class System:
    """A network of a configuration and where it runs."""

    config: Config
    num_classes: int
    network: FunctionalNetwork
    spread: parallel.ShardMap
    optimizer: Any
    loaded: pretrained.Report | None = None  # of the weights that it starts from

    @classmethod
    def create(
        cls,
        config: Config,
        num_classes: int,
        weights: str | pretrained.Weights = "",
        *,
        drop_background: bool = False,
    ) -> "System":
        """Builds the network; nothing is compiled but its initialisation.

        Args:
          config: of the run.
          num_classes: of the data.
          weights: a file, or what is in it, in place of the initial values; empty: none.
          drop_background: of `pretrained.load`.

        Raises:
          UserError: as `models.create` and `pretrained.load`, or an option that is not the configuration's to choose.
        """
        _check_options(config.model)
        if config.precision == "float32":
            jax.config.update("jax_default_matmul_precision", "highest")  # no bf16 or TF32 passes behind its back
        spread = parallel.create(config.parallel, deterministic=config.deterministic)
        with spread.initial_device():
            model = models.create(
                config.model.name,
                num_classes=num_classes,
                dtype=DTYPES[config.precision],
                seed=config.seed,
                **config.model.options,
            )
            loaded = pretrained.load(model, weights, drop_background=drop_background) if weights else None
        network = FunctionalNetwork(model, cross_device_norm=config.cross_device_norm)
        place = models.spec(config.model.name).layers
        layers = {name: place(model)(name) for name in network.params} if place else None
        optimiser = optimizer.create(config.optimizer, config.clip_norm, layers)
        return cls(config, num_classes, network, spread, optimiser, loaded)

    def at_stage(self, stage: int) -> "System":
        """The same system as a stage of `config.progressive` trains it; the parameters of all stages are alike."""
        config = progressive.stage_config(self.config, stage)
        network = self.network
        if config.model != self.config.model:
            options = config.model.options
            model = models.abstract(config.model.name, self.num_classes, DTYPES[config.precision], **options)
            network = FunctionalNetwork(model, cross_device_norm=config.cross_device_norm)
        return dataclasses.replace(self, config=config, network=network)

    def initial_state(self) -> state.TrainState:
        """The state before the first step, on the devices; to be called once."""
        placed = self.spread.initial_state(
            self.network.params,
            self.network.stats,
            self.optimizer,
            ema=self.config.ema_decay > 0,
            seed=self.config.seed,
        )
        self.network.release()
        return placed

    def score(self, params: Tensors, stats: Tensors, images: UInt8[Array, "b h w 3"]) -> Float[Array, "b classes"]:
        """Logits of images, in evaluation mode."""
        return self.network.evaluate(params, stats, augment.normalize(images, self.config.augment))

    def class_map(
        self, params: Tensors, stats: Tensors, images: UInt8[Array, "b h w 3"]
    ) -> Float[Array, "b oh ow classes"]:
        """Logits at every position of larger images, in evaluation mode (models/maps.py)."""
        model = self.network.model(params, stats)
        return maps.class_map(model, augment.normalize(images, self.config.augment), self.config.data.size_evaluated)

    @property
    def train_step(self) -> step.TrainStep:
        """One device's step."""
        return step.TrainStep(self.network, self.config, self.num_classes, self.optimizer)

    def flops_per_step(self, train_state: state.TrainState) -> int:
        """Floating point operations of a step over the whole batch, from its trace on one imagined device."""
        size, side = self.config.batch_size, self.config.data.image_size
        batch = {name: jax.ShapeDtypeStruct((size,), jnp.int32) for name in ("label", "epoch", "index")}
        batch["image"] = jax.ShapeDtypeStruct((size, side, side, 3), jnp.uint8)
        return step_flops(self.train_step, train_state, batch)


def _check_options(model: Model) -> None:
    """Refuses the options that `System.create` sets, which the network's own check never sees."""
    for option in model.options:
        if option in RESERVED_OPTIONS:
            raise UserError(f"config.model.options: '{option}' follows from {RESERVED_OPTIONS[option]}; leave it out")
        if not isinstance(option, str):
            raise UserError(f"config.model.options: {option!r} is not the name of an option; texts are needed")


class NetworkRun(Run):
    """One call of `train` for a network; arguments as for `Run`.

    Raises:
      UserError: a batch does not divide among the devices, or the network or its weights cannot be had.
    """

    def __init__(self, config: Config, place: Workdir, splits: Splits):
        spread = parallel.create(config.parallel, deterministic=config.deterministic)
        spread.check_batch_size(config.batch_size, config.accumulate, "batch_size")  # before anything large is built
        weights = "" if place.started else config.model.weights
        self.system = System.create(config, splits.train.num_classes, weights)
        self.stages = [self.system.at_stage(stage) for stage in range(config.progressive.stages)]
        super().__init__(config, place, splits)

    def _job(self) -> loop.Job:
        """Restores or starts, compiles, and says what is about to happen."""
        first = self.system.initial_state()
        found = self.checkpoints.restore(first)
        train_state = self.system.spread.put_state(found.state) if found else first
        budget = self._budget(train_state)
        spent = budget.meter.spent(found.info["steps"], found.info["seconds"]) if found else Spent()
        run_log = log.RunLog(self.place.path, spent.steps)
        self._introduce(run_log, budget, spent)
        self.evaluator = evaluation.Evaluator(
            self.config, self.system.score, self.system.spread, self.eval_split, run_log.say
        )
        bad_records = BadRecords(self.train_split, self.config.data, run_log.say)
        batches = self._batches(spent.steps, budget)
        compiled, self.compilation_seconds = self._compile(run_log, train_state)
        return loop.Job(
            config=self.config,
            state=train_state,
            steps=compiled,
            batches=batches,
            evaluate=self._evaluate,
            name_images=self._image_names,
            budget=budget,
            spent=spent,
            checkpoints=self.checkpoints,
            bad_records=bad_records,
            log=run_log,
            known=found.info if found else {},
            learning_rate=self.config.optimizer.learning_rate,
            schedule=self.config.schedule,
        )

    def _budget(self, train_state: state.TrainState) -> Budget:
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
        return prefetch_to_device(
            batches, lambda batch: self.system.spread.put_batch({name: batch[name] for name in TRAINING_KEYS})
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
        )

    def _compile(self, run_log: log.RunLog, train_state: state.TrainState) -> tuple[list[Callable], float]:
        """The step of every stage, so that no stage begins with a wait."""
        began = time.perf_counter()
        compiled = [self._compile_stage(stage, train_state) for stage in self.stages]
        seconds = time.perf_counter() - began
        steps = "the step" if len(compiled) == 1 else f"the steps of {len(compiled)} stages"
        run_log.say(f"compiled {steps} in {log.duration(seconds)}")
        return compiled, seconds

    def _compile_stage(self, stage: System, train_state: state.TrainState) -> Callable:
        share, side = self.config.batch_size // jax.process_count(), stage.config.data.image_size
        blank = {name: np.zeros((share,), np.int32) for name in ("label", "epoch", "index")}
        blank["image"] = np.zeros((share, side, side, 3), np.uint8)
        return stage.spread.train(stage.train_step, train_state, stage.spread.put_batch(blank))

    def _introduce(self, run_log: log.RunLog, budget: Budget, spent: Spent) -> None:
        config, split = self.config, self.train_split
        parameters = sum(x.size for x in self.system.network.params.values())
        steps = f"{budget.total_steps:,} steps" if budget.total_steps else "as many steps as fit"
        run_log.say(
            f"{config.model.name}: {parameters / 1e6:,.2f} M parameters, {split.num_classes:,} classes,"
            f" {config.precision}, {config.parallel} over {jax.device_count()} x {jax.devices()[0].device_kind}"
        )
        sizes = ", ".join(str(stage.config.data.image_size) for stage in self.stages)
        flops = [budget.meter.flops_per_step, *(flops for _, flops in budget.meter.later)]
        run_log.say(
            f"{split.name} {split.split}: {split.num_examples:,} images at {sizes} px;"
            f" budget {config.budget}: {steps} of {config.batch_size} images,"
            f" {', '.join(f'{each / 1e9:,.1f}' for each in flops)} GFLOP each"
        )
        run_log.say(f"workdir {self.place.path}")
        if self.system.loaded:
            run_log.say(sentence(self.system.loaded))
        if spent.steps:
            run_log.say(f"resumed at step {spent.steps:,}, {100 * budget.progress(spent):.1f} % of the budget spent")

    def _summary(self) -> dict[str, Any]:
        return {
            "system": self.config.model.name,
            "parameters": int(sum(x.size for x in self.system.network.params.values())),
            "multiply_adds": self._multiply_adds(),
        }

    def _multiply_adds(self) -> int:
        """Of one image; from shapes, since an option (ViT's image_size) may be called as an argument of the count."""
        shapes = models.abstract(self.config.model.name, self.system.num_classes, **self.config.model.options)
        return counting.multiply_adds(shapes, self.config.data.image_size)


def sentence(report: pretrained.Report) -> str:
    """What came of loading a file of weights, for a person."""
    return "; ".join([f"weights of {report.path}", *report.notes])

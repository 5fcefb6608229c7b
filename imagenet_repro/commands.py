"""What the commands of `main.py` do: each opens the rooms it needs and connects them."""

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh, PartitionSpec

from imagenet_repro import config as cfg
from imagenet_repro import models, provenance
from imagenet_repro.comparison import curves, table, zoo
from imagenet_repro.data import loader, sources
from imagenet_repro.errors import EXIT_FINISHED, EXIT_STOPPED, UserError
from imagenet_repro.evaluation import evaluate as evaluation
from imagenet_repro.evaluation import predictions
from imagenet_repro.metrics import ErrorRates
from imagenet_repro.models import counting
from imagenet_repro.training import allocator, checkpoint, log, loop, optimizer, parallel, state, step
from imagenet_repro.training.budget import Amount, Budget, Meter, Spent
from imagenet_repro.training.network import Network
from imagenet_repro.workdir import RESULT, Workdir, write_json

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def start_devices() -> None:
    """Joins the other hosts of a run, and turns on the compilation cache.

    Several hosts are joined where the scheduler is one that `jax.distributed` knows (TPU pods, SLURM, Open MPI) and
    says so, or where COORDINATOR_ADDRESS, NUM_PROCESSES and PROCESS_ID are set in the environment.
    """
    allocator.keep_memory()
    environment = os.environ
    if "COORDINATOR_ADDRESS" in environment:
        try:
            number, index = int(environment["NUM_PROCESSES"]), int(environment["PROCESS_ID"])
        except (KeyError, ValueError) as error:
            raise UserError(
                "COORDINATOR_ADDRESS is set; NUM_PROCESSES and PROCESS_ID must be set too, to whole numbers"
            ) from error
        jax.distributed.initialize(environment["COORDINATOR_ADDRESS"], number, index)
    elif int(environment.get("SLURM_NTASKS", "1")) > 1 or "," in environment.get("TPU_WORKER_HOSTNAMES", ""):
        jax.distributed.initialize()
    logging.set_verbosity(logging.ERROR)  # Orbax and tfds warn of what a user can do nothing about
    home = Path(environment.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    jax.config.update("jax_compilation_cache_dir", str(home / "imagenet_repro" / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 2.0)


@dataclasses.dataclass
class System:
    """A network of a configuration and where it runs."""

    config: cfg.Config
    num_classes: int
    network: Network
    spread: parallel.ShardMap
    optimizer: Any

    @classmethod
    def create(cls, config: cfg.Config, num_classes: int) -> "System":
        """Builds the network; nothing is compiled but its initialisation."""
        if config.precision == "float32":
            jax.config.update("jax_default_matmul_precision", "highest")  # no bf16 or TF32 passes behind its back
        spread = parallel.create(config.parallel, deterministic=config.deterministic)
        spread.check_batch_size(config.batch_size, config.accumulate, "batch_size")
        with spread.initial_device():
            model = models.create(
                config.model.name,
                num_classes=num_classes,
                dtype=DTYPES[config.precision],
                seed=config.seed,
                **config.model.options,
            )
        network = Network(model, cross_device_norm=config.cross_device_norm)
        return cls(config, num_classes, network, spread, optimizer.create(config.optimizer, config.clip_norm))

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

    @property
    def train_step(self) -> step.TrainStep:
        """One device's step."""
        return step.TrainStep(self.network, self.config, self.num_classes, self.optimizer)

    def flops_per_step(self, train_state: state.TrainState) -> int:
        """Floating point operations of a step over the whole batch, from its trace on one imagined device."""
        size, side = self.config.batch_size, self.config.data.image_size
        batch = {name: jax.ShapeDtypeStruct((size,), jnp.int32) for name in ("label", "epoch", "index")}
        batch["image"] = jax.ShapeDtypeStruct((size, side, side, 3), jnp.uint8)
        whole = PartitionSpec()
        one_device = jax.shard_map(
            self.train_step,
            mesh=Mesh(np.asarray(jax.local_devices()[:1]), (step.AXIS,)),
            in_specs=(whole, PartitionSpec(step.AXIS), whole),
            out_specs=whole,
            check_vma=False,
        )
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), train_state)
        return counting.flops(one_device, shapes, batch, jax.ShapeDtypeStruct((), jnp.float32))


# --- train -----------------------------------------------------------------------------------------------------


def train(config: cfg.Config, workdir: str) -> int:
    """Trains a configuration in a workdir, or goes on where a run in it stopped; returns the exit code.

    The workdir then holds `config.json`, `checkpoints/`, `metrics.jsonl`, `tensorboard/`, and when the budget is
    spent `result.json`, `predictions/`, `curves.png` and `table.md`.

    Raises:
      UserError: anything that the caller can mend; errors.py has the exit codes.
    """
    place = Workdir(workdir)
    _check_amounts(config)
    start_devices()
    train_split = sources.open_split(config.data, config.data.train_split)
    eval_split = sources.open_split(config.data, config.data.eval_split)
    evaluation.check_labels(eval_split, train_split.num_classes)
    if jax.process_index() == 0:
        place.claim()
        place.settle_config(config, provenance.collect())
    return _Training(config, place, train_split, eval_split).run()


def _check_amounts(config: cfg.Config) -> None:
    for key, text in (
        ("budget", config.budget),
        ("evaluate_every", config.evaluate_every),
        ("checkpoint.every", config.checkpoint.every),
    ):
        Amount.parse(text, key)


class _Training:
    """One call of `train`, from the open data set to the written result."""

    def __init__(self, config: cfg.Config, place: Workdir, train_split: sources.Split, eval_split: sources.Split):
        self.config, self.place = config, place
        self.train_split, self.eval_split = train_split, eval_split
        self.system = System.create(config, train_split.num_classes)
        self.checkpoints = checkpoint.Checkpoints(place.checkpoints, config.checkpoint.keep)

    def run(self) -> int:
        """Trains; the log and the checkpoints are closed whatever happens."""
        try:
            job = self._job()
            try:
                outcome = self._go(job)
            finally:
                job.log.close()
        finally:
            self.checkpoints.close()
        if outcome.stopped_by:
            print(f"stopped by {outcome.stopped_by} at step {outcome.spent.steps:,}, saved; the same command goes on")
            return EXIT_STOPPED
        if jax.process_index() == 0:
            compare([str(self.place.path)], self.place.path)
        return EXIT_FINISHED

    def _go(self, job: loop.Job) -> loop.Outcome:
        outcome = loop.run(job)
        if outcome.stopped_by is None:
            self._finish(outcome)
        return outcome

    def _job(self) -> loop.Job:
        """Restores or starts, compiles, and says what is about to happen."""
        first = self.system.initial_state()
        found = self.checkpoints.restore(first)
        train_state = self.system.spread.put_state(found.state) if found else first
        flops = self.system.flops_per_step(train_state)
        meter = Meter(self.config.batch_size, self.train_split.num_examples, flops)
        budget = Budget(Amount.parse(self.config.budget), meter)
        spent = meter.spent(found.info["steps"], found.info["seconds"]) if found else Spent()
        run_log = log.RunLog(self.place.path, spent.steps)
        self._introduce(run_log, budget, spent)
        self.evaluator = evaluation.Evaluator(
            self.config, self.system.network, self.system.spread, self.eval_split, run_log.say
        )
        bad_records = loader.BadRecords(self.train_split, self.config.data, run_log.say)
        batches = self._batches(spent.steps, budget.total_steps)
        compiled, self.compilation_seconds = self._compile(run_log, train_state)
        return loop.Job(
            config=self.config,
            state=train_state,
            step=compiled,
            batches=batches,
            evaluate=self.evaluator.rates,
            name_images=lambda index: [self.train_split.records[int(i)].id for i in index],
            budget=budget,
            spent=spent,
            checkpoints=self.checkpoints,
            bad_records=bad_records,
            log=run_log,
        )

    def _batches(self, start_step: int, total_steps: int | None) -> Any:
        batches = loader.train_batches(
            self.train_split,
            self.config.data,
            self.config.train_crop,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            start_step=start_step,
            num_steps=None if total_steps is None else max(0, total_steps - start_step),
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        needed = ("image", "label", "epoch", "index")
        return loader.prefetch_to_device(
            batches, lambda batch: self.system.spread.put_batch({name: batch[name] for name in needed})
        )

    def _compile(self, run_log: log.RunLog, train_state: state.TrainState) -> tuple[Callable, float]:
        share = self.config.batch_size // jax.process_count()
        side = self.config.data.image_size
        blank = {name: np.zeros((share,), np.int32) for name in ("label", "epoch", "index")}
        blank["image"] = np.zeros((share, side, side, 3), np.uint8)
        began = time.perf_counter()
        compiled = self.system.spread.train(self.system.train_step, train_state, self.system.spread.put_batch(blank))
        seconds = time.perf_counter() - began
        run_log.say(f"compiled the step in {log.duration(seconds)}")
        return compiled, seconds

    def _introduce(self, run_log: log.RunLog, budget: Budget, spent: Spent) -> None:
        config, split = self.config, self.train_split
        parameters = sum(x.size for x in self.system.network.params.values())
        steps = f"{budget.total_steps:,} steps" if budget.total_steps else "as many steps as fit"
        run_log.say(
            f"{config.model.name}: {parameters / 1e6:,.2f} M parameters, {split.num_classes:,} classes,"
            f" {config.precision}, {config.parallel} over {jax.device_count()} x {jax.devices()[0].device_kind}"
        )
        run_log.say(
            f"{split.name} {split.split}: {split.num_examples:,} images at {config.data.image_size} px;"
            f" budget {config.budget}: {steps} of {config.batch_size} images,"
            f" {budget.meter.flops_per_step / 1e9:,.1f} GFLOP each"
        )
        run_log.say(f"workdir {self.place.path}")
        if spent.steps:
            run_log.say(f"resumed at step {spent.steps:,}, {100 * budget.progress(spent):.1f} % of the budget spent")

    def _finish(self, outcome: loop.Outcome) -> None:
        """Scores the end of the run once more with predictions kept, and writes what the run came to."""
        if (self.place.path / RESULT).exists():
            return
        source = provenance.collect() | {"config": cfg.to_dict(self.config), "step": outcome.spent.steps}
        rates, kept = self.evaluator.predict(outcome.state, source)
        if jax.process_index() != 0:
            return
        path = self.place.predictions(self.config.data)
        predictions.save(path, kept)
        write_json(
            self.place.path / RESULT,
            {
                "system": self.config.model.name,
                "parameters": int(sum(x.size for x in self.system.network.params.values())),
                "multiply_adds": counting.multiply_adds(
                    self.config.model.name, self.config.data.image_size, **self._model_arguments()
                ),
                "budget": self.config.budget,
                "spent": dataclasses.asdict(outcome.spent),
                "compilation_seconds": self.compilation_seconds,
                "rates": dataclasses.asdict(rates) | {"top1_error": rates.top1_error, "top5_error": rates.top5_error},
                "predictions": str(path.relative_to(self.place.path)),
                "provenance": source,
            },
        )

    def _model_arguments(self) -> dict[str, Any]:
        return {"num_classes": self.system.num_classes, **self.config.model.options}


# --- compare ----------------------------------------------------------------------------------------------------


def compare(workdirs: list[str], out: Path) -> int:
    """Prints the table of finished runs, and writes it and their learning curves to `out`.

    Args:
      workdirs: of runs whose budget is spent.
      out: a directory; gets `table.md`, `curves.png` and `curves.svg`.

    Raises:
      UserError: a run has no result yet, or they differ in budget, data set or split.
    """
    places = [Workdir(workdir) for workdir in workdirs]
    results = [place.result() for place in places]
    _check_comparable(places, results)
    rows = [_row(result) for result in results]
    table.show(rows)
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(table.markdown(rows))
    names = _distinct([row.system for row in rows])
    curves.plot_curves(
        {name: log.read_rows(place.metrics) for name, place in zip(names, places, strict=True)}, out / "curves.png"
    )
    print(f"table: {out / 'table.md'}\nlearning curves: {out / 'curves.png'}")
    return EXIT_FINISHED


def _check_comparable(places: list[Workdir], results: list[dict[str, Any]]) -> None:
    """Numbers stand in one table only where they mean the same."""
    settings = [cfg.flatten(result["provenance"]["config"]) for result in results]
    for key in ("budget", "data.name", "data.train_split", "data.eval_split"):
        if len({one[key] for one in settings}) > 1:
            each = "\n".join(f"  {place.path}: {one[key]}" for place, one in zip(places, settings, strict=True))
            raise UserError(f"these runs cannot be compared, they differ in {key}:\n{each}")


def _row(result: dict[str, Any]) -> table.Row:
    rates = result["rates"]
    counted = {field.name: rates[field.name] for field in dataclasses.fields(ErrorRates)}
    return table.Row(
        system=result["system"],
        parameters=result["parameters"],
        multiply_adds=result["multiply_adds"],
        images_seen=result["spent"]["images"],
        training_seconds=result["spent"]["seconds"],
        rates=ErrorRates(**counted),
    )


def _distinct(names: list[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name} ({i + 1})" for i, name in enumerate(names)]


# --- evaluate --------------------------------------------------------------------------------------------------


def evaluate(workdir: str, *, which: str, data: dict[str, str], out: str | None) -> int:
    """Scores a checkpoint of a run on a split, prints both error rates and keeps the predictions.

    Args:
      workdir: of a run, finished or not.
      which: "best", "last" or a step.
      data: keys of the section `data` to replace, as texts, such as `{"name": "imagenet_v2", "eval_split": "test"}`.
      out: a file for the predictions; None: below the workdir, named after data set and split.
    """
    place = Workdir(workdir)
    config = cfg.replace(place.config(), {f"data.{key}": value for key, value in data.items()})
    start_devices()
    split = sources.open_split(config.data, config.data.eval_split)
    trained = sources.open_split(place.config().data, place.config().data.train_split)
    evaluation.check_labels(split, trained.num_classes)
    system = System.create(config, trained.num_classes)
    first = system.initial_state()
    found = _restore(place, system, first, which)
    evaluator = evaluation.Evaluator(config, system.network, system.spread, split)
    source = provenance.collect() | {"config": cfg.to_dict(config), "step": found.step}
    began = time.perf_counter()
    rates, kept = evaluator.predict(system.spread.put_state(found.state), source)
    if jax.process_index() == 0:
        path = Path(out) if out else place.predictions(config.data)
        predictions.save(path, kept)
        print(f"step {found.step:,}, {split.name} {split.split}: {rates}")
        print(f"{rates.images / (time.perf_counter() - began):,.0f} images/s with compilation; predictions: {path}")
    return EXIT_FINISHED


def _restore(place: Workdir, system: System, first: state.TrainState, which: str) -> checkpoint.Restored:
    if not place.checkpoints.is_dir():
        raise UserError(f"{place.checkpoints}: there are no checkpoints; train first")
    kept = checkpoint.Checkpoints(place.checkpoints, system.config.checkpoint.keep)
    try:
        found = kept.restore(first, which)
    finally:
        kept.close()
    if found is None:
        raise UserError(f"{place.checkpoints}: there is no checkpoint yet; train first")
    return found


# --- prepare ---------------------------------------------------------------------------------------------------


def prepare(name: str, *, fractal: dict[str, str], **options: Any) -> int:
    """Prepares a data set and says what is there now.

    Args:
      name: `fractal`, `folder:PATH` or a tfds data set.
      fractal: fields of `FractalConfig` as texts.
      options: of data/prepare.py.
    """
    from imagenet_repro.data import prepare as preparing

    numbers = {key: cfg.literal(value) for key, value in fractal.items()}
    prepared = preparing.prepare(name, **options, **numbers)
    for one in (prepared, prepared.smaller):
        if one is None:
            continue
        splits = ", ".join(f"{split} {count:,}" for split, count in one.splits.items())
        print(f"{one.name}: {one.how}; {splits} images, {one.bytes / 1e6:,.1f} MB, in {one.path}")
        for note in one.notes:
            print(f"  {note}")
    return EXIT_FINISHED


# --- models ----------------------------------------------------------------------------------------------------


def show_models(pattern: str) -> int:
    """Prints every network whose name contains `pattern`: parameters, multiply-adds and size."""
    rows = [name for name in models.names() if pattern in name]
    if not rows:
        raise UserError(f"no network's name contains '{pattern}'; there are: {', '.join(models.names())}")
    zoo.show(rows)
    return EXIT_FINISHED

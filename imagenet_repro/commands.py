"""What the commands of `main.py` do: each opens the rooms it needs and connects them."""

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh, PartitionSpec

from imagenet_repro import config as cfg
from imagenet_repro import models, pretrained, provenance
from imagenet_repro.comparison import curves, table, zoo
from imagenet_repro.comparison.story import ENTRIES
from imagenet_repro.data import loader, sources
from imagenet_repro.errors import EXIT_FINISHED, EXIT_STOPPED, SaveError, UserError, nearest
from imagenet_repro.evaluation import evaluate as evaluation
from imagenet_repro.evaluation import predictions
from imagenet_repro.metrics import ErrorRates
from imagenet_repro.models import counting
from imagenet_repro.models.spec import Preprocessing
from imagenet_repro.training import allocator, checkpoint, log, loop, optimizer, parallel, progressive, state, step
from imagenet_repro.training.budget import Amount, Budget, Meter, Spent
from imagenet_repro.training.network import Network
from imagenet_repro.training.schedule import Moment
from imagenet_repro.workdir import RESULT, Workdir, write_json

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
RESERVED_OPTIONS = {  # what the run itself hands to a network, and where it comes from
    "name": "config.model.name",
    "num_classes": "the data set",
    "dtype": "config.precision",
    "seed": "config.seed",
    "rngs": "config.seed",
}


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
    loaded: pretrained.Report | None = None  # of the weights that it starts from

    @classmethod
    def create(
        cls,
        config: cfg.Config,
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
        network = Network(model, cross_device_norm=config.cross_device_norm)
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
            network = Network(model, cross_device_norm=config.cross_device_norm)
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
        number = jax.ShapeDtypeStruct((), jnp.float32)
        return counting.flops(one_device, shapes, batch, Moment(number, number))


def _check_options(model: cfg.Model) -> None:
    """Refuses the options that `System.create` sets, which the network's own check never sees."""
    for option in model.options:
        if option in RESERVED_OPTIONS:
            raise UserError(f"config.model.options: '{option}' follows from {RESERVED_OPTIONS[option]}; leave it out")
        if not isinstance(option, str):
            raise UserError(f"config.model.options: {option!r} is not the name of an option; texts are needed")


# --- train -----------------------------------------------------------------------------------------------------


def train(config: cfg.Config, workdir: str) -> int:
    """Trains a configuration in a workdir, or goes on where a run in it stopped; returns the exit code.

    A run whose budget is spent is shown again, and nothing is built or compiled.

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
        begins = config.model.weights and not place.started  # on resuming, the file may be gone
        weights = {"weights": provenance.of_file(config.model.weights)} if begins else {}
        place.settle_config(config, provenance.collect() | weights)
    if place.finished:
        print(f"{place.path}: the budget of this run, {config.budget}, is spent")
        return _show(place)
    return _Training(config, place, train_split, eval_split).run()


def _show(place: Workdir) -> int:
    """Table and curves of a finished run, from one process."""
    return compare([str(place.path)], place.path) if jax.process_index() == 0 else EXIT_FINISHED


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
        spread = parallel.create(config.parallel, deterministic=config.deterministic)
        spread.check_batch_size(config.batch_size, config.accumulate, "batch_size")  # before anything large is built
        weights = "" if place.started else config.model.weights
        self.system = System.create(config, train_split.num_classes, weights)
        self.stages = [self.system.at_stage(stage) for stage in range(config.progressive.stages)]
        self.predicted: tuple[ErrorRates, predictions.Predictions] | None = None  # at the end of the run
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
        return _show(self.place)

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
        budget = self._budget(train_state)
        spent = budget.meter.spent(found.info["steps"], found.info["seconds"]) if found else Spent()
        run_log = log.RunLog(self.place.path, spent.steps)
        self._introduce(run_log, budget, spent)
        self.evaluator = evaluation.Evaluator(
            self.config, self.system.network, self.system.spread, self.eval_split, run_log.say
        )
        bad_records = loader.BadRecords(self.train_split, self.config.data, run_log.say)
        batches = self._batches(spent.steps, budget)
        compiled, self.compilation_seconds = self._compile(run_log, train_state)
        return loop.Job(
            config=self.config,
            state=train_state,
            steps=compiled,
            batches=batches,
            evaluate=self._evaluate,
            name_images=lambda index: [self.train_split.records[int(i)].id for i in index],
            budget=budget,
            spent=spent,
            checkpoints=self.checkpoints,
            bad_records=bad_records,
            log=run_log,
            known=found.info if found else {},
        )

    def _budget(self, train_state: state.TrainState) -> Budget:
        first, *later = (stage.flops_per_step(train_state) for stage in self.stages)
        amount = Amount.parse(self.config.budget)
        meter = Meter(self.config.batch_size, self.train_split.num_examples, first)
        return Budget(amount, progressive.staged(meter, amount, later))

    def _evaluate(self, train_state: state.TrainState, last: bool) -> dict[str, Any]:
        """A row of the log; the last evaluation of a run keeps its predictions."""
        if not last:
            return self.evaluator.rates(train_state)
        began = time.perf_counter()
        self.predicted = self.evaluator.predict(train_state, {})
        return evaluation.as_row(self.predicted[0], time.perf_counter() - began)

    def _batches(self, start_step: int, budget: Budget) -> Any:
        starts = [0, *(first for first, _ in budget.meter.later)]
        ends = [*starts[1:], budget.total_steps]
        batches = loader.in_turn(
            [
                self._stage_batches(stage.config, max(start, start_step), end)
                for stage, start, end in zip(self.stages, starts, ends, strict=True)
                if end is None or start_step < end
            ]
        )
        needed = ("image", "label", "epoch", "index")
        return loader.prefetch_to_device(
            batches, lambda batch: self.system.spread.put_batch({name: batch[name] for name in needed})
        )

    def _stage_batches(self, config: cfg.Config, start_step: int, end: int | None) -> Iterator[loader.Batch]:
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
            run_log.say(_sentence(self.system.loaded))
        if spent.steps:
            run_log.say(f"resumed at step {spent.steps:,}, {100 * budget.progress(spent):.1f} % of the budget spent")

    def _finish(self, outcome: loop.Outcome) -> None:
        """Writes what the run came to; scores its end where an earlier process was ended before it could write."""
        source = provenance.collect() | {"config": cfg.to_dict(self.config), "step": outcome.spent.steps}
        source |= self.place.weights()
        rates, kept = self.predicted or self.evaluator.predict(outcome.state, {})
        if jax.process_index() != 0:
            return
        path = self.place.predictions(self.config.data)
        predictions.save(path, dataclasses.replace(kept, provenance=source))
        write_json(
            self.place.path / RESULT,
            {
                "system": self.config.model.name,
                "parameters": int(sum(x.size for x in self.system.network.params.values())),
                "multiply_adds": self._multiply_adds(),
                "budget": self.config.budget,
                "spent": dataclasses.asdict(outcome.spent),
                "compilation_seconds": self.compilation_seconds,
                "rates": dataclasses.asdict(rates) | {"top1_error": rates.top1_error, "top5_error": rates.top5_error},
                "predictions": str(path.relative_to(self.place.path)),
                "provenance": source,
            },
        )

    def _multiply_adds(self) -> int:
        """Of one image; from shapes, since an option (ViT's image_size) may be called as an argument of the count."""
        shapes = models.abstract(self.config.model.name, self.system.num_classes, **self.config.model.options)
        return counting.multiply_adds(shapes, self.config.data.image_size)


# --- compare ----------------------------------------------------------------------------------------------------


def compare(workdirs: list[str], out: Path) -> int:
    """Prints the table of finished runs, and writes it and their learning curves to `out`.

    Args:
      workdirs: of runs whose budget is spent.
      out: a directory; gets `table.md`, `curves.png` and `curves.svg`.

    Raises:
      UserError: a run has no result yet, or they differ in budget, data set or split.
      SaveError: `out` is no directory, or cannot be written.
    """
    places = [Workdir(workdir) for workdir in workdirs]
    results = [place.result() for place in places]
    _check_comparable(places, results)
    rows = [_row(result) for result in results]
    table.show(rows)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "table.md").write_text(table.markdown(rows))
    except OSError as error:
        why = f"{error.strerror}; a directory that can be written is needed"
        raise SaveError(f"the table and the curves could not be written to {out}: {why}") from error
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
    config = _divided(config)
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


def _divided(config: cfg.Config) -> cfg.Config:
    """With a batch of evaluation that these devices can share, which need not be those that the run trained on."""
    surplus = config.batch_size % jax.device_count()
    if config.data.eval_batch_size or not surplus:
        return config
    return cfg.replace(config, {"data.eval_batch_size": str(config.batch_size - surplus + jax.device_count())})


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


def evaluate_weights(
    path: str,
    *,
    name: str = "",
    options: dict[str, Any] | None = None,
    drop_background: bool = False,
    data: dict[str, str],
    out: str | None,
) -> int:
    """Scores published weights on a split, without a run: prints both error rates, keeps the predictions in `out`.

    Images are prepared as the file says, else in the way published for the network; the computation is in float32.

    Args:
      path: a file of weights.
      name: the network; empty: as the file says, and with the options that it says.
      options: of the network.
      drop_background: of `pretrained.load`.
      data: keys of the section `data` as texts, `name` among them.
      out: a file for the predictions; None: they are not kept.

    Raises:
      UserError: as `pretrained.load`, or the file has another number of classes than the data set.
    """
    if "name" not in data:
        raise UserError("which data set? --data.name=NAME, such as --data.name=imagenet2012")
    weights = pretrained.read(path)
    name, options = _network_of(weights, name, options)
    preprocessing = weights.preprocessing or models.spec(name).preprocessing
    config = cfg.replace(_evaluation_config(name, options, preprocessing), {f"data.{k}": v for k, v in data.items()})
    config = _at_its_size(config)
    start_devices()
    split = sources.open_split(config.data, config.data.eval_split)
    system = System.create(config, split.num_classes, weights, drop_background=drop_background)
    print(_sentence(system.loaded))
    if system.loaded.replaced:
        why = f"{split.name} has {split.num_classes:,} classes and {system.loaded.notes[-1]}"
        raise UserError(f"{path} cannot be scored: {why}")
    source = provenance.collect() | {"config": cfg.to_dict(config), "weights": provenance.of_file(path)}
    evaluator = evaluation.Evaluator(config, system.network, system.spread, split)
    rates, kept = evaluator.predict(system.initial_state(), source)
    if jax.process_index() == 0:
        colours = f"mean {config.augment.mean}, std {config.augment.std}"
        images = f"{config.data.eval_image_size or config.data.image_size} px, {config.eval_crop}, {colours}"
        print(f"{name}, {split.name} {split.split}, {images}: {rates}")
        if out:
            predictions.save(Path(out), kept)
    return EXIT_FINISHED


def _at_its_size(config: cfg.Config) -> cfg.Config:
    """Positions are learned for the size that is evaluated, where nobody says another: they are resized only once."""
    model = config.model
    if "image_size" in model.options or "image_size" not in models.spec(model.name).options:
        return config
    size = config.data.eval_image_size or config.data.image_size
    return dataclasses.replace(config, model=dataclasses.replace(model, options=model.options | {"image_size": size}))


def _network_of(weights: pretrained.Weights, name: str, options: dict[str, Any] | None) -> tuple[str, dict[str, Any]]:
    """The network that was asked for, else the one that the file says, with its options but for those asked for."""
    if not name and weights.origin is None:
        raise UserError(
            f"{weights.path} does not say of which network it is: --model=NAME (`main.py models` lists all)"
        )
    stated = weights.origin
    if stated is None or (name and stated.name not in (*models.names(), *models.aliases())):
        return name, options or {}
    if name and models.spec(name) is not models.spec(stated.name):
        return name, options or {}  # `pretrained.load` refuses it
    return stated.name, stated.options | (options or {})


def _evaluation_config(name: str, options: dict[str, Any], preprocessing: Preprocessing) -> cfg.Config:
    squash = preprocessing.crop == "squash"
    crop = {"name": "squash"} if squash else {"name": "center", "ratio": preprocessing.crop_ratio}
    return cfg.resolve(
        {
            "precision": "float32",
            "model": {"name": name, "options": options},
            "data": {"image_size": preprocessing.image_size},
            "eval_crop": crop | {"kernel": preprocessing.kernel, "antialias": preprocessing.antialias},
            "augment": {"mean": preprocessing.mean, "std": preprocessing.std},
        }
    )


def _sentence(report: pretrained.Report) -> str:
    return "; ".join([f"weights of {report.path}", *report.notes])


# --- export ----------------------------------------------------------------------------------------------------


def export(workdir: str, *, which: str, out: str) -> int:
    """Writes the evaluated weights of a run (the averages where it keeps them) under the reference's names.

    Args:
      workdir: of a run, finished or not; its data set must be there, which says how many classes there are.
      which: "best", "last" or a step.
      out: a `.safetensors`; replaced where it exists.
    """
    place = Workdir(workdir)
    config = place.config()
    start_devices()
    trained = sources.open_split(config.data, config.data.train_split)
    system = System.create(config, trained.num_classes)
    found = _restore(place, system, system.initial_state(), which)
    preprocessing = _preprocessing_of(config)
    pretrained.write(system.network.model(*found.state.evaluated), out, preprocessing=preprocessing)
    kind = "averaged weights" if config.ema_decay else "weights"
    print(f"{out}: {kind} of {config.model.name} at step {found.step:,}, {trained.num_classes:,} classes")
    if preprocessing is None:
        crop = config.eval_crop
        print(f"  without preprocessing: the run evaluates with {crop}, and a file can only say 'center' or 'squash'")
    return EXIT_FINISHED


def _preprocessing_of(config: cfg.Config) -> Preprocessing | None:
    """How a run prepares the images that it is evaluated on; None where a file cannot say it."""
    crop = config.eval_crop
    if not isinstance(crop, cfg.CenterCrop | cfg.SquashCrop) or crop.kernel == "area":
        return None
    size = config.data.eval_image_size or config.data.image_size
    colour = config.augment
    ratio = crop.ratio if isinstance(crop, cfg.CenterCrop) else 1.0
    return Preprocessing(size, ratio, crop.kernel, colour.mean, colour.std, crop.antialias, crop.name)


# --- prepare ---------------------------------------------------------------------------------------------------


def prepare(name: str, *, fractal: dict[str, str], **options: Any) -> int:
    """Prepares a data set and says what is there now.

    Args:
      name: `fractal`, `folder:PATH` or a tfds data set.
      fractal: fields of `FractalConfig` as texts.
      options: of data/prepare.py.

    Raises:
      UserError: as data/prepare.py, or a key that `FractalConfig` does not have.
    """
    from imagenet_repro.data import prepare as preparing
    from imagenet_repro.data.fractal import FractalConfig

    valid = FractalConfig.parameters()
    for key in fractal:
        if key not in valid:  # some of these would be options of the call below
            raise UserError(f"--fractal.{key}: no such key; {nearest(key, valid)}")
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


def show_models(pattern: str, runs: list[str]) -> int:
    """Prints the story: entries, and every network whose name contains `pattern`; one network's name prints all of it.

    Args:
      pattern: part of a name; empty: everything.
      runs: workdirs of finished runs, whose errors on ImageNet stand beside the published ones; a pattern of the
        shell, such as `runs/*`, names other files too: what is no finished run is left out and said on stderr.

    Raises:
      UserError: no network is called so, or a run's result is damaged.
    """
    one = models.canonical(pattern)
    names = [name for name in models.names() if pattern in name]
    if one not in models.names() and not names:
        raise UserError(f"no network's name contains '{pattern}': {nearest(pattern, models.names())}")
    measured = zoo.measured_in(place.result() for place in _finished(runs))
    if one in models.names():
        zoo.describe(one, measured.get(one))
    else:
        zoo.show(names, measured, () if pattern else ENTRIES)
    return EXIT_FINISHED


def _finished(runs: list[str]) -> list[Workdir]:
    places = [Workdir(run) for run in runs]
    others = [run for run, place in zip(runs, places, strict=True) if not place.finished]
    if others:
        print(f"left out, since there is no finished run: {', '.join(others)}", file=sys.stderr)
    return [place for place in places if place.finished]

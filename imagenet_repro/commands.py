"""What the commands of `main.py` do: each opens the rooms it needs and connects them."""

import dataclasses
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
from absl import logging

from imagenet_repro import config as cfg
from imagenet_repro import files, models, pretrained, provenance
from imagenet_repro.comparison import curves, dumbbell, gains, table, zoo
from imagenet_repro.comparison.story import ENTRIES
from imagenet_repro.data import sources
from imagenet_repro.errors import EXIT_FINISHED, SaveError, UserError, nearest
from imagenet_repro.evaluation import evaluate as evaluation
from imagenet_repro.evaluation import predictions
from imagenet_repro.metrics import ErrorRates
from imagenet_repro.models.spec import Preprocessing
from imagenet_repro.runs import network
from imagenet_repro.runs.features import FeatureRun, FeatureSystem
from imagenet_repro.training import allocator, checkpoint, log, state
from imagenet_repro.training.budget import Amount
from imagenet_repro.workdir import Workdir


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


# --- train -----------------------------------------------------------------------------------------------------


def train(config: cfg.AnyConfig, workdir: str) -> int:
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
        place.settle_config(config, provenance.collect() | _weights(config, place))
    if place.finished:
        print(f"{place.path}: the budget of this run, {config.budget}, is spent")
        return _show(place)
    run = FeatureRun if isinstance(config, cfg.FeatureConfig) else network.NetworkRun
    code = run(config, place, train_split, eval_split).go()
    return code or _show(place)


def _weights(config: cfg.AnyConfig, place: Workdir) -> dict[str, Any]:
    """The file that a new run starts from, under the key `weights`; on resuming, it may be gone."""
    if isinstance(config, cfg.FeatureConfig) or not config.model.weights or place.started:
        return {}
    return {"weights": provenance.of_file(config.model.weights)}


def _show(place: Workdir) -> int:
    """Table and curves of a finished run, from one process."""
    return compare([str(place.path)], place.path) if jax.process_index() == 0 else EXIT_FINISHED


def _check_amounts(config: cfg.AnyConfig) -> None:
    for key, text in (
        ("budget", config.budget),
        ("evaluate_every", config.evaluate_every),
        ("checkpoint.every", config.checkpoint.every),
    ):
        Amount.parse(text, key)


# --- compare ----------------------------------------------------------------------------------------------------


def compare(workdirs: list[str], out: Path) -> int:
    """Prints the table of finished runs, and writes it and their learning curves to `out`.

    Where there are several, also which classes gained most from the first to the last of them.

    Args:
      workdirs: of runs whose budget is spent.
      out: a directory; gets `table.md`, `curves.png` and `curves.svg`; of several runs `gains.md`, `.png` and `.svg`.

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
    if len(places) > 1:
        _compare_classes(places, results, (names[0], names[-1]), out)
    return EXIT_FINISHED


def _compare_classes(places: list[Workdir], results: list[dict[str, Any]], names: tuple[str, str], out: Path) -> None:
    """What the classes gained from the first run to the last; a line where the stored predictions do not say it."""
    try:
        before, after = (
            predictions.load(places[i].path / str(results[i].get("predictions", "predictions"))) for i in (0, -1)
        )
        classes = results[-1].get("classes") or [str(number) for number in range(after.logits.shape[1])]
        found = gains.gains(before, after, classes)
    except UserError as error:
        print(f"no table of what each class gained: {error}")
        return
    with files.whole(out / "gains.md", "the gains of each class") as file:
        file.write(gains.markdown(found, systems=names).encode())
    dumbbell.plot_gains(found, out / "gains.png", systems=names)
    print(f"what each class gained from {names[0]} to {names[1]}: {out / 'gains.png'}")


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
    kind = FeatureSystem if isinstance(config, cfg.FeatureConfig) else network.System
    system = kind.create(config, trained.num_classes)
    first = system.initial_state()
    found = _restore(place, system, first, which)
    evaluator = evaluation.Evaluator(config, system.score, system.spread, split)
    source = provenance.collect() | {"config": cfg.to_dict(config), "step": found.step}
    began = time.perf_counter()
    rates, kept = evaluator.predict(system.spread.put_state(found.state), source)
    if jax.process_index() == 0:
        path = Path(out) if out else place.predictions(config.data)
        predictions.save(path, kept)
        print(f"step {found.step:,}, {split.name} {split.split}: {rates}")
        print(f"{rates.images / (time.perf_counter() - began):,.0f} images/s with compilation; predictions: {path}")
    return EXIT_FINISHED


def _divided(config: cfg.AnyConfig) -> cfg.AnyConfig:
    """With a batch of evaluation that these devices can share, which need not be those that the run trained on."""
    surplus = config.batch_size % jax.device_count()
    if config.data.eval_batch_size or not surplus:
        return config
    return cfg.replace(config, {"data.eval_batch_size": str(config.batch_size - surplus + jax.device_count())})


def _restore(
    place: Workdir, system: network.System | FeatureSystem, first: state.TrainState, which: str
) -> checkpoint.Restored:
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
    system = network.System.create(config, split.num_classes, weights, drop_background=drop_background)
    print(network.sentence(system.loaded))
    if system.loaded.replaced:
        why = f"{split.name} has {split.num_classes:,} classes and {system.loaded.notes[-1]}"
        raise UserError(f"{path} cannot be scored: {why}")
    source = provenance.collect() | {"config": cfg.to_dict(config), "weights": provenance.of_file(path)}
    evaluator = evaluation.Evaluator(config, system.score, system.spread, split)
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
    if isinstance(config, cfg.FeatureConfig):
        raise UserError(f"{place.path} holds a run of {config.system}, and only networks' weights can be exported")
    start_devices()
    trained = sources.open_split(config.data, config.data.train_split)
    system = network.System.create(config, trained.num_classes)
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

"""What the commands of `main.py` do: each opens the rooms it needs and connects them."""

import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from imagenet_repro import models, pretrained
from imagenet_repro.cli.compare import compare
from imagenet_repro.config import (
    AnyConfig,
    CenterCrop,
    Config,
    Data,
    FeatureConfig,
    SquashCrop,
    config_to_dict,
    parse_literal,
    replace_keys,
    resolve_config,
)
from imagenet_repro.config.sweep import load_sweep
from imagenet_repro.data import sources
from imagenet_repro.errors import EXIT_FINISHED, UserError, nearest
from imagenet_repro.inference import evaluation_sets, protocols
from imagenet_repro.inference import evaluator as evaluation
from imagenet_repro.inference.protocol_evaluator import Judge, added
from imagenet_repro.models.spec import Preprocessing
from imagenet_repro.runs import network_run
from imagenet_repro.runs.feature_run import FeatureSystem
from imagenet_repro.scoring import corruptions, predictions, sets
from imagenet_repro.storage import provenance
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.sweeps import controller
from imagenet_repro.training import checkpoint, devices, state
from imagenet_repro.zoo import listing
from imagenet_repro.zoo.entries import ENTRIES

# --- sweep -----------------------------------------------------------------------------------------------------


def sweep(
    spec: str,
    workdir: str,
    *,
    overrides: dict[str, str],
    dry_run: bool = False,
    launcher: str = "local",
    workers: int = 0,
    storage: str = "",
    slurm: dict[str, str] | None = None,
) -> int:
    """Runs a sweep to its end, or goes on with it, and compares its runs; returns the exit code.

    Args:
      spec: a sweep's file, with its argument after a colon.
      workdir: of the sweep.
      overrides: of its keys, as texts.
      dry_run: only say what would run, where, and what it would cost.
      launcher: "local" or "slurm".
      workers: how many; 0: one for each accelerator.
      storage: the URL of the trials; empty: SQLite in the workdir.
      slurm: options of its jobs, as texts.

    Raises:
      UserError: as sweeps/sweep.py.
    """
    config = load_sweep(spec, overrides)
    options = controller.SweepOptions(
        launcher, workers, storage, {k: parse_literal(v) for k, v in (slurm or {}).items()}
    )
    if dry_run:
        return controller.dry_run(config, workdir, options)
    code = controller.run_sweep(config, workdir, options)
    return code or compare([workdir], storage=storage)


def sweep_status(workdir: str, storage: str) -> int:
    """Prints how far a sweep is, whoever runs it."""
    return controller.show_status(workdir, storage)


# --- evaluate --------------------------------------------------------------------------------------------------


def evaluate(
    workdir: str,
    *,
    which: str,
    data: dict[str, str],
    out: str | None,
    set_name: str = "",
    mappings: str = "",
    protocol: str = protocols.OWN,
    settings: dict[str, str] | None = None,
) -> int:
    """Scores a checkpoint of a run on a split or a set, prints its error rates and keeps the predictions.

    Args:
      workdir: of a run, finished or not.
      which: "best", "last" or a step.
      data: keys of the section `data` to replace, as texts, such as `{"name": "imagenet_v2", "eval_split": "test"}`.
      out: a file for the predictions, of ImageNet-C a directory; None: below the workdir, named after data set, split,
        protocol and step.
      set_name: of `evaluation.sets.SETS`; empty: a split that `data` names.
      mappings: the directory that ObjectNet has beside its images.
      protocol: names of evaluation/protocols.py, several with commas between.
      settings: keys of the protocol to replace, as texts.
    """
    evaluation_sets.check_options(set_name, data, mappings)
    asked = _asked(protocol, settings, out)
    place = Workdir(workdir)
    config = replace_keys(place.config(), {f"data.{key}": value for key, value in data.items()})
    devices.start()
    config = _divided(evaluation_sets.configured(config, set_name, data) if set_name else config)
    trained = sources.open_split(place.config().data, place.config().data.train_split)
    if set_name:
        sets.check_classes(trained.class_names, f"the run in {place.path}")
    opened = evaluation_sets.opened(config, set_name, mappings)
    evaluation.check_labels(opened.parts[0].split, trained.num_classes)
    kind = FeatureSystem if isinstance(config, FeatureConfig) else network_run.System
    system = kind.create(config, trained.num_classes)
    first = system.initial_state()
    found = _restore(place, system, first, which)

    def path(data: Data, name: str) -> Path:
        return place.predictions(data, data.eval_split, found.step, "" if name == protocols.OWN else name)

    return _judge(
        _judges(asked, system, opened),
        opened,
        system.spread.put_state(found.state),
        source={"step": found.step},
        path_of=_paths(opened, out) or path,
        title=f"step {found.step:,}",
    )


def _asked(protocol: str, settings: dict[str, str] | None, out: str | None) -> dict[str, tuple[protocols.Part, ...]]:
    """Protocols by name, in the order asked for."""
    names = protocol.split(",")
    if len(names) > 1 and out:
        raise UserError(f"--out={out} is one file, and --protocol={protocol} are {len(names)}: leave --out out")
    if len(names) > 1 and settings:
        raise UserError(f"--protocol.{next(iter(settings))} belongs to one protocol, and {protocol} are {len(names)}")
    changed = "_".join(f"{key}_{value}" for key, value in (settings or {}).items())
    return {f"{name}_{changed}" if changed else name: protocols.parse(name, settings) for name in names}


def _judges(
    asked: dict[str, tuple[protocols.Part, ...]],
    system: network_run.System | FeatureSystem,
    opened: evaluation_sets.Opened,
) -> dict[str, Judge]:
    """What scores by each protocol; what a system cannot do is said before any is scored."""
    if isinstance(system, FeatureSystem):
        asked = {name: protocols.for_scores(parts) for name, parts in asked.items()}
    return {name: Judge(parts, system, system.spread, opened.score) for name, parts in asked.items()}


def _judge(
    judges: dict[str, Judge],
    opened: evaluation_sets.Opened,
    train_state: state.TrainState,
    *,
    source: dict[str, Any],
    path_of: Callable[[Data, str], Path] | None,
    title: str,
) -> int:
    """Scores every part of what was opened by every protocol, keeps the predictions, and prints what comes of them."""
    collected = provenance.collect() | source
    rows = [
        _judge_by(name, judge, opened, train_state, collected=collected, path_of=path_of, title=title)
        for name, judge in judges.items()
    ]
    if jax.process_index() != 0:
        return EXIT_FINISHED
    if len(rows) > 1:
        protocols.show(rows)
    evaluation_sets.say(sets.people_beside(opened.parts[0].config.data.name))
    return EXIT_FINISHED


def _judge_by(
    name: str,
    judge: Judge,
    opened: evaluation_sets.Opened,
    train_state: state.TrainState,
    *,
    collected: dict[str, Any],
    path_of: Callable[[Data, str], Path] | None,
    title: str,
) -> protocols.Row:
    """By one protocol; its error rates are those of all parts together."""
    wrong: dict[str, corruptions.Wrong] = {}
    found, total = [], 0.0
    by = judge.name_after(name)
    for part in opened.parts:
        stated = collected | {"config": config_to_dict(part.config), "protocol": {"name": name} | judge.description}
        with protocols.show_progress(f"{part.split.name} {name}", part.split.num_examples) as judge.show:
            began, compiled = time.perf_counter(), judge.compilation_seconds
            rates, kept = judge.predict(part.split, train_state, stated)
            seconds = time.perf_counter() - began - (judge.compilation_seconds - compiled)
        found.append(rates)
        total += seconds
        if jax.process_index() != 0:
            continue
        path = path_of and path_of(part.config.data, name)
        if path is not None:
            predictions.save(path, kept)
        print(f"{title}, {part.split.name} {part.split.split}{by}: {opened.headline(rates)}")
        speed = f"{rates.images / seconds:,.1f} images/s without compilation"
        print(speed + (f"; predictions: {path}" if path else ""), flush=True)
        if len(opened.parts) == 1:
            evaluation_sets.say(evaluation_sets.report(opened, kept))
        else:
            wrong[corruptions.config_of(part.split.name)] = corruptions.wrong(kept)
    if wrong:
        evaluation_sets.show_corrupted(wrong, opened.parts[0].config)
    return protocols.Row(name, judge.views, added(found), total)


def _paths(opened: evaluation_sets.Opened, out: str | None) -> Callable[[Data, str], Path] | None:
    """Where predictions go that a person wants in `out`: that file, or a file of that directory for each part."""
    if not out:
        return None
    if len(opened.parts) == 1:
        return lambda data, name: Path(out)
    return lambda data, name: Path(out) / f"{data.name.replace('/', '_')}.npz"


def _divided(config: AnyConfig) -> AnyConfig:
    """With a batch of evaluation that these devices can share, which need not be those that the run trained on."""
    surplus = config.batch_size % jax.device_count()
    if config.data.eval_batch_size or not surplus:
        return config
    return replace_keys(config, {"data.eval_batch_size": str(config.batch_size - surplus + jax.device_count())})


def _restore(
    place: Workdir, system: network_run.System | FeatureSystem, first: state.TrainState, which: str
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
    set_name: str = "",
    mappings: str = "",
    protocol: str = protocols.OWN,
    settings: dict[str, str] | None = None,
) -> int:
    """Scores published weights on a split or a set, without a run: prints error rates, keeps predictions in `out`.

    Images are prepared as the file says, else in the way published for the network; the computation is in float32.

    Args:
      path: a file of weights.
      name: the network; empty: as the file says, and with the options that it says.
      options: of the network.
      drop_background: of `pretrained.load`.
      data: keys of the section `data` as texts, `name` among them where there is no set.
      out: a file for the predictions, of ImageNet-C a directory; None: they are not kept.
      set_name: of `evaluation.sets.SETS`; empty: a split that `data` names.
      mappings: the directory that ObjectNet has beside its images.
      protocol: names of evaluation/protocols.py, several with commas between.
      settings: keys of the protocol to replace, as texts.

    Raises:
      UserError: as `pretrained.load`, or the file has another number of classes than the data set.
    """
    if "name" not in data and not set_name:
        raise UserError("which data set? --data.name=NAME, such as --data.name=imagenet2012, or --set=NAME")
    evaluation_sets.check_options(set_name, data, mappings)
    asked = _asked(protocol, settings, out)
    weights = pretrained.read(path)
    name, options = _network_of(weights, name, options)
    preprocessing = weights.preprocessing or models.spec(name).preprocessing
    config = replace_keys(_evaluation_config(name, options, preprocessing), {f"data.{k}": v for k, v in data.items()})
    config = _at_its_size(evaluation_sets.configured(config, set_name, data) if set_name else config)
    devices.start()
    opened = evaluation_sets.opened(config, set_name, mappings)
    split = opened.parts[0].split
    system = network_run.System.create(config, split.num_classes, weights, drop_background=drop_background)
    print(network_run.sentence(system.loaded))
    if system.loaded.replaced:
        why = f"{split.name} has {split.num_classes:,} classes and {system.loaded.notes[-1]}"
        raise UserError(f"{path} cannot be scored: {why}")
    colours = f"mean {config.augment.mean}, std {config.augment.std}"
    images = f"{config.data.size_evaluated} px, {config.eval_crop}, {colours}"
    print(f"{name}, {images}")
    return _judge(
        _judges(asked, system, opened),
        opened,
        system.initial_state(),
        source={"weights": provenance.of_file(path)},
        path_of=_paths(opened, out),
        title=name,
    )


def _at_its_size(config: Config) -> Config:
    """Positions are learned for the size that is evaluated, where nobody says another: they are resized only once."""
    model = config.model
    if "image_size" in model.options or "image_size" not in models.spec(model.name).options:
        return config
    size = config.data.size_evaluated
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


def _evaluation_config(name: str, options: dict[str, Any], preprocessing: Preprocessing) -> Config:
    squash = preprocessing.crop == "squash"
    crop = {"name": "squash"} if squash else {"name": "center", "ratio": preprocessing.crop_ratio}
    return resolve_config(
        {
            "precision": "float32",
            "model": {"name": name, "options": options},
            "data": {"image_size": preprocessing.image_size},
            "eval_crop": crop | {"kernel": preprocessing.kernel, "antialias": preprocessing.antialias},
            "augment": {"mean": preprocessing.mean, "std": preprocessing.std},
        }
    )


# --- localize --------------------------------------------------------------------------------------------------


def localize(
    workdir: str,
    *,
    boxes: str,
    which: str,
    method: str | None,
    threshold: float,
    data: dict[str, str],
) -> int:
    """Makes boxes for the five guesses of a run's network, prints their errors, keeps them and a picture of some.

    Args:
      workdir: of a run, finished or not.
      boxes: annotated ones, a CSV or a folder of XML files, of the images that are judged; those of training images
        are what regression learns from.
      which: "best", "last" or a step.
      method: "cam" or "regression"; None: both.
      threshold: of a class activation map's highest value, from which a place is in the box.
      data: keys of the section `data` to replace, as texts.

    Raises:
      UserError: the run is of another kind than a network, the splits for regression share images, or as
        evaluation/localize.py.
    """
    from imagenet_repro.inference import localizer as boxing
    from imagenet_repro.report import localization_report
    from imagenet_repro.scoring.localization import annotations, errors

    if not 0 < threshold < 1:
        raise UserError(f"--threshold={threshold} is a share of the map's highest value, between 0 and 1")
    place = Workdir(workdir)
    trained_on = place.config()
    if isinstance(trained_on, FeatureConfig):
        raise UserError(f"{place.path} holds a run of {trained_on.system}; boxes are made from networks' feature maps")
    config = replace_keys(trained_on, {f"data.{key}": value for key, value in data.items()})
    objects = annotations.read(boxes)
    devices.start()
    if jax.process_count() > 1:
        raise UserError("boxes are made by one process; start it without the others")
    split = sources.open_split(config.data, config.data.eval_split)
    train = None if method == "cam" else sources.open_split(config.data, config.data.train_split)
    if train and sources.overlap(config.data, config.data.train_split, config.data.eval_split):
        raise UserError(
            f"{split.split} shares images with {train.split}, from whose boxes regression learns; choose other splits,"
            " or --method=cam"
        )
    num_classes = sources.open_split(trained_on.data, trained_on.data.train_split).num_classes
    evaluation.check_labels(split, num_classes)
    system = network_run.System.create(trained_on, num_classes)
    step = _restore(place, system, system.initial_state(), which)
    params, stats = jax.device_get(step.state.evaluated)
    viewer = boxing.Viewer(system.network, params, stats, config, objects)
    found = boxing.localize(viewer, split, train, cam=method != "regression", threshold=threshold)
    source = provenance.collect() | {"config": config_to_dict(config), "step": step.step, "boxes": str(boxes)}
    beside = place.predictions(config.data, config.data.eval_split, step.step)
    for one in found.results:
        if one.looks:
            kept = beside.with_name(f"{beside.stem}_boxes_{one.name.replace(' ', '_')}.npz")
            how = {"method": one.name, "threshold": threshold} if one.name == boxing.CAM else {"method": one.name}
            errors.save(kept, dataclasses.replace(one.guessed, provenance=source | how))
            print(f"boxes by {one.name}: {kept}")
    print(f"step {step.step:,}, {split.name} {split.split}:\n")
    localization_report.present(found, split, place.path / "localization" / beside.stem)
    return EXIT_FINISHED


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
    if isinstance(config, FeatureConfig):
        raise UserError(f"{place.path} holds a run of {config.system}, and only networks' weights can be exported")
    devices.start()
    trained = sources.open_split(config.data, config.data.train_split)
    system = network_run.System.create(config, trained.num_classes)
    found = _restore(place, system, system.initial_state(), which)
    preprocessing = _preprocessing_of(config)
    pretrained.write(system.network.model(*found.state.evaluated), out, preprocessing=preprocessing)
    kind = "averaged weights" if config.ema_decay else "weights"
    print(f"{out}: {kind} of {config.model.name} at step {found.step:,}, {trained.num_classes:,} classes")
    if preprocessing is None:
        crop = config.eval_crop
        print(f"  without preprocessing: the run evaluates with {crop}, and a file can only say 'center' or 'squash'")
    return EXIT_FINISHED


def _preprocessing_of(config: Config) -> Preprocessing | None:
    """How a run prepares the images that it is evaluated on; None where a file cannot say it."""
    crop = config.eval_crop
    if not isinstance(crop, CenterCrop | SquashCrop) or crop.kernel == "area":
        return None
    size = config.data.size_evaluated
    colour = config.augment
    ratio = crop.ratio if isinstance(crop, CenterCrop) else 1.0
    return Preprocessing(size, ratio, crop.kernel, colour.mean, colour.std, crop.antialias, crop.name)


# --- prepare ---------------------------------------------------------------------------------------------------


def prepare(name: str, *, fractal: dict[str, str], **options: Any) -> int:
    """Prepares a data set and says what is there now.

    Args:
      name: `fractal`, `folder:PATH` or a tfds data set.
      fractal: fields of `FractalConfig` as texts.
      options: of data/prepare/prepare_dataset.py.

    Raises:
      UserError: as data/prepare/prepare_dataset.py, or a key that `FractalConfig` does not have.
    """
    from imagenet_repro.data.prepare.fractal import FractalConfig
    from imagenet_repro.data.prepare.prepare_dataset import prepare_dataset

    valid = FractalConfig.parameters()
    for key in fractal:
        if key not in valid:  # some of these would be options of the call below
            raise UserError(f"--fractal.{key}: no such key; {nearest(key, valid)}")
    numbers = {key: parse_literal(value) for key, value in fractal.items()}
    prepared = prepare_dataset(name, **options, **numbers)
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
    measured = listing.measured_in(place.result() for place in _finished(runs))
    if one in models.names():
        listing.describe(one, measured.get(one))
    else:
        listing.show(names, measured, () if pattern else ENTRIES)
    return EXIT_FINISHED


def _finished(runs: list[str]) -> list[Workdir]:
    places = [Workdir(run) for run in runs]
    others = [run for run, place in zip(runs, places, strict=True) if not place.finished]
    if others:
        print(f"left out, since there is no finished run: {', '.join(others)}", file=sys.stderr)
    return [place for place in places if place.finished]

"""Score a checkpoint of a run, or published weights, on a split or an evaluation set."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from imagenet_repro import models, pretrained
from imagenet_repro.config import (
    AnyConfig,
    Config,
    Data,
    config_to_dict,
    replace_keys,
    resolve_config,
)
from imagenet_repro.data import sources
from imagenet_repro.errors import EXIT_FINISHED, UserError
from imagenet_repro.inference import evaluation_sets, protocols
from imagenet_repro.inference import evaluator as evaluation
from imagenet_repro.inference.protocol_evaluator import ProtocolEvaluator, sum_rates
from imagenet_repro.models.spec import Preprocessing
from imagenet_repro.runs.restore import restore
from imagenet_repro.scoring import corruptions, predictions, sets
from imagenet_repro.storage import provenance
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.training import devices, state, systems
from imagenet_repro.training.systems import NetworkSystem, System
from imagenet_repro.training.systems.network import describe_loaded


def evaluate(
    workdir: str,
    *,
    which: str,
    data: dict[str, str],
    out: str | None,
    set_name: str = "",
    mappings: str = "",
    protocol: str = protocols.OWN_PROTOCOL,
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
    config = _divided(evaluation_sets.configure_for_set(config, set_name, data) if set_name else config)
    trained = sources.open_split(place.config().data, place.config().data.train_split)
    if set_name:
        sets.check_classes(trained.class_names, f"the run in {place.path}")
    opened = evaluation_sets.open_set(config, set_name, mappings)
    evaluation.check_labels(opened.parts[0].split, trained.num_classes)
    system = systems.create_system(config, trained.num_classes)
    first = system.initial_state()
    found = restore(place, system, first, which)

    def path(data: Data, name: str) -> Path:
        return place.predictions(data, data.eval_split, found.step, "" if name == protocols.OWN_PROTOCOL else name)

    return _judge(
        _judges(asked, system, opened),
        opened,
        system.spread.put_state(found.state),
        source={"step": found.step},
        path_of=_paths(opened, out) or path,
        title=f"step {found.step:,}",
    )


def _asked(
    protocol: str, settings: dict[str, str] | None, out: str | None
) -> dict[str, tuple[protocols.ProtocolPart, ...]]:
    """Protocols by name, in the order asked for."""
    names = protocol.split(",")
    if len(names) > 1 and out:
        raise UserError(f"--out={out} is one file, and --protocol={protocol} are {len(names)}: leave --out out")
    if len(names) > 1 and settings:
        raise UserError(f"--protocol.{next(iter(settings))} belongs to one protocol, and {protocol} are {len(names)}")
    changed = "_".join(f"{key}_{value}" for key, value in (settings or {}).items())
    return {f"{name}_{changed}" if changed else name: protocols.parse(name, settings) for name in names}


def _judges(
    asked: dict[str, tuple[protocols.ProtocolPart, ...]],
    system: System,
    opened: evaluation_sets.OpenSet,
) -> dict[str, ProtocolEvaluator]:
    """What scores by each protocol; what a system cannot do is said before any is scored."""
    if not system.scores_are_logits:
        asked = {name: protocols.for_scores(parts) for name, parts in asked.items()}
    return {name: ProtocolEvaluator(parts, system, system.spread, opened.score) for name, parts in asked.items()}


def _judge(
    judges: dict[str, ProtocolEvaluator],
    opened: evaluation_sets.OpenSet,
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
        protocols.print_results(rows)
    evaluation_sets.print_lines(sets.human_error_sentences(opened.parts[0].config.data.name))
    return EXIT_FINISHED


def _judge_by(
    name: str,
    judge: ProtocolEvaluator,
    opened: evaluation_sets.OpenSet,
    train_state: state.TrainState,
    *,
    collected: dict[str, Any],
    path_of: Callable[[Data, str], Path] | None,
    title: str,
) -> protocols.ProtocolResult:
    """By one protocol; its error rates are those of all parts together."""
    wrong: dict[str, corruptions.CorruptedErrors] = {}
    found, total = [], 0.0
    by = judge.name_after(name)
    for part in opened.parts:
        stated = collected | {"config": config_to_dict(part.config), "protocol": {"name": name} | judge.description}
        with protocols.progress_bar(f"{part.split.name} {name}", part.split.num_examples) as judge.show:
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
            evaluation_sets.print_lines(evaluation_sets.describe_predictions(opened, kept))
        else:
            wrong[corruptions.config_name(part.split.name)] = corruptions.count_corrupted(kept)
    if wrong:
        evaluation_sets.print_corruptions(wrong, opened.parts[0].config)
    return protocols.ProtocolResult(name, judge.views, sum_rates(found), total)


def _paths(opened: evaluation_sets.OpenSet, out: str | None) -> Callable[[Data, str], Path] | None:
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
    protocol: str = protocols.OWN_PROTOCOL,
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
    config = _at_its_size(evaluation_sets.configure_for_set(config, set_name, data) if set_name else config)
    devices.start()
    opened = evaluation_sets.open_set(config, set_name, mappings)
    split = opened.parts[0].split
    system = NetworkSystem.create(config, split.num_classes, weights, drop_background=drop_background)
    print(describe_loaded(system.loaded))
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

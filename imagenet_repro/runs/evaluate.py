"""Score a checkpoint of a run, or published weights, on a split or an evaluation set."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from imagenet_repro import models, pretrained
from imagenet_repro.config import Config, ConfigT, Data, build_section, config_to_dict, replace_keys
from imagenet_repro.data import sources
from imagenet_repro.data.prepare import fingerprint
from imagenet_repro.errors import UserError
from imagenet_repro.inference import evaluation_sets, protocols
from imagenet_repro.inference.protocol_evaluator import ProtocolEvaluator, sum_rates
from imagenet_repro.models.spec import Preprocessing
from imagenet_repro.runs.restore import restore, trained_classes
from imagenet_repro.runs.results import EvaluationResult
from imagenet_repro.scoring import class_names, corruptions, predictions, sets
from imagenet_repro.storage import files, provenance
from imagenet_repro.storage.workdir import PREDICTIONS, Workdir
from imagenet_repro.training import best_evaluation, devices, log, state, systems
from imagenet_repro.training.systems import NetworkSystem, System
from imagenet_repro.training.systems.network import describe_loaded


def evaluate(
    workdir: str | Path,
    *,
    which: str = "last",
    data: Mapping[str, str] | None = None,
    out: str | None = None,
    set_name: str = "",
    mappings: str = "",
    protocol: str = protocols.OWN_PROTOCOL,
    settings: dict[str, str] | None = None,
) -> EvaluationResult:
    """Score a checkpoint of a run on a split or an evaluation set, print error rates and store the predictions.

    Args:
      workdir: the workdir of a run, which need not be finished.
      which: "best", "last" or a step.
      data: keys of the section `data` to replace, as texts, such as `{"name": "imagenet_v2", "eval_split": "test"}`.
      out: a file for the predictions, or a directory for those on ImageNet-C; None: files below the workdir, named
        after data set, split, protocol and step.
      set_name: a name in `scoring.sets.SETS`; empty: the split that `data` names.
      mappings: the directory of mappings in ObjectNet's download.
      protocol: names of protocols (inference/protocols.py), separated by commas.
      settings: keys of the protocol to replace, as texts.

    Returns:
      The error rates by each protocol.

    Raises:
      UserError: options do not go together; the checkpoint or the images are missing; or the classes of the run are
        not those of the split.
      SaveError: predictions cannot be written.
    """
    data = data or {}
    evaluation_sets.check_options(set_name, data, mappings)
    parts = _parse_protocols(protocol, settings, out)
    run = Workdir(workdir)
    trained = run.config()
    config = replace_keys(trained, {f"data.{key}": value for key, value in data.items()})
    devices.start()
    config = with_divisible_batch(evaluation_sets.configure_for_set(config, set_name, data) if set_name else config)
    classes = trained_classes(run)
    evaluation_set = evaluation_sets.open_set(config, set_name, mappings)
    require_writable(evaluation_set, out, run.path / PREDICTIONS)
    say_what_changed(evaluation_set)
    if set_name or "name" in data or evaluation_set.parts[0].split.class_names != classes:
        evaluation_set = evaluation_sets.align_classes(evaluation_set, classes, f"the run in {run.path}", say_once)
    system = systems.create_system(run.as_computed(config), classes)
    restored = restore(run, system, system.initial_state(), which)

    selected = {} if set_name else describe_selection(run, which, restored.step, config.data)

    def path_in_workdir(data: Data, name: str) -> Path:
        return run.predictions(data, data.eval_split, restored.step, "" if name == protocols.OWN_PROTOCOL else name)

    results = score_by_protocols(
        create_evaluators(parts, system, evaluation_set),
        evaluation_set,
        system.scoring_state(system.spread.put_state(restored.state)),
        source={"step": restored.step} | ({"selection": selected} if selected else {}),
        path_of=output_paths(evaluation_set, out) or path_in_workdir,
        title=f"step {restored.step:,}",
    )
    sentence = selection_sentence(selected, config.data.eval_split) if selected else ""
    if sentence:
        say_once(sentence)
    return EvaluationResult(f"step {restored.step:,} of the run in {run.path}", results, sentence)


def describe_selection(run: Workdir, which: str, step: int, scored: Data) -> dict[str, Any]:
    """Return how the scored images chose the checkpoint that they score; empty if they did not.

    They did if "best" is asked for, or the best step by its number, and they share images with the split on which the
    run was evaluated, however the two are spelled. The last state of a finished run is not selected by its number.

    Args:
      run: the workdir of the run.
      which: "best", "last" or a step, as it was asked for.
      step: the step of that checkpoint.
      scored: the data set and split that are scored.

    Returns:
      The entries of `best_evaluation.BestEvaluation`; `optimism` is that of the scored images, which is smaller if
      only some of them chose the checkpoint, and `shared_images` the number of these.
    """
    trained = run.config().data
    if which == "last" or (which != "best" and run.is_finished and run.result()["spent"].get("steps") == step):
        return {}
    best = best_evaluation.from_rows(log.read_rows(run.metrics), trained.eval_split)
    if best is None or (which != "best" and best.step != step):
        return {}
    try:
        shared, n_scored = sources.count_shared(trained, scored)
    except UserError:  # the data set of the run is not on this machine, so it is not the scored one
        return {}
    if not shared:
        return {}
    return best.to_json() | {"shared_images": shared, "optimism": best.optimism * shared / n_scored}


def selection_sentence(selected: dict[str, Any], scored_split: str) -> str:
    """Return a sentence that calls the error of a selected checkpoint optimistic."""
    sentence = best_evaluation.describe(selected["split"], selected["evaluations"], selected["optimism"])
    if selected["split"] == scored_split:
        return sentence
    return f"{sentence}; {scored_split} has {selected['shared_images']:,} images of {selected['split']}"


def _parse_protocols(
    protocol: str, settings: dict[str, str] | None, out: str | None
) -> dict[str, tuple[protocols.ProtocolPart, ...]]:
    """Return the parts of each protocol by its name, in the order of the command line."""
    names = protocol.split(",")
    if len(names) > 1 and out:
        raise UserError(f"--out={out} is one file, and --protocol={protocol} are {len(names)}; omit --out")
    if len(names) > 1 and settings:
        raise UserError(f"--protocol.{next(iter(settings))} belongs to one protocol, and {protocol} are {len(names)}")
    changed = "_".join(f"{key}_{value}" for key, value in (settings or {}).items())
    return {f"{name}_{changed}" if changed else name: protocols.parse(name, settings) for name in names}


def create_evaluators(
    parts_by_name: dict[str, tuple[protocols.ProtocolPart, ...]],
    system: System,
    evaluation_set: evaluation_sets.OpenSet,
) -> dict[str, ProtocolEvaluator]:
    """Return an evaluator for each protocol. All are created before any scores, so that errors come first."""
    if not system.scores_are_logits:
        parts_by_name = {name: protocols.for_scores(parts) for name, parts in parts_by_name.items()}
    return {
        name: ProtocolEvaluator(parts, system, system.spread, evaluation_set.score)
        for name, parts in parts_by_name.items()
    }


def say_once(note: str) -> None:
    """Print a note on the classes in one process of several."""
    if jax.process_index() == 0:
        print(note)


def score_by_protocols(
    evaluators: dict[str, ProtocolEvaluator],
    evaluation_set: evaluation_sets.OpenSet,
    train_state: state.TrainState,
    *,
    source: dict[str, Any],
    path_of: Callable[[Data, str], Path] | None,
    title: str,
) -> tuple[protocols.ProtocolResult, ...]:
    """Score every part of a set by every protocol, store the predictions, and print the error rates; return these."""
    source = provenance.collect() | source
    results = tuple(
        _score_by_protocol(name, scorer, evaluation_set, train_state, source=source, path_of=path_of, title=title)
        for name, scorer in evaluators.items()
    )
    if jax.process_index() == 0:
        if len(results) > 1:
            protocols.print_results(results)
        evaluation_sets.print_lines(sets.human_error_sentences(evaluation_set.parts[0].config.data.name))
    return results


def _score_by_protocol(
    name: str,
    scorer: ProtocolEvaluator,
    evaluation_set: evaluation_sets.OpenSet,
    train_state: state.TrainState,
    *,
    source: dict[str, Any],
    path_of: Callable[[Data, str], Path] | None,
    title: str,
) -> protocols.ProtocolResult:
    """Score every part of a set by one protocol, and return the error rates of all parts together."""
    errors: dict[str, corruptions.CorruptedErrors] = {}
    all_rates, files_of_predictions, total_seconds = [], [], 0.0
    for part in evaluation_set.parts:
        part_source = source | {
            "config": config_to_dict(part.config),
            "protocol": {"name": name} | scorer.description,
        }
        with protocols.progress_bar(f"{part.split.name} {name}", part.split.num_examples) as scorer.show:
            began, compiled = time.perf_counter(), scorer.compilation_seconds
            rates, predicted = scorer.predict(part.split, train_state, part_source)
            seconds = time.perf_counter() - began - (scorer.compilation_seconds - compiled)
        all_rates.append(rates)
        total_seconds += seconds
        path = path_of and path_of(part.config.data, name)
        if path is not None:
            files_of_predictions.append(path)
        if jax.process_index() != 0:
            continue
        if path is not None:
            predictions.save(path, predicted)
        headline = evaluation_set.headline(rates)
        print(f"{title}, {part.split.name} {part.split.split}{scorer.name_after(name)}: {headline}")
        if left_out := predicted.provenance["left_out"]:
            print(f"{left_out:,} of {part.split.num_examples:,} records cannot be decoded and are left out")
        speed = f"{rates.images / seconds:,.1f} images/s without compilation"
        print(speed + (f"; predictions: {path}" if path else ""), flush=True)
        if len(evaluation_set.parts) == 1:
            evaluation_sets.print_lines(evaluation_sets.describe_predictions(evaluation_set, predicted))
        else:
            errors[corruptions.config_name(part.split.name)] = corruptions.count_corrupted(predicted)
    if errors:
        evaluation_sets.print_corruptions(errors, evaluation_set.parts[0].config)
    files_of_predictions = tuple(files_of_predictions)
    return protocols.ProtocolResult(name, scorer.views, sum_rates(all_rates), total_seconds, files_of_predictions)


def output_paths(evaluation_set: evaluation_sets.OpenSet, out: str | None) -> Callable[[Data, str], Path] | None:
    """Return the path of predictions by data set and protocol: `out`, or a file in it for each part, or None."""
    if not out:
        return None
    if len(evaluation_set.parts) == 1:
        return lambda data, name: Path(out)
    return lambda data, name: Path(out) / f"{data.name.replace('/', '_')}.npz"


def require_writable(evaluation_set: evaluation_sets.OpenSet, out: str | None, default: Path | None = None) -> None:
    """Check in the first process that predictions can be written, before anything is scored.

    Args:
      evaluation_set: the images; those of several data sets have a directory of predictions.
      out: the value of --out.
      default: the directory of predictions without --out; None: they are not stored.

    Raises:
      SaveError: they cannot be written.
    """
    if jax.process_index() != 0:
        return
    if out and len(evaluation_set.parts) == 1:
        files.require_writable_file(out, "--out")
    elif out:
        files.require_writable_directory(out, "--out")
    elif default is not None:
        advice = "name another place with --out, for one protocol at a time"
        files.require_writable_directory(default, "the predictions", advice)


def with_divisible_batch(config: ConfigT) -> ConfigT:
    """Return a configuration whose evaluation batch these devices can share; the run may have trained on others."""
    surplus = config.batch_size % jax.device_count()
    if config.data.eval_batch_size or not surplus:
        return config
    return replace_keys(config, {"data.eval_batch_size": str(config.batch_size - surplus + jax.device_count())})


def require_images(data: Mapping[str, str], set_name: str, mappings: str) -> None:
    """Raise `UserError` if neither a data set nor an evaluation set is named, or options do not go with the set."""
    if "name" not in data and not set_name:
        raise UserError("which data set? --data.name=NAME, such as --data.name=imagenet2012, or --set=NAME")
    evaluation_sets.check_options(set_name, data, mappings)


def evaluate_weights(
    path: str,
    *,
    name: str = "",
    options: dict[str, Any] | None = None,
    drop_background: bool = False,
    data: Mapping[str, str] | None = None,
    out: str | None = None,
    set_name: str = "",
    mappings: str = "",
    protocol: str = protocols.OWN_PROTOCOL,
    settings: dict[str, str] | None = None,
    preprocess: dict[str, str] | None = None,
) -> EvaluationResult:
    """Score published weights on a split or an evaluation set without a run, and print error rates.

    Images are prepared as `pretrained.select` says, which is printed. All computation is in float32.

    Args:
      path: a file of weights, a model's directory, `package:NAME` or `hub:USER/NAME`.
      name: the network, or published weights of it; empty: the one that the file states, with its options.
      options: options of the network, which override those of the file.
      drop_background: see `pretrained.load`.
      data: keys of the section `data` as texts, which include `name` unless `set_name` is given.
      out: a file for the predictions, or a directory for those on ImageNet-C; None: predictions are not stored.
      set_name: a name in `scoring.sets.SETS`; empty: the split that `data` names.
      mappings: the directory of mappings in ObjectNet's download.
      protocol: names of protocols (inference/protocols.py), separated by commas.
      settings: keys of the protocol to replace, as texts.
      preprocess: keys of the images' preprocessing to replace, as texts (pretrained/preprocessing.py).

    Returns:
      The error rates by each protocol.

    Raises:
      UserError: as `evaluate` and `pretrained.load`, or the file has another number of classes than the data set.
      SaveError: predictions cannot be written.
    """
    data = data or {}
    require_images(data, set_name, mappings)
    parts = _parse_protocols(protocol, settings, out)
    weights = pretrained.read(path)
    network = pretrained.select(weights, name, options, preprocess)
    name = network.name
    config = configure_evaluation(name, network.options, network.preprocessing)
    config = replace_keys(config, {f"data.{key}": value for key, value in data.items()})
    config = with_evaluated_size(evaluation_sets.configure_for_set(config, set_name, data) if set_name else config)
    devices.start()
    evaluation_set = evaluation_sets.open_set(config, set_name, mappings)
    require_writable(evaluation_set, out)
    say_what_changed(evaluation_set)
    data_classes = evaluation_set.parts[0].split.class_names
    loaded = _load_weights(config, weights, data_classes, drop_background)
    print(describe_loaded(loaded.report))
    if loaded.report.replaced:
        why = f"{config.data.name} has {len(data_classes):,} classes and {loaded.report.notes[-1]}"
        raise UserError(f"{path} cannot be scored: {why}")
    if loaded.note:
        say_once(loaded.note)
    evaluation_set = evaluation_sets.align_classes(evaluation_set, loaded.classes, path, say_once)
    print(f"{name}; {network.describe_images()}")
    results = score_by_protocols(
        create_evaluators(parts, loaded.system, evaluation_set),
        evaluation_set,
        loaded.system.initial_state(),
        source={"weights": provenance.of_file(weights.path)},
        path_of=output_paths(evaluation_set, out),
        title=name,
    )
    return EvaluationResult(f"{name}, {path}", results)


def say_what_changed(evaluation_set: evaluation_sets.OpenSet) -> None:
    """Print, in one process of several, a note on each part whose source seems to have changed since `prepare`."""
    if jax.process_index() == 0:
        for part in evaluation_set.parts:
            fingerprint.say_what_changed(part.split)


@dataclasses.dataclass(frozen=True)
class _LoadedWeights:
    """A network with the weights of a file.

    Attributes:
      system: the network.
      report: on loading the file.
      classes: names of its classes by index; their numbers if they are not known.
      note: a sentence on the names, if they are not those that the file states.
    """

    system: NetworkSystem
    report: pretrained.Report
    classes: Sequence[str]
    note: str


def _load_weights(
    config: Config, weights: pretrained.Weights, data_classes: Sequence[str], drop_background: bool
) -> _LoadedWeights:
    """Return a network with weights, for the classes that the file states or is likely to have.

    Published files name no classes. If all classes of the data are ImageNet's, the file is loaded as one of ImageNet's
    1,000, otherwise or if it has another number as one of as many classes as the data set has.
    """

    def load(classes: Sequence[str], note: str = "") -> _LoadedWeights:
        system = NetworkSystem.create(config, len(classes), weights, drop_background=drop_background)
        assert system.loaded is not None, "weights were given"
        return _LoadedWeights(system, system.loaded, classes, note)

    if weights.class_names:
        return load(weights.class_names)
    if len(data_classes) == sets.CLASSES or sets.has_imagenet_classes(data_classes):
        loaded = load(sets.imagenet_wnids(), pretrained.IMAGENET_ORDER)
        if not loaded.report.replaced or len(data_classes) == sets.CLASSES:
            return loaded
    return load(class_names.numbered(len(data_classes)))


def with_evaluated_size(config: Config) -> Config:
    """Return a configuration whose network has position embeddings for the evaluated size, unless an option says so.

    The embeddings of the file are then resized only once.
    """
    model = config.model
    if "image_size" in model.options or "image_size" not in models.spec(model.name).options:
        return config
    size = config.data.size_evaluated
    return dataclasses.replace(config, model=dataclasses.replace(model, options=model.options | {"image_size": size}))


def configure_evaluation(name: str, options: dict[str, Any], preprocessing: Preprocessing) -> Config:
    """Return the configuration of a network in float32 whose images are prepared in this way."""
    squash = preprocessing.crop == "squash"
    crop = {"name": "squash"} if squash else {"name": "center", "ratio": preprocessing.crop_ratio}
    return build_section(
        Config,
        {
            "precision": "float32",
            "model": {"name": name, "options": options},
            "data": {"image_size": preprocessing.image_size},
            "eval_crop": crop | {"kernel": preprocessing.kernel, "antialias": preprocessing.antialias},
            "augment": {"mean": preprocessing.mean, "std": preprocessing.std},
        },
    )

"""Evaluation sets: opening their splits by name, and describing predictions for them by their rules."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8
from rich.console import Console

from imagenet_repro.config import AnyConfig, CenterCrop, ConfigT, Data, replace_keys
from imagenet_repro.data import sources
from imagenet_repro.data.prepare import objectnet
from imagenet_repro.data.sources import Split
from imagenet_repro.errors import UserError
from imagenet_repro.scoring import class_names, corruptions, cue_conflict, hierarchy, predictions, sets
from imagenet_repro.scoring.metrics import ErrorRates
from imagenet_repro.scoring.predictions import NO_LABEL, Predictions
from imagenet_repro.scoring.sets import AcceptedLabels, EvaluationSet

Score = Callable[..., Float[Array, "b c"]]


@dataclasses.dataclass(frozen=True)
class EvaluationSplit:
    """A split that is scored, and the configuration with which it is read."""

    config: AnyConfig
    split: Split


@dataclasses.dataclass(frozen=True)
class OpenSet:
    """An evaluation set with its open splits, or any other split if `chosen` is None.

    Attributes:
      chosen: the set.
      parts: its splits; ImageNet-C has 75, all others have one.
      scored: whether each class counts; None: all do.
      mappings: the directory of ObjectNet's mappings; empty for other sets.
    """

    chosen: EvaluationSet | None
    parts: tuple[EvaluationSplit, ...]
    scored: Bool[np.ndarray, " c"] | None = None
    mappings: str = ""

    def headline(self, rates: ErrorRates) -> str:
        """Return the set's name and source if separate sentences follow; otherwise both error rates."""
        if self.chosen is None or self.chosen.rule == "corruptions":
            return str(rates)
        return f"{self.chosen.title} ({self.chosen.source})"

    def score(self, score: Score) -> Score:
        """Return the scores of a system, with -inf for the classes that do not count."""
        return score if self.scored is None else mask_scores(score, self.scored)


def mask_scores(score: Score, scored: Bool[np.ndarray, " c"]) -> Score:
    """Return a score function with -inf for the classes that do not count, before guesses are selected."""

    def of_some_classes(params: Any, stats: Any, images: UInt8[Array, "b h w 3"]) -> Float[Array, "b c"]:
        return jnp.where(jnp.asarray(scored), score(params, stats, images), -jnp.inf)

    return of_some_classes


# --- opening ----------------------------------------------------------------------------------------------------


def check_options(name: str, data: Mapping[str, str], mappings: str) -> None:
    """Raise `UserError` for options that do not go with a set, or for ObjectNet without its mappings."""
    if (name == "objectnet") != bool(mappings):
        raise UserError(
            "--set=objectnet needs --mappings=DIR, the directory `mappings` of its download"
            if name == "objectnet"
            else "--mappings belongs to --set=objectnet and has no effect here; omit it"
        )
    if not name:
        return
    chosen = sets.find_set(name)
    fixed = ["eval_split", *(["name"] if chosen.rule == "corruptions" else [])]
    for key in fixed:
        if key in data:
            raise UserError(f"--data.{key} does not go with --set={name}, which reads {chosen.data}, {chosen.split}")


def configure_for_set(config: ConfigT, name: str, data: Mapping[str, str]) -> ConfigT:
    """Return a configuration that reads a set, by its own name or by that in `data`, such as a smaller copy.

    Images of ImageNet-C are already cropped, so they are used completely.
    """
    chosen = sets.find_set(name)
    keys = {"data.eval_split": chosen.split}
    if "name" not in data:
        keys["data.name"] = chosen.data
    config = replace_keys(config, keys)
    if chosen.rule == "corruptions" and isinstance(config.eval_crop, CenterCrop):
        config = dataclasses.replace(config, eval_crop=dataclasses.replace(config.eval_crop, ratio=1.0))
    return config


def open_set(config: AnyConfig, name: str, mappings: str = "") -> OpenSet:
    """Open the splits of a set, or with an empty name the split that the configuration names.

    Raises:
      UserError: an error of `sources.open_split`, or the data set does not have ImageNet's classes.
    """
    if not name:
        return OpenSet(None, (_part(config),))
    chosen = sets.find_set(name)
    if chosen.rule == "corruptions":
        return OpenSet(chosen, tuple(_corrupted(config)))
    part = {"objectnet": _objectnet, "cue_conflict": _cue_conflict}.get(name, _part)(config)
    sets.check_classes(part.split.class_names, f"data set {part.split.name}")
    scored = sets.occurring_classes([record.label for record in part.split.records]) if chosen.masked else None
    return OpenSet(chosen, (part,), scored, mappings)


def align_classes(opened: OpenSet, names: Sequence[str], owner: str, say: Callable[[str], None] = print) -> OpenSet:
    """Return the same splits with labels that count the classes of a system, so that its scores fit them.

    Args:
      opened: a split, or a set; a set's own classes are ImageNet's.
      names: names of the system's classes by index; without names, `class_names.numbered` of their count.
      owner: the system, for messages.
      say: called with a sentence if labels were changed, or if there are no names to compare.

    Raises:
      UserError: a split has a class that the system does not have, or a set is scored by a system whose classes are
        not ImageNet's in order.
    """
    if opened.chosen:
        sets.check_classes(names, owner)
        return opened
    parts = [_with_classes(part, names, owner, say) for part in opened.parts]
    return dataclasses.replace(opened, parts=tuple(parts))


def _with_classes(
    part: EvaluationSplit, names: Sequence[str], owner: str, say: Callable[[str], None]
) -> EvaluationSplit:
    return dataclasses.replace(part, split=with_classes(part.split, names, owner, say))


def with_classes(split: Split, names: Sequence[str], owner: str, say: Callable[[str], None] = print) -> Split:
    """Return a split with labels that count the classes of a system; arguments and errors as `align_classes`."""
    matching = class_names.match(
        split.class_names, f"data set {split.name}, split {split.split},", names, owner, partial=True
    )
    if matching.note:
        say(matching.note)
    if not matching.is_checked or split.class_names == tuple(names):
        return split
    return split.relabelled(names, matching.index.tolist())


def _part(config: AnyConfig) -> EvaluationSplit:
    split = sources.open_split(config.data, config.data.eval_split)
    sources.check_ids(split)
    return EvaluationSplit(config, split)


def _objectnet(config: AnyConfig) -> EvaluationSplit:
    _require_prepared(config.data, "ObjectNet is", "python main.py prepare folder:objectnet-1.0 --name=objectnet")
    part = _part(config)
    return dataclasses.replace(part, split=objectnet.borderless(part.split, sets.imagenet_wnids()))


def _cue_conflict(config: AnyConfig) -> EvaluationSplit:
    _require_prepared(config.data, "The images of the cue-conflict set are", cue_conflict.PREPARE)
    part = _part(config)
    names = sets.imagenet_wnids()  # a category has many of these classes, so the images have no label among them
    return dataclasses.replace(part, split=part.split.relabelled(names, [NO_LABEL] * len(part.split.class_names)))


def _require_prepared(data: Data, images: str, command: str) -> None:
    """Raise `UserError` with the command that prepares a data set from a download, if it is missing."""
    directory = sources.data_directory(data.data_dir)
    if not (directory / data.name).is_dir():
        raise UserError(
            f"data set '{data.name}' is not prepared in {directory}. {images} prepared from the unpacked download:\n"
            f"  {command} --data_dir={directory}"
        )


def _corrupted(config: AnyConfig) -> list[EvaluationSplit]:
    parts, missing = [], []
    for name in corruptions.CONFIGS:
        try:
            parts.append(_part(replace_keys(config, {"data.name": f"{config.data.name}/{name}"})))
        except UserError as error:
            missing.append(error)
    if missing:
        raise UserError(f"{len(missing)} of the {len(corruptions.CONFIGS)} parts of ImageNet-C: {missing[0]}")
    for part in parts:
        sets.check_classes(part.split.class_names, f"data set {part.split.name}")
    return parts


# --- descriptions ----------------------------------------------------------------------------------------------


def describe_predictions(opened: OpenSet, predicted: Predictions) -> list[str]:
    """Describe predictions for a split by the rule of its set; for a plain split only by super-class.

    Raises:
      UserError: an error of `sets.accepted_labels`, `sets.score_set` or `sets.check_folders`.
    """
    chosen = opened.chosen
    if chosen is None:
        return _describe_hierarchy(predicted)
    if chosen.rule == "cues":
        return _describe_cues(chosen, predicted)
    if opened.mappings:
        known = sets.accepted_by_folder(predicted.id.tolist(), objectnet.imagenet_classes(opened.mappings))
    else:
        known = _accepted_labels(chosen, opened.parts[0].config.data)
    lines = _describe_by_rule(chosen, predicted, known)
    return lines + _describe_hierarchy(predicted) if chosen.rule == "label" else lines


def _accepted_labels(chosen: EvaluationSet, data: Data) -> AcceptedLabels | None:
    if not chosen.keys:
        return None
    return sets.accepted_labels(chosen, sources.integers(data, chosen.split, chosen.keys))


def _describe_by_rule(chosen: EvaluationSet, predicted: Predictions, known: AcceptedLabels | None) -> list[str]:
    results = sets.score_set(chosen, predicted, known)
    lines = [f"{chosen.title}: {result}" for result in results]
    counted = results[0].images + (results[0].dropped if chosen.rule == "per class" else 0)
    classes = int(sets.occurring_classes(predicted.label).sum()) if chosen.rule == "label" else None
    return [*lines, *sets.completeness_notes(chosen, counted, classes), *chosen.notes]


def _describe_cues(chosen: EvaluationSet, predicted: Predictions) -> list[str]:
    lines = cue_conflict.describe(cue_conflict.score_predictions(chosen.name, predicted))
    return [*lines, *sets.completeness_notes(chosen, len(predicted)), *chosen.notes]


def _describe_hierarchy(predicted: Predictions) -> list[str]:
    names = class_names.of_provenance(predicted.provenance)
    if not hierarchy.has_wordnet_ids(names) or np.any(predicted.label < 0):
        return []
    return hierarchy.sentences(hierarchy.score_hierarchy(predicted.top5, predicted.label, names))


def describe_corruptions(result: corruptions.Robustness, config: AnyConfig | None = None) -> list[str]:
    """Describe scores on ImageNet-C; with the configuration also the size of its images."""
    chosen = sets.SETS["c"]
    lines = [f"{chosen.title}: {result}" for result in (result.mce, result.mean)]
    lines += [*sets.completeness_notes(chosen, result.mce.images), *chosen.notes]
    size = corruptions.PIXELS if config is None else config.data.size_evaluated
    if size != corruptions.PIXELS:
        lines.append(
            f"Its images of {corruptions.PIXELS} px were resized to {size} px; those of published numbers were not."
        )
    return lines


def print_lines(lines: Sequence[str], console: Console | None = None) -> None:
    """Print sentences as they are, without wrapping."""
    for line in lines:
        (console or Console()).print(line, markup=False, highlight=False, soft_wrap=True)


# --- stored predictions --------------------------------------------------------------------------------------------


def score_stored(path: str, name: str, *, data_dir: str = "", mappings: str = "") -> None:
    """Score stored predictions by the rule of a set, and print the results.

    Sets with several labels per image read them from the prepared data set. For ImageNet-C, `path` is a directory with
    the predictions for all 75 parts. For the cue-conflict set, it may be one of its authors' CSV files.

    Raises:
      UserError: an error of `describe_predictions`; the predictions are not among the 1,000 classes; or they are text,
        which names no images.
    """
    check_options(name, {}, mappings)
    chosen = sets.find_set(name)
    if chosen.rule == "corruptions":
        _show_corrupted(corruptions.score_corruptions(_stored_parts(Path(path))), None)
        return
    if chosen.rule == "cues" and Path(path).suffix == ".csv":
        print_lines(cue_conflict.describe(cue_conflict.read_answers(Path(path))))
        return
    predicted = _stored(Path(path), chosen)
    if chosen.rule == "cues":
        print_lines(_describe_cues(chosen, predicted))
        return
    if chosen.masked:
        predicted = sets.mask_classes(predicted, sets.occurring_classes(predicted.label))
    if mappings:
        known = sets.accepted_by_folder(predicted.id.tolist(), objectnet.imagenet_classes(mappings))
    else:
        known = _accepted_labels(chosen, Data(name=chosen.data, data_dir=data_dir))
    lines = _describe_by_rule(chosen, predicted, known)
    lines += _describe_hierarchy(predicted) if chosen.rule == "label" else []
    print_lines(lines + (sets.human_error_sentences(chosen.data) if name == "imagenet" else []))


def _stored(path: Path, chosen: EvaluationSet) -> Predictions:
    if path.suffix != ".npz":
        raise UserError(f"--set={chosen.name} needs a file of `evaluate` (.npz), which names its images, not {path}")
    return sets.with_imagenet_classes(predictions.load(path), str(path))


def _stored_parts(directory: Path) -> dict[str, corruptions.CorruptedErrors]:
    if not directory.is_dir():
        raise UserError(f"--set=c needs a directory with the predictions for all parts of ImageNet-C, not {directory}")
    paths: dict[str, Path] = {}
    models: dict[str, Path] = {}  # a path by model; more than one is an error
    for path in sorted(directory.glob("*.npz")):
        source = predictions.load_provenance(path)
        config = corruptions.config_name(predictions.data_name(source))
        if config in paths:
            raise UserError(
                f"{paths[config]} and {path} are both for {config}; keep the predictions of one checkpoint only"
            )
        if config:
            paths[config] = path
            models.setdefault(_scored_model(source), path)
    if len(models) > 1:
        one, other, *_ = models.values()
        raise UserError(f"{one} and {other} are of different models; keep the predictions of one only")
    return {config: _stored_part(path) for config, path in paths.items()}


def _scored_model(provenance: Mapping[str, Any]) -> str:
    """Return what identifies the model and the protocol of stored predictions, as far as their file states it."""
    config, weights = provenance.get("config") or {}, provenance.get("weights") or {}
    settings = {key: value for key, value in config.items() if key != "data"}
    protocol, step = provenance.get("protocol"), provenance.get("step")
    return json.dumps([settings, weights.get("sha256"), protocol, step], sort_keys=True, default=str)


def _stored_part(path: Path) -> corruptions.CorruptedErrors:
    guesses = predictions.load_guesses(path)
    return corruptions.CorruptedErrors(guesses["id"], guesses["top5"][:, 0] != guesses["label"])


def _show_corrupted(result: corruptions.Robustness, config: AnyConfig | None) -> None:
    console = Console()
    console.print(corruptions.terminal_table(result), markup=False)
    print_lines(describe_corruptions(result, config), console)


def print_corruptions(wrong: Mapping[str, corruptions.CorruptedErrors], config: AnyConfig) -> None:
    """Score the parts of ImageNet-C; print the table of corruptions and a description."""
    _show_corrupted(corruptions.score_corruptions(wrong), config)

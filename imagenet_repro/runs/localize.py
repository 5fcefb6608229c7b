"""Predict boxes with the network of a run, and measure the localization error."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax

from imagenet_repro.config import Data, config_to_dict, replace_keys
from imagenet_repro.data import sources
from imagenet_repro.errors import EXIT_FINISHED, UserError
from imagenet_repro.inference import evaluation_sets, localizer
from imagenet_repro.report import localization_report
from imagenet_repro.runs.restore import restore, trained_classes
from imagenet_repro.scoring.localization import annotations, error_rates
from imagenet_repro.storage import files, provenance
from imagenet_repro.storage.workdir import PREDICTIONS, Workdir
from imagenet_repro.training import devices, systems
from imagenet_repro.training.systems import NetworkSystem


def localize(
    workdir: str,
    *,
    boxes: str,
    which: str,
    method: str | None,
    threshold: float,
    data: dict[str, str],
    out: str | None = None,
) -> int:
    """Predict boxes for the five guesses of a run's network, print their error rates, and store boxes and a figure.

    Args:
      workdir: the workdir of a run, which need not be finished.
      boxes: annotated boxes of the evaluated images, and of training images for the regression: a CSV file or a folder
        of XML files.
      which: "best", "last" or a step.
      method: "cam" or "regression"; None: both.
      threshold: the share of a class activation map's highest value above which a position is in the box.
      data: keys of the section `data` to replace, as texts.
      out: the directory for boxes, table and figure; None: directories in the workdir.

    Returns:
      The exit code.

    Raises:
      UserError: the run does not train a network, the splits for the regression share images, or an error of
        `inference.localizer`.
      SaveError: boxes, table or figure cannot be written.
    """
    if not 0 < threshold < 1:
        raise UserError(f"--threshold={threshold} is a share of the map's highest value, between 0 and 1")
    run = Workdir(workdir)
    run_config = systems.require_network(
        run.as_computed(run.config()), run.path, "boxes are computed from networks' feature maps"
    )
    config = replace_keys(run_config, {f"data.{key}": value for key, value in data.items()})
    box_directory, report_directory = _output_directories(run, out)
    objects = annotations.read(boxes)
    devices.start()
    if jax.process_count() > 1:
        raise UserError("localize runs in one process; start it without the others")
    classes = trained_classes(run)
    split, train_split = _open_splits(config.data, classes, f"the run in {run.path}", with_training=method != "cam")
    system = NetworkSystem.create(run_config, len(classes))
    restored = restore(run, system, system.initial_state(), which)
    params, stats = jax.device_get(restored.state.evaluated)
    network = localizer.LocalizationNetwork(system.network, params, stats, config, objects)
    localized = localizer.localize(network, split, train_split, cam=method != "regression", threshold=threshold)
    source = provenance.collect() | {"config": config_to_dict(config), "step": restored.step, "boxes": str(boxes)}
    print(f"step {restored.step:,}, {split.name} {split.split}:\n")
    localization_report.show(localized)  # first, so that a disk that is full now costs only the files
    stem = run.predictions(config.data, config.data.eval_split, restored.step).stem
    for result in localized.results:
        if result.looks:
            name = files.bounded_name(f"{stem}_boxes_{result.name.replace(' ', '_')}", ".npz")
            path = box_directory / name
            details = {"threshold": threshold} if result.name == localizer.CAM else {}
            box_source = source | {"method": result.name} | details
            error_rates.save(path, dataclasses.replace(result.guessed, provenance=box_source))
            print(f"boxes by {result.name}: {path}")
    localization_report.save(localized, split, report_directory if out else report_directory / stem)
    return EXIT_FINISHED


def _open_splits(
    data: Data, classes: Sequence[str], owner: str, *, with_training: bool
) -> tuple[sources.Split, sources.Split | None]:
    """Return the evaluated split and the one for the regression, labelled by `classes`, those of `owner`.

    Raises:
      UserError: the splits share images, or a split has other classes.
    """
    split = evaluation_sets.with_classes(sources.open_split(data, data.eval_split), classes, owner)
    if not with_training:
        return split, None
    train_split = sources.open_split(data, data.train_split, may_repeat=True)
    if sources.overlap(data, data.train_split, data.eval_split):
        raise UserError(
            f"{split.split} shares images with {train_split.split}, on whose boxes the regression is fitted; choose"
            " other splits, or --method=cam"
        )
    return split, evaluation_sets.with_classes(train_split, classes, owner, say=lambda note: None)


def _output_directories(run: Workdir, out: str | None) -> tuple[Path, Path]:
    """Return the directories for boxes and for the report, which were tried; raise SaveError if one is read-only."""
    if out:
        return Path(out), Path(out)
    directories = run.path / PREDICTIONS, run.path / "localization"
    for directory in directories:
        files.require_writable_directory(directory, "the boxes", "name another directory with --out=DIR")
    return directories

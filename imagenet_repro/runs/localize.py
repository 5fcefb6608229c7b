"""Predict boxes with the network of a run, and measure the localization error."""

import dataclasses

import jax

from imagenet_repro.config import (
    config_to_dict,
    replace_keys,
)
from imagenet_repro.data import sources
from imagenet_repro.errors import EXIT_FINISHED, UserError
from imagenet_repro.inference import evaluator as evaluation
from imagenet_repro.runs.restore import restore
from imagenet_repro.storage import provenance
from imagenet_repro.storage.workdir import Workdir
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
    from imagenet_repro.scoring.localization import annotations, error_rates

    if not 0 < threshold < 1:
        raise UserError(f"--threshold={threshold} is a share of the map's highest value, between 0 and 1")
    place = Workdir(workdir)
    trained_on = systems.require_network(place.config(), place.path, "boxes are made from networks' feature maps")
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
    system = NetworkSystem.create(trained_on, num_classes)
    step = restore(place, system, system.initial_state(), which)
    params, stats = jax.device_get(step.state.evaluated)
    viewer = boxing.LocalizationNetwork(system.network, params, stats, config, objects)
    found = boxing.localize(viewer, split, train, cam=method != "regression", threshold=threshold)
    source = provenance.collect() | {"config": config_to_dict(config), "step": step.step, "boxes": str(boxes)}
    beside = place.predictions(config.data, config.data.eval_split, step.step)
    for one in found.results:
        if one.looks:
            kept = beside.with_name(f"{beside.stem}_boxes_{one.name.replace(' ', '_')}.npz")
            how = {"method": one.name, "threshold": threshold} if one.name == boxing.CAM else {"method": one.name}
            error_rates.save(kept, dataclasses.replace(one.guessed, provenance=source | how))
            print(f"boxes by {one.name}: {kept}")
    print(f"step {step.step:,}, {split.name} {split.split}:\n")
    localization_report.present(found, split, place.path / "localization" / beside.stem)
    return EXIT_FINISHED

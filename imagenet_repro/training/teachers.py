"""Load the teacher of a run: the best checkpoint of another run, or a file of weights."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from imagenet_repro import models, pretrained
from imagenet_repro.config import Config, ContrastiveConfig, NoDistillation
from imagenet_repro.errors import UserError
from imagenet_repro.scoring import class_names as names_of_classes
from imagenet_repro.scoring import sets
from imagenet_repro.storage.json_files import read_json, write_json
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.training import checkpoint
from imagenet_repro.training.distillation import Teacher
from imagenet_repro.training.functional import FunctionalNetwork
from imagenet_repro.training.systems.network import DTYPES, NetworkSystem

KEY = "config.distill.teacher"
RECORD = "teacher.json"  # in the workdir of the run that learns


def attach(system: NetworkSystem, class_names: Sequence[str]) -> NetworkSystem:
    """Return the system with the teacher that its configuration names, or as it is where it names none.

    Args:
      system: the student.
      class_names: names of the run's classes by index.

    Raises:
      UserError: there is no such teacher, its network is not known, or it has other classes.
    """
    if isinstance(system.config.distill, NoDistillation):
        return system
    return dataclasses.replace(system, teacher=load(system.config, class_names))


def load(config: Config, class_names: Sequence[str]) -> Teacher:
    """Return the teacher of a run; the errors are those of `attach`."""
    spec = config.distill
    assert not isinstance(spec, NoDistillation)
    if not spec.teacher:
        raise UserError(
            f"{KEY}: distillation ({spec.name}) needs a teacher: the workdir of a finished run, or a file of weights."
            " --config.distill.name=none trains on the labels alone"
        )
    run = Workdir(spec.teacher)
    network, theirs, colour = _of_run(run, config) if run.has_config else _of_file(config, class_names)
    try:
        match = names_of_classes.match(class_names, "the data", theirs, "the teacher", partial=True)
    except UserError as error:
        raise UserError(f"{KEY}: {spec.teacher} has other classes: {error}") from error
    note = f"; {match.note}" if match.note else ""
    parameters = sum(x.size for x in network.params.values())
    teacher = Teacher(
        network=network,
        params={name: np.asarray(x) for name, x in network.params.items()},
        stats={name: np.asarray(x) for name, x in network.stats.items()},
        classes=match.index,
        mean=tuple(colour.mean),
        std=tuple(colour.std),
        description=f"teacher {spec.teacher}: {parameters / 1e6:,.2f} M parameters, {spec.name} labels{note}",
    )
    network.release()
    return teacher


def _of_run(run: Workdir, config: Config) -> tuple[FunctionalNetwork, Sequence[str], Any]:
    """Return the network of a run at its best checkpoint, or else its last, its classes and its colours."""
    own = run.config()
    if not isinstance(own, Config) or isinstance(own, ContrastiveConfig):
        raise UserError(f"{KEY}: {run.path} is the run of {own.system_name}; a network with one tower is needed")
    classes = run.classes()
    if not classes:
        raise UserError(f"{KEY}: {run.path} has no record of its classes; export its weights, and name that file")
    if message := run.explain_dropped("best"):
        raise UserError(f"{KEY}: {message}")
    if not run.checkpoints.is_dir():
        raise UserError(f"{KEY}: {run.path} has no checkpoints; train it first")
    # Copies on every device, so that each process can read all values.
    own = dataclasses.replace(own, precision=_precision(config), parallel="shard_map")
    system = NetworkSystem.create(own, len(classes))
    checkpoints = checkpoint.Checkpoints(run.checkpoints, own.checkpoint.keep, read_only=True)
    try:
        which = "last" if checkpoints.best_step() is None else "best"
        restored = checkpoints.restore(system.initial_state(), which)
    finally:
        checkpoints.close()
    if restored is None:
        raise UserError(f"{KEY}: {run.path} has no checkpoint yet; train it first")
    system.network.params, system.network.stats = jax.device_get(restored.state.evaluated)
    return system.network, classes, own.augment


def _of_file(config: Config, class_names: Sequence[str]) -> tuple[FunctionalNetwork, Sequence[str], Any]:
    """Return the network of a file of weights, its classes and its preprocessing."""
    spec = config.distill
    assert not isinstance(spec, NoDistillation)
    weights = pretrained.read(spec.teacher)
    stated = weights.origin
    if stated is None and not spec.model:
        raise UserError(f"config.distill.model: {spec.teacher} does not state its network; name it")
    is_stated = stated is not None and (not spec.model or models.canonical(spec.model) == stated.name)
    name, options = (stated.name, dict(stated.options)) if stated and is_stated else (spec.model, {})
    if "image_size" in models.spec(name).options:  # positions for the student's images
        options["image_size"] = config.data.image_size
    for classes in _possible_classes(weights, class_names):
        model = models.create(name, len(classes), DTYPES[_precision(config)], **options)
        report = pretrained.load(model, weights)
        if not report.replaced:
            return FunctionalNetwork(model), classes, report.preprocessing
    raise UserError(
        f"{KEY}: {spec.teacher} has other classes than the {len(class_names):,} of the data: {report.notes[-1]}"
    )


def _possible_classes(weights: pretrained.Weights, class_names: Sequence[str]) -> list[Sequence[str]]:
    """Return the lists of classes that a file may have, the likeliest first."""
    if weights.class_names:
        return [weights.class_names]
    numbers = names_of_classes.numbered(len(class_names))
    is_imagenet = len(class_names) == sets.CLASSES or sets.has_imagenet_classes(class_names)
    return [sets.imagenet_wnids(), numbers] if is_imagenet else [numbers]


def _precision(config: Config) -> str:
    """Return the precision of the teacher: the student's, but float32 beside a student in float64."""
    return "float32" if config.precision == "float64" else config.precision


def check_unchanged(teacher: Teacher, workdir: Workdir, *, is_new: bool) -> None:
    """Record the teacher of a new run; raise UserError where a resumed run has another, and so other bits."""
    digest = hashlib.sha256()
    for part in (teacher.params, teacher.stats):
        for name in sorted(part):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(part[name]).tobytes())
    path = workdir.path / RECORD
    record = {"sha256": digest.hexdigest(), "description": teacher.description}
    if is_new or not path.exists():
        if jax.process_index() == 0:
            write_json(path, record)
        return
    known = read_json(path, "train writes it", "remove it to go on with the teacher of now")
    if known.get("sha256") != record["sha256"]:
        raise UserError(
            f"{KEY}: its weights are not those that the run began with ({known.get('description')}). Restore them, or"
            " use a new --workdir"
        )

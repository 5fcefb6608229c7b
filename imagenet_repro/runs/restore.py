"""Restore a checkpoint of a run, and the names of its classes, for evaluation, localization or export."""

from imagenet_repro.data import sources
from imagenet_repro.errors import UserError
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.training import checkpoint, state
from imagenet_repro.training.systems import System


def trained_classes(workdir: Workdir) -> tuple[str, ...]:
    """Return the names of the classes that a run is trained on, by index, as they were when it began.

    Where an older version recorded none, they are those that the data set has now, and a line says so.

    Raises:
      UserError: none are recorded, and the training split cannot be opened.
    """
    recorded = workdir.classes()
    if recorded:
        return recorded
    data = workdir.config().data
    names = sources.open_split(data, data.train_split, may_repeat=True).class_names
    print(f"{workdir.path} has no record of its classes; they are taken to be those that data set {data.name} has now")
    return names


def restore(workdir: Workdir, system: System, initial_state: state.TrainState, which: str) -> checkpoint.Restored:
    """Return the checkpoint that `which` selects ("best", "last" or a step).

    Args:
      workdir: the workdir of a run.
      system: the run's system.
      initial_state: a state of the same structure, whose arrays are replaced.
      which: "best", "last" or the number of a step.

    Raises:
      UserError: the run has no such checkpoint; the message says so where its sweep has dropped it.
    """
    if message := workdir.explain_dropped(which):
        raise UserError(message)
    if not workdir.checkpoints.is_dir():
        raise UserError(f"{workdir.checkpoints}: there are no checkpoints; train first")
    checkpoints = checkpoint.Checkpoints(workdir.checkpoints, system.config.checkpoint.keep, read_only=True)
    try:
        restored = checkpoints.restore(initial_state, which)
    finally:
        checkpoints.close()
    if restored is None:
        raise UserError(f"{workdir.checkpoints}: there is no checkpoint yet; train first")
    return restored

"""Restore a checkpoint of a run for evaluation, localization or export."""

from imagenet_repro.errors import UserError
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.training import checkpoint, state
from imagenet_repro.training.systems import System


def restore(workdir: Workdir, system: System, initial_state: state.TrainState, which: str) -> checkpoint.Restored:
    """Return the checkpoint that `which` selects ("best", "last" or a step).

    Args:
      workdir: the workdir of a run.
      system: the run's system.
      initial_state: a state of the same structure, whose arrays are replaced.
      which: "best", "last" or the number of a step.

    Raises:
      UserError: the run has no such checkpoint.
    """
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

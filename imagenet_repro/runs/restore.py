"""Load the checkpoint of a run that a command selects."""

from imagenet_repro.errors import UserError
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.training import checkpoint, state
from imagenet_repro.training.systems import System


def restore(place: Workdir, system: System, first: state.TrainState, which: str) -> checkpoint.Restored:
    """Return the checkpoint that `which` selects ("best", "last" or a step).

    Args:
      place: the workdir of a run.
      system: the run's network or system of features.
      first: a state of the same structure, whose arrays are replaced.
      which: "best", "last" or the number of a step.

    Raises:
      UserError: the run has no such checkpoint.
    """
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

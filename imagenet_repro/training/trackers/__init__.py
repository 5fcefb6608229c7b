"""Trackers of runs: TensorBoard, Weights & Biases, MLflow and Trackio, chosen by the key `log.to`.

Each tracker records the name of the system, the configuration, the numbers of each row of the log by step, and the
result at the end. A run that resumes continues the run of its tracker, and no step is written twice. A tracker never
stops or slows training: all but TensorBoard, whose rows take 0.2 ms, write from a thread of their own, and the first
failure of a tracker is said once and ends the tracker alone.

Nothing leaves the machine unless the user's environment names a server (`docs/trackers.md`).
"""

from imagenet_repro.training.trackers.group import Trackers, require_installed
from imagenet_repro.training.trackers.tracked_run import TrackedRun, result_numbers

__all__ = ["TrackedRun", "Trackers", "require_installed", "result_numbers"]

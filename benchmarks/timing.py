"""The timing of steps that devices compute while the host goes on."""

import time
from collections.abc import Callable


def rate(step: Callable[[], object], wait: Callable[[], object], images: int, seconds: float) -> float:
    """Return the images per second of a step, measured over about `seconds`.

    Two steps warm up, one step is timed alone to find how many fit into `seconds`, and those are given to the device
    in one go: the host waits once, at the end, so that what it needs to start a step is hidden as it is in training.

    Args:
      step: starts one step.
      wait: returns when all steps that were started have ended.
      images: images of a step.
      seconds: length of the measurement.
    """
    for _ in range(2):
        step()
    wait()
    began = time.perf_counter()
    step()
    wait()
    count = max(1, round(seconds / (time.perf_counter() - began)))
    began = time.perf_counter()
    for _ in range(count):
        step()
    wait()
    return count * images / (time.perf_counter() - began)

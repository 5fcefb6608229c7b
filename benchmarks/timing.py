"""The timing of steps that devices compute while the host goes on."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

TURNS = 3


class Rate(NamedTuple):
    """Images per second in several turns: their median, the highest, and (highest - lowest) / median."""

    median: float
    highest: float
    spread: float


def rate(step: Callable[[], object], wait: Callable[[], object], images: int, seconds: float) -> Rate:
    """Return the images per second of a step, measured in three turns that take about `seconds` together.

    Two steps warm up, one step is timed alone to find how many fit into a turn, and those are given to the device in
    one go: the host waits once, at the end of the turn, so that the time that it needs to start a step is hidden as it
    is in training.

    Args:
      step: starts one step.
      wait: returns when all steps that were started have ended.
      images: images of a step.
      seconds: length of the measurement.
    """
    for _ in range(2):
        step()
    wait()
    count = max(1, round(seconds / TURNS / _seconds(step, wait, 1)))
    rates = [count * images / _seconds(step, wait, count) for _ in range(TURNS)]
    median = statistics.median(rates)
    return Rate(median, max(rates), (max(rates) - min(rates)) / median)


def _seconds(step: Callable[[], object], wait: Callable[[], object], count: int) -> float:
    """Return the seconds of `count` steps with one wait at the end."""
    began = time.perf_counter()
    for _ in range(count):
        step()
    wait()
    return time.perf_counter() - began

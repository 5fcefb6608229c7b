"""Invented runs for the tests of trackers: rows of a log, as a run of a network writes them, and its result."""

import dataclasses

from imagenet_repro.config import Config, Log, Sgd
from imagenet_repro.training import log

RESULT = {
    "rates": {"top1_error": 0.25, "top5_error": 0.125, "cross_entropy": 1.5, "images": 42},
    "spent": {"images": 96, "epochs": 1.5, "flops": 1e9, "seconds": 3.0},
    "compilation_seconds": 2.0,
    "parameters": 1000,
    "multiply_adds": 2000,
}


def config(*names, **changes):
    """Return a configuration whose log goes to trackers."""
    return dataclasses.replace(Config(name="mine", seed=3, log=Log(names), optimizer=Sgd()), **changes)


def loss(step):
    """Return the loss that an invented run has at a step."""
    return 1.0 + 1.0 / step


def train(workdir, names, first, last, *, finished=False, **changes):
    """Log the steps from `first` to `last` with an evaluation every third, as a process that starts at `first`."""
    run_log = log.RunLog(workdir, first - 1, config(*names, **changes))
    for step in range(first, last + 1):
        run_log.write("event", step, event="plateau", scale=0.1)
        run_log.write("train", step, progress=0.5, seconds=float(step), loss=loss(step))
        if step % 3 == 0:
            run_log.write("eval", step, top1_error=1.0 / step, top5_error=float("nan"))
    if finished:
        run_log.finish(RESULT)
    run_log.close()

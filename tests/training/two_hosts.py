"""A program that tests run in two processes, as on two hosts: `python -m tests.training.two_hosts DIRECTORY`.

Each process writes what it saw to DIRECTORY/PROCESS.json. All scenarios share one start, which takes seconds.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import signal
import sys
import time
import types
from pathlib import Path
from unittest import mock

import jax
import numpy as np
from jax.experimental import multihost_utils

from imagenet_repro.config.amount import Amount
from imagenet_repro.data.bad_records import BadRecords
from imagenet_repro.training import checkpoint, clock, devices, fitting, log, loop, memory, parallel, seals
from imagenet_repro.training.budget import Budget, Meter
from imagenet_repro.training.clock import Agreement
from imagenet_repro.training.learning_rate import LearningRate
from tests.training import small_network

STEPS, STOP_AT = 12, 5
CONFIG = small_network.config(
    budget=f"{STEPS}st", evaluate_every="6st", checkpoint={"every": "3st", "keep": 20}, log_every=100
)
SECONDS = "1s"


@functools.cache
def spread():
    return parallel.create("shard_map")


def host_batch(number):
    """Return this process's half of a batch."""
    share = CONFIG.batch_size // jax.process_count()
    rows = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
    return {name: value[rows] for name, value in small_network.batch(number).items()}


def agreement(timed):
    return Agreement(spread().put_batch, CONFIG.batch_size // jax.process_count(), timed=timed)


@functools.cache
def compiled():
    step, first = small_network.make(CONFIG)
    batch = spread().put_batch(host_batch(0)) | agreement(False).entry(0.0, False)
    return spread().compile_training(step, spread().put_state(first), batch)


def train(workdir, budget, *, stop_at=None, delay=0.0):
    """Train from the last checkpoint to the end; process 1 alone waits for batches and receives a signal at a step."""
    checkpoints = checkpoint.Checkpoints(workdir / "checkpoints", keep=20)
    fresh = spread().put_state(small_network.make(CONFIG)[1])
    restored = checkpoints.restore(fresh)
    meter, rates = Meter(CONFIG.batch_size, 100, 1000), []
    spent = meter.spent(restored.info["steps"] if restored else 0, 0.0)

    def batches():
        for number in range(spent.steps, 100_000):
            if jax.process_index() == 1:
                time.sleep(delay)
                if number + 1 == stop_at:
                    os.kill(os.getpid(), signal.SIGTERM)
            yield host_batch(number % STEPS), spread().put_batch(host_batch(number % STEPS))

    class Rates(LearningRate):
        def __call__(self, progress):
            rates.append(float(super().__call__(progress)))
            return np.float32(rates[-1])

    config = dataclasses.replace(CONFIG, budget=budget)
    outcome = loop.run(
        loop.TrainingJob(
            config=config,
            state=restored.state if restored else fresh,
            steps=[compiled()],
            batches=batches(),
            evaluate=lambda state, last: {"top1_error": 0.9, "top5_error": 0.5, "evaluated": 42},
            name_images=lambda index: [],
            budget=Budget(Amount.parse(budget), meter),
            spent=spent,
            checkpoints=checkpoints,
            bad_records=mock.Mock(spec=BadRecords, **{"update.return_value": []}),
            log=mock.MagicMock(spec=log.RunLog, is_due=False),
            known=restored.info if restored else {},
            learning_rate=Rates(0.1, CONFIG.schedule),
            agreement=agreement(Amount.parse(budget).unit == "s"),
        )
    )
    checkpoints.close()
    content = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(jax.device_get(outcome.state.params)))
    return {
        "steps": outcome.spent.steps,
        "seconds": outcome.spent.seconds,
        "stopped_by": outcome.stopped_by,
        "rates": rates,
        "params": hashlib.sha256(content).hexdigest(),
    }


def restore(workdir):
    """Restore the last good checkpoint and save the damaged step again.

    Return the restored step, the messages, how many files this process checksummed, and the steps at the end.
    """
    said, read = [], []
    original = seals._crc
    with mock.patch.object(seals, "_crc", lambda path: (read.append(path), original(path))[1]):
        checkpoints = checkpoint.Checkpoints(workdir / "checkpoints", keep=20, say=said.append)
        result = checkpoints.restore(spread().put_state(small_network.make(CONFIG)[1]))
    checkpoints.save(STEPS, result.state, {"steps": STEPS, "seconds": 1.0})
    checkpoints.close()
    return {"step": result.step, "said": said, "read": len(read), "steps": checkpoints.steps()}


def damage(step):
    file = max((p for p in (step / "state").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def clock_of_this_process():
    """Return a clock that advances whenever it is read, by twice as much in the second process as in the first."""
    readings = itertools.count()
    return types.SimpleNamespace(perf_counter=lambda: 0.05 * (1 + jax.process_index()) * next(readings))


def train_by_clock(workdir):
    with mock.patch.object(clock, "time", clock_of_this_process()):
        return train(workdir, SECONDS, delay=0.01)


def least_memory():
    """Return what is free on both hosts and the limit of their devices, which is less in the second process."""
    own = 80_000_000_000 - 1000 * jax.process_index()
    device = types.SimpleNamespace(memory_stats=lambda: {"bytes_limit": own})
    with mock.patch.object(memory, "free_on_host", return_value=own):
        on_hosts = memory.free()
    with mock.patch.object(fitting, "jax", types.SimpleNamespace(local_devices=lambda: [device])):
        return on_hosts, fitting.device_limit()


def main(directory):
    devices.start()
    seen = {
        "whole": train(directory / "whole", f"{STEPS}st"),
        "stopped": train(directory / "stopped", f"{STEPS}st", stop_at=STOP_AT),
        "resumed": train(directory / "stopped", f"{STEPS}st"),
        "timed": train_by_clock(directory / "timed"),
        "memory": least_memory(),
    }
    if jax.process_index() == 0:
        damage(directory / "whole" / "checkpoints" / str(STEPS))
    multihost_utils.sync_global_devices("damaged")
    seen["damaged"] = restore(directory / "whole")
    (directory / f"{jax.process_index()}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

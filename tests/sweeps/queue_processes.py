"""What tests have other processes do with a queue."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

import sqlalchemy

from imagenet_repro.config.sweep import resolve_sweep
from imagenet_repro.sweeps import queue

IDENTITY = "one"
# A clean process from which others are forked: JAX, which the tests' set-up imports, must not be.
PROCESSES = multiprocessing.get_context("forkserver")
LATER = ("alembic.command", "alembic.script", "optuna.storages._rdb.models", "sqlalchemy.dialects.sqlite")
PROCESSES.set_forkserver_preload(["pytest", "tests.sweeps.queue_processes", *LATER])  # once, and not by each process

_met = {}  # what this process was given when it began


def opened(url, settings):
    return queue.SweepQueue(url, resolve_sweep(settings), IDENTITY)


def meet(barrier):
    _met["barrier"] = barrier


def together(number, function, *arguments):
    """What so many processes return for one function, which each begins when all have come to the barrier."""
    with ProcessPoolExecutor(number, PROCESSES, initializer=meet, initargs=(PROCESSES.Barrier(number),)) as pool:
        return [one.result() for one in [pool.submit(function, *arguments) for _ in range(number)]]


def claim_all(url, settings, immediate):
    """Names of all that this process could claim, whose writes come a while after what they rest on was read."""
    if not immediate:
        queue._lock_at_once = lambda engine: None
    mine = opened(url, settings)

    @sqlalchemy.event.listens_for(mine.storage.engine, "before_cursor_execute")
    def _(_connection, _cursor, statement, *_rest):
        if statement.startswith("UPDATE trials"):
            time.sleep(0.02)

    _met["barrier"].wait()
    claims = iter(lambda: mine.claim("somebody"), None)
    return [claim.planned.name for claim in claims]


def recover(url, settings):
    mine = opened(url, settings)
    _met["barrier"].wait()
    mine.requeue_lost()


def hold(pipe, url, settings, beats):
    """Claims the first training, tells which and with what, and holds it until it is killed."""
    queue.HEARTBEAT = 1
    mine = opened(url, settings)
    claim = mine.claim("doomed")
    if not beats:
        pipe.send((claim.planned.name, claim.settings))
        time.sleep(600)
    with mine.send_heartbeats(claim):
        pipe.send((claim.planned.name, claim.settings))
        time.sleep(600)

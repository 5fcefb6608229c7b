"""Functions that tests run in other processes, which share one queue."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

import sqlalchemy

from imagenet_repro.config.sweep import resolve_sweep
from imagenet_repro.sweeps import queue

IDENTITY = "one"
# The test processes fork from a clean process, because a process that has imported JAX must not be forked.
PROCESSES = multiprocessing.get_context("forkserver")
# Imported once in that process, and not again in each fork.
SLOW_IMPORTS = ("alembic.command", "alembic.script", "optuna.storages._rdb.models", "sqlalchemy.dialects.sqlite")
PROCESSES.set_forkserver_preload(["pytest", "tests.sweeps.queue_processes", *SLOW_IMPORTS])

_shared = {}  # the barrier of this process


def open_queue(url, settings):
    return queue.SweepQueue(url, resolve_sweep(settings), IDENTITY)


def share_barrier(barrier):
    _shared["barrier"] = barrier


def run_together(n_processes, function, *arguments):
    """Run a function in several processes, which start together at a barrier, and return their results."""
    barrier = PROCESSES.Barrier(n_processes)
    with ProcessPoolExecutor(n_processes, PROCESSES, initializer=share_barrier, initargs=(barrier,)) as pool:
        futures = [pool.submit(function, *arguments) for _ in range(n_processes)]
        return [future.result() for future in futures]


def claim_all(url, settings, immediate):
    """Return the names of all runs that this process could claim.

    Every write waits a moment after the read on which it is based, to give other processes time for the same read.
    """
    if not immediate:
        queue._begin_immediate = lambda engine: None
    own_queue = open_queue(url, settings)

    @sqlalchemy.event.listens_for(own_queue.storage.engine, "before_cursor_execute")
    def _(_connection, _cursor, statement, *_rest):
        if statement.startswith("UPDATE trials"):
            time.sleep(0.02)

    _shared["barrier"].wait()
    claims = iter(lambda: own_queue.claim("somebody"), None)
    return [claim.planned.name for claim in claims]


def requeue_lost(url, settings):
    own_queue = open_queue(url, settings)
    _shared["barrier"].wait()
    own_queue.requeue_lost()


def claim_and_wait(pipe, url, settings, with_heartbeats):
    """Claim the first run, send its name and settings, and keep it until this process is killed."""
    queue.HEARTBEAT = 0.1
    own_queue = open_queue(url, settings)
    claim = own_queue.claim("doomed")
    if not with_heartbeats:
        pipe.send((claim.planned.name, claim.settings))
        time.sleep(600)
    with own_queue.send_heartbeats(claim):
        pipe.send((claim.planned.name, claim.settings))
        time.sleep(600)

"""`main.py compare --watch`: write a comparison again whenever its runs have changed, until all have ended."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from imagenet_repro.report import collect
from imagenet_repro.storage.workdir import Workdir
from imagenet_repro.sweeps.controller import open_queue
from imagenet_repro.sweeps.directory import SweepDirectory

SECONDS = 10.0  # between two looks, at the least
LARGEST_SHARE = 0.1  # of the time that writing may take

OPEN = ("waiting", "running")


def watch(workdirs: Sequence[str], storage: str, write: Callable[[], Any]) -> None:
    """Call `write` now and whenever a log, a result or predictions have changed; return when all runs have ended.

    Writing takes at most a tenth of the time, however large the comparison is. Ctrl-C ends it, once it has written.

    Args:
      workdirs: workdirs of runs, or that of one sweep.
      storage: URL of the sweep's trials, if it has a password.
      write: writes the pages; called again, it does again only what has changed.
    """
    console, seen = Console(highlight=False), None
    try:
        while True:
            now, n_open = look(workdirs, storage)
            took = 0.0
            if now != seen:
                took = _write(console, write)
                seen = now
                if not n_open:
                    return
                runs = "1 run" if n_open == 1 else f"{n_open} runs"
                console.print(f"watching {runs}; Ctrl-C ends this and stops no run", markup=False)
            time.sleep(max(SECONDS, took / LARGEST_SHARE - took))
    except KeyboardInterrupt:
        if seen is None:
            raise
        console.print("no longer watched; the page shows the runs as they were", markup=False)


def look(workdirs: Sequence[str], storage: str) -> tuple[tuple[Any, ...], int]:
    """Return what changes when a run writes something, and the number of runs that have not ended."""
    directory = SweepDirectory(workdirs[0])
    if len(workdirs) > 1 or not directory.exists:
        runs = [Workdir(path) for path in workdirs]
        return tuple(map(collect.version, runs)), sum(not run.is_finished for run in runs)
    statuses = open_queue(directory, storage).statuses()
    versions = tuple(
        (one.state, collect.version(Workdir(Path(directory.path) / one.planned.name))) for one in statuses
    )
    return versions, sum(one.state in OPEN for one in statuses)


def _write(console: Console, write: Callable[[], Any]) -> float:
    """Write the pages; return the seconds that it took."""
    began = time.monotonic()
    if console.is_terminal:
        console.clear()
    write()
    return time.monotonic() - began

"""Runs whose reading process is killed: they save, say so, and the same command continues."""

import os
import signal
import threading
import time
from pathlib import Path

from benchmarks.fault_parts import outcome, recipe, warm
from benchmarks.fault_parts.bench import numbers

PART = "killed loader processes"
STEPS = 120
OVERRIDES = ("--config.data.workers=1", f"--config.budget={STEPS}st", "--config.evaluate_every=60st")


def kill_loaders(bench, tries):
    """Kill the loader process of a network's run at a random time after its first step."""
    expected = None
    for name in bench.tries(PART, [f"try {number}" for number in range(tries)]):
        if expected is None:
            expected = _run(bench, bench.folder / "unharmed" / "loader")[1]
        with bench.workdir(PART, name) as (workdir, broken):
            wait = warm.generator(PART, name).uniform(0, 1)
            killer = threading.Thread(target=_kill_loader, args=(workdir, wait), daemon=True)
            killer.start()
            ended, _ = _run(bench, workdir)
            if ended.code != 75 or "which reads images, was ended by SIGKILL" not in ended.message:
                broken.append(f"exit code {ended.code}: {ended.message}")
            if "is saved" not in ended.message:
                broken.append(f"nothing saved: {ended.message}")
            ended, found = _run(bench, workdir)
            if ended.code:
                broken.append(f"exit code {ended.code} after a resume: {ended.message}")
            elif wrong := outcome.differences(found, expected):
                broken.append(f"{len(wrong)} numbers differ, such as {wrong[0]}")
            bench.record(PART, name, broken)


def _run(bench, workdir):
    ended = bench.train(recipe.NETWORK, workdir, overrides=OVERRIDES)
    return ended, numbers(workdir) if ended.code == 0 else {}


def _kill_loader(workdir, wait):
    """Kill the loader process of the only run below this process, some seconds after its first step."""
    log = Path(workdir) / "metrics.jsonl"
    while not (log.exists() and log.stat().st_size):
        time.sleep(0.05)
    time.sleep(wait)
    for pid in _descendants(os.getpid()):
        if b"multiprocessing.spawn" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


def _descendants(parent):
    children = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(words[1]), []).append(int(process.name))
    found, waiting = [], [parent]
    while waiting:
        own = children.get(waiting.pop(), [])
        found += own
        waiting += own
    return found

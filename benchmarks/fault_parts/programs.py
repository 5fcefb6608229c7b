"""Processes that run `main.py` as a user starts it: for sweeps and for runs on two hosts, which cannot be forks."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def start(arguments, output, **environment):
    """Start `main.py ARGUMENTS` with its output in a file, and return the process."""
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    variables = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    with output.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, str(REPOSITORY / "main.py"), *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=variables | environment,
        )


def wait_until(condition, seconds, process=None):
    """Return the first true value of a condition; None after some seconds, or once a process has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        if process is not None and process.poll() is not None:
            return None
        time.sleep(0.05)
    return None


def wait(process, seconds):
    """Return the exit code of a process, which is killed after some seconds."""
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None


def kill(process):
    """Kill a process by SIGKILL."""
    process.send_signal(signal.SIGKILL)
    process.wait()


def rows(workdir):
    """Return the number of rows in the log of a run."""
    log = Path(workdir) / "metrics.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def last_line(output):
    """Return the last line of an output that is not empty."""
    lines = [line for line in Path(output).read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""

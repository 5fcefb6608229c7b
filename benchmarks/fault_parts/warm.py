"""Runs that start in milliseconds: forks of this process, which has imported everything and started no device.

This process is loaded with killer.c, so that a fork can be killed at one of the operations on its files.
"""

import atexit
import contextlib
import ctypes
import dataclasses
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
RECIPE = FOLDER / "recipe.py"
LIBRARY = "FAULTS_KILLER"  # environment variable: the compiled killer.c
PATIENCE = 300.0  # seconds after which a run hangs
NEVER = 0
IMPORTED = (
    "altair",
    "grain",
    "orbax.checkpoint",
    "scipy.stats",
    "tensorstore",
    "vl_convert",
    "imagenet_repro.cli.main",
    "imagenet_repro.report.plots.curves",
    "imagenet_repro.runs.train",
)


def prepare(cache):
    """Start this program again with killer.c loaded, and with its own directory of compiled programs."""
    if LIBRARY in os.environ:
        return
    library = Path(cache) / "killer.so"
    library.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", FOLDER / "killer.c", "-o", library, "-ldl"], check=True)
    changes = {
        LIBRARY: str(library),
        "LD_PRELOAD": str(library),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(Path(cache) / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_ENABLE_COMPILATION_CACHE": "1",
        "XDG_CACHE_HOME": str(Path(cache) / "home"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "GRPC_VERBOSITY": "ERROR",
    }
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | changes)


def import_everything():
    """Import what a run imports, so that its forks need not."""
    for name in IMPORTED:
        importlib.import_module(name)


@dataclasses.dataclass
class Ended:
    """The end of a run: its exit code (negative: a signal), output, seconds, and the operations that it did."""

    code: int
    output: str
    seconds: float
    operations: list[str]

    @property
    def message(self):
        """The last line of the output."""
        lines = [line for line in self.output.splitlines() if line.strip()]
        return lines[-1] if lines else ""

    @property
    def paragraph(self):
        """The last paragraph of the output, which is the message of an error."""
        return self.output.strip().split("\n\n")[-1]


def start(arguments, workdir, *, kill_at=NEVER, kill_after=None, then: Callable | None = None):
    """Run `main.py ARGUMENTS` in a fork and return its end.

    Args:
      arguments: the words after `main.py`.
      workdir: the directory whose operations count.
      kill_at: the number of the operation at which the run is killed.
      kill_after: seconds after which it is killed.
      then: called in the fork after the command has ended with code 0.
    """
    workdir = Path(workdir)
    workdir.parent.mkdir(parents=True, exist_ok=True)
    output, trace = _logs(workdir)
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _run(arguments, workdir, kill_at, then)
    code = _wait(pid, kill_after)
    seconds = time.monotonic() - began
    operations = trace.read_text(encoding="utf-8").splitlines() if trace.exists() else []
    return Ended(code, output.read_text(encoding="utf-8", errors="replace"), seconds, operations)


def _logs(workdir):
    """Return the files for the output of a run and for the names of its operations."""
    return Path(f"{workdir}.output"), Path(f"{workdir}.operations")


def _run(arguments, workdir, kill_at, then):
    """Run the command in the fork, and end it as Python ends a process."""
    output, trace = _logs(workdir)
    code = 70
    try:
        for number, path in ((1, output), (2, output)):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if number == 1 else 0))
            os.dup2(fd, number)
        sys.stdin.close()
        sys.argv = ["main.py", *arguments]
        log = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        ctypes.CDLL(os.environ[LIBRARY]).faults_arm(os.fsencode(workdir), kill_at, log)
        from imagenet_repro.cli import main

        code = main.main(arguments)
        if code == 0 and then is not None:
            then()
        atexit._run_exitfuncs()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _wait(pid, kill_after):
    """Return the exit code of a process, which is killed after some seconds."""
    deadline = time.monotonic() + (PATIENCE if kill_after is None else kill_after)
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            deadline += PATIENCE
        time.sleep(0.005)


def train_arguments(kind, data_dir, workdir):
    """Return the arguments of a run."""
    return ["train", f"--config={RECIPE}:{kind},{data_dir}", f"--workdir={workdir}"]


def prepare_data(directory):
    """Prepare the data set of the runs unless it is there."""
    from benchmarks.fault_parts import recipe

    values = {
        "categories": recipe.CATEGORIES,
        "train_images": recipe.TRAIN_IMAGES,
        "validation_images": recipe.VALIDATION_IMAGES,
        "size": 32,
    }
    words = [f"--fractal.{name}={value}" for name, value in values.items()]
    ended = start(["prepare", "fractal", f"--data_dir={directory}", *words], Path(directory) / "prepared")
    if ended.code:
        sys.exit(ended.output)


def generator(*words):
    """Return random numbers that follow from the name of a try."""
    return random.Random(" ".join(map(str, words)))


def dump(path, value):
    """Write a JSON value."""
    Path(path).write_text(json.dumps(value), encoding="utf-8")


def load(path):
    """Return the JSON value of a file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))

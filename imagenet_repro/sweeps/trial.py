"""One training of a sweep in a process of its own: `python -m imagenet_repro.sweeps.trial CONFIG.json WORKDIR`.

A worker starts it, so that a crash or a lack of memory ends this training and not the worker, and so that devices are
free again at its end. Exit codes are those of `main.py train`.
"""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

from imagenet_repro.errors import EXIT_STOPPED, UserError

PARENT = "IMAGENET_REPRO_WORKER"  # in the environment: the process that started this one
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def main(config: str, workdir: str) -> int:
    """Trains, or goes on; returns the exit code."""
    # SLURM signals every process of a job. The worker answers its warning, and passes on what comes here besides.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    if _orphaned():
        return EXIT_STOPPED
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from imagenet_repro.config import resolve_config
    from imagenet_repro.runs.train import train
    from imagenet_repro.training.clock import StopSignal

    StopSignal.insistent = False
    try:
        return train(resolve_config(json.loads(Path(config).read_text())), workdir)
    except UserError as error:
        print(f"\n{error}", file=sys.stderr)
        return error.exit_code


def _orphaned() -> bool:
    """Asks Linux for a SIGTERM when the worker dies, however it does; whether it is dead already.

    Elsewhere a training goes on without its worker, and another worker waits for its end (`Workdir.free`).
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    return os.getppid() != int(os.environ.get(PARENT, os.getppid()))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

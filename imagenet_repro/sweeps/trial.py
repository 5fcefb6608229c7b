"""Run one training run of a sweep in its own process: `python -m imagenet_repro.sweeps.trial CONFIG.json WORKDIR`.

A worker starts this process, so that a crash or a lack of memory ends the training run and not the worker, and so
that the devices are free again when it ends. Exit codes are those of `main.py train`.
"""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

from imagenet_repro.errors import EXIT_FINISHED, EXIT_STOPPED, InterruptedRunError, UserError
from imagenet_repro.storage import encoding

PARENT = "IMAGENET_REPRO_WORKER"  # environment variable: the process id of the worker that started this process
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def main(config: str, workdir: str) -> int:
    """Train, or resume training, and return the exit code.

    Args:
      config: path of the run's configuration as JSON.
      workdir: the run's directory.
    """
    # SLURM signals every process of a job. The worker reacts to SLURM's warning and stops this process by SIGTERM.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    if _is_orphaned():
        return EXIT_STOPPED
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    encoding.escape_what_a_terminal_lacks()
    from imagenet_repro.config import resolve_config
    from imagenet_repro.runs.train import train
    from imagenet_repro.training.clock import StopSignal

    StopSignal.insistent = False
    try:
        train(resolve_config(json.loads(Path(config).read_text(encoding="utf-8"))), workdir)
    except InterruptedRunError as stopped:
        print(stopped)
        return stopped.exit_code
    except UserError as error:
        print(f"\n{error}", file=sys.stderr)
        return error.exit_code
    return EXIT_FINISHED


def _is_orphaned() -> bool:
    """Ask Linux for a SIGTERM when the worker dies, and return whether it is dead already.

    On other systems a training run continues without its worker, and the next worker waits for it to end
    (`Workdir.is_locked`).
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    return os.getppid() != int(os.environ.get(PARENT, os.getppid()))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

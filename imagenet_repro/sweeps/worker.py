"""Worker process of a sweep: runs one claimed run after another until none waits, and can be stopped at any moment."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from imagenet_repro.config import config_to_dict
from imagenet_repro.errors import EXIT_DIVERGED, EXIT_FINISHED, EXIT_SAVE_FAILED, EXIT_STOPPED, UserError
from imagenet_repro.storage import locks
from imagenet_repro.storage.json_files import write_json
from imagenet_repro.storage.workdir import LOCK, Workdir, refuse_other_config
from imagenet_repro.sweeps import trial
from imagenet_repro.sweeps.directory import PLANNED, SweepDirectory
from imagenet_repro.sweeps.plan import build_run_config
from imagenet_repro.sweeps.queue import ClaimedRun, SweepQueue
from imagenet_repro.sweeps.retry import retry_unreachable
from imagenet_repro.sweeps.status import OUTPUT

POLL = 2.0  # seconds between two looks at the queue
STORAGE = "IMAGENET_REPRO_STORAGE"  # environment variable: the URL of the trials; submitit stores arguments in files
DIVERGED = 1.0  # the error rate of a trial whose loss was not finite, so that no other setting is worse

Answer = TypeVar("Answer")


class Worker:
    """A worker that submitit starts on this or another machine, with the storage's URL in the environment.

    Args:
      directory: the sweep's directory.
      slot: the number of this worker, from zero.
    """

    def __init__(self, directory: str, slot: int):
        self.directory, self.slot = directory, slot
        self._is_stopping = False
        self._process: subprocess.Popen | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"directory": self.directory, "slot": self.slot}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def __call__(self) -> int:
        """Work until no run waits.

        Returns:
          EXIT_FINISHED. If work is left, the process exits with another code of errors.py instead.
        """
        directory = SweepDirectory(self.directory)
        # Installed first, because a process that finds this one through its slot may stop it at once.
        signal.signal(signal.SIGTERM, self._stop)
        with directory.worker_slot(self.slot) as is_acquired:
            if not is_acquired:
                print(f"worker {self.slot} is already running")
                return EXIT_FINISHED
            try:
                code = self._work(directory)
            except UserError as error:
                print(error, file=sys.stderr)
                code = error.exit_code
        if code != EXIT_FINISHED:
            sys.exit(code)  # submitit treats any returned value as success, even if SLURM restarts the job
        return code

    def checkpoint(self) -> Any:
        """Stop the training run and ask to be resubmitted; submitit calls this before a cluster takes the machine.

        It is called within a signal handler, so the process may be anywhere: it acquires no lock and does not access
        the storage. submitit then ends the process by SystemExit, and `_train` returns the run to the queue.
        """
        import submitit

        self._stop(signal.SIGUSR2, None)
        if self._process is not None:
            with contextlib.suppress(ChildProcessError):
                # `Popen.wait` may be interrupted while it holds its lock, so the process is not waited for through it.
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return submitit.helpers.DelayedSubmission(self)

    def _stop(self, _number: int, _frame: Any) -> None:
        self._is_stopping = True
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def _work(self, directory: SweepDirectory) -> int:
        url = os.environ.get(STORAGE, directory.storage())
        queue = self._retry(lambda: SweepQueue(url, directory.sweep(), directory.identity()))
        while not self._is_stopping:
            claim = self._retry(lambda: self._claim_next(queue))
            if claim is not None:
                code = self._train(directory, queue, claim)
                if code == EXIT_SAVE_FAILED:
                    return code
            elif any(run.state == "waiting" for run in self._retry(queue.statuses)):
                time.sleep(POLL)  # final runs whose search is about to be completed by other workers
            else:
                return EXIT_FINISHED
        return EXIT_STOPPED

    def _retry(self, call: Callable[[], Answer]) -> Answer:
        return retry_unreachable(call, lambda: self._is_stopping)

    def _claim_next(self, queue: SweepQueue) -> ClaimedRun | None:
        queue.requeue_lost()
        return queue.claim(worker_name(self.slot))

    def _train(self, directory: SweepDirectory, queue: SweepQueue, claim: ClaimedRun) -> int:
        workdir = Workdir(directory.path / claim.planned.name)
        try:
            with queue.send_heartbeats(claim):
                code, message = self._run(queue, claim, workdir)
        except SystemExit:  # raised by submitit after `checkpoint`
            queue.requeue(claim)
            raise
        self._retry(lambda: self._report(queue, claim, workdir, code, message))
        return code

    def _run(self, queue: SweepQueue, claim: ClaimedRun, workdir: Workdir) -> tuple[int, str]:
        """Run a claimed run and return its exit code and its last message."""
        try:
            config = build_run_config(queue.sweep, claim.planned, claim.settings)
            self._wait_until_free(workdir)
            if workdir.is_finished:
                # Without the trials of before, such as a damaged storage's, the settings could be others.
                refuse_other_config(workdir.path, workdir.config(), config)
                return EXIT_FINISHED, ""
            if self._is_stopping:
                return EXIT_STOPPED, ""
            with contextlib.suppress(UserError):  # it only informs, so a storage that does not answer matters later
                queue.record_successor(claim, worker_name(self.slot), _last_step(workdir))
            write_json(workdir.path / PLANNED, config_to_dict(config))
        except UserError as error:
            return error.exit_code, str(error)
        return self._run_process(workdir.path)

    def _wait_until_free(self, workdir: Workdir) -> None:
        """Wait for the process of a lost worker, which may still be saving a checkpoint; `--status` shows its name."""
        if workdir.is_locked and not self._is_stopping:
            holder = locks.describe_owner(workdir.path / LOCK)
            with (workdir.path / OUTPUT).open("a", encoding="utf-8") as output:
                print(f"waiting for {holder}, which uses this directory", file=output)
        while workdir.is_locked and not self._is_stopping:
            time.sleep(POLL)

    def _run_process(self, directory: Path) -> tuple[int, str]:
        log = directory / OUTPUT
        command = [sys.executable, "-m", "imagenet_repro.sweeps.trial", str(directory / PLANNED), str(directory)]
        environment = os.environ | {trial.PARENT: str(os.getpid()), "PYTHONPATH": python_path()}
        environment.pop(STORAGE, None)  # the process does not access the storage
        with log.open("ab") as output:
            log_start = output.tell()
            # A new session keeps Ctrl-C in a terminal from the process, which gets it once, through the worker.
            self._process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
            if self._is_stopping:
                self._process.terminate()
            code = self._process.wait()
        self._process = None
        return code, _last_message(log, log_start)

    def _report(self, queue: SweepQueue, claim: ClaimedRun, workdir: Workdir, code: int, message: str) -> None:
        """Update the queue with the outcome of a run."""
        if code == EXIT_FINISHED:
            self._complete(queue, claim, workdir)
        elif code == EXIT_DIVERGED and claim.planned.is_trial:
            queue.complete(claim, DIVERGED)
        elif code == EXIT_SAVE_FAILED or self._is_stopping:
            # While stopping, any exit code can occur, since a run may fail when its reading processes are ended.
            queue.requeue(claim)
        elif code == EXIT_STOPPED:  # not by this worker: by somebody else, or because one of its processes was killed
            queue.requeue_after_crash(claim, message)
        elif code < 0:
            queue.requeue_after_crash(claim, _describe_crash(signal.Signals(-code), message))
        else:
            queue.fail(claim, message or f"ended with exit code {code}")

    def _complete(self, queue: SweepQueue, claim: ClaimedRun, workdir: Workdir) -> None:
        try:
            rates = workdir.result()["rates"]
        except UserError as error:
            queue.fail(claim, str(error))
            return
        queue.complete(claim, rates[queue.sweep.search.metric if claim.planned.is_trial else "top1_error"])


def _last_step(workdir: Workdir) -> int:
    """Return the step of the last checkpoint of a run, from which it continues; 0 without one."""
    names = [path.name for path in workdir.checkpoints.iterdir()] if workdir.checkpoints.is_dir() else []
    return max((int(name) for name in names if name.isdecimal()), default=0)  # others are not complete


def worker_name(slot: int) -> str:
    """Return the name under which this machine's worker of a slot claims runs."""
    return f"{socket.gethostname()}/{slot}"


def python_path() -> str:
    """Return a PYTHONPATH with which a process that starts anywhere imports this package."""
    root = str(Path(__file__).parents[2])
    return os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))


def _describe_crash(number: signal.Signals, message: str) -> str:
    """Describe how a process was ended by a signal; after SIGKILL its last line only shows its progress."""
    if number != signal.SIGKILL:
        return f"ended by {number.name}; {message}"
    _, _, last_line = message.rpartition("\n")
    return f"ended by SIGKILL, possibly because memory ran out; its last line: {last_line}"


def _last_message(log: Path, start: int) -> str:
    """Return the last paragraph of a log after a byte offset, which is the error message of a failed process."""
    with log.open("rb") as file:
        file.seek(start)
        text = file.read().decode(errors="replace").strip()
    return text.split("\n\n")[-1][-1000:]

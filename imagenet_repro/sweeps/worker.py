"""A worker: takes one training after the other from the queue until none waits, and can be stopped at any moment."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imagenet_repro.config import config_to_dict
from imagenet_repro.errors import EXIT_DIVERGED, EXIT_FINISHED, EXIT_SAVE_FAILED, EXIT_STOPPED, UserError
from imagenet_repro.storage.workdir import Workdir, write_json
from imagenet_repro.sweeps import trial
from imagenet_repro.sweeps.directory import SweepDirectory
from imagenet_repro.sweeps.plan import build_run_config
from imagenet_repro.sweeps.queue import ClaimedRun, SweepQueue
from imagenet_repro.sweeps.retry import retry_unreachable
from imagenet_repro.sweeps.status import OUTPUT

POLL = 2.0  # seconds
STORAGE = "IMAGENET_REPRO_STORAGE"  # in the environment: the URL of the trials; submitit keeps arguments in files
CONFIG = "planned.json"  # in a training's workdir
DIVERGED = 1.0  # the error of a trial whose loss was not finite: no setting is worse


class Worker:
    """What submitit starts, here or on another machine, with the URL of the storage in the environment.

    Args:
      directory: of the sweep.
      slot: of this worker, from zero.
    """

    def __init__(self, directory: str, slot: int):
        self.directory, self.slot = directory, slot
        self._stopping = False
        self._child: subprocess.Popen | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"directory": self.directory, "slot": self.slot}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def __call__(self) -> int:
        """Works until nothing waits; ends the process with an exit code of errors.py where something is left."""
        place = SweepDirectory(self.directory)
        signal.signal(signal.SIGTERM, self._stop)  # first: who finds this process by its slot may end it
        with place.slot(self.slot) as free:
            if not free:
                print(f"worker {self.slot} is there already")
                return EXIT_FINISHED
            try:
                code = self._work(place)
            except UserError as error:
                print(error, file=sys.stderr)
                code = error.exit_code
        if code != EXIT_FINISHED:
            sys.exit(code)  # submitit takes any return for success, also of a job that SLURM starts again
        return code

    def checkpoint(self) -> Any:
        """What submitit calls before a cluster takes the machine away: has the training save, asks to be begun again.

        It is called within a signal's handler, so the process may be anywhere: it takes no lock and asks no storage.
        submitit then ends the process by SystemExit, and `_train` puts back what it had.
        """
        import submitit

        self._stop(signal.SIGUSR2, None)
        if self._child is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT)  # `Popen.wait` may hold its lock
        return submitit.helpers.DelayedSubmission(self)

    def _stop(self, _number: int, _frame: Any) -> None:
        self._stopping = True
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()

    def _work(self, place: SweepDirectory) -> int:
        url = os.environ.get(STORAGE, place.storage())
        queue = self._patiently(lambda: SweepQueue(url, place.sweep(), place.identity()))
        while not self._stopping:
            claim = self._patiently(lambda: self._next(queue))
            if claim is not None:
                code = self._train(place, queue, claim)
                if code == EXIT_SAVE_FAILED:
                    return code
            elif any(one.state == "waiting" for one in self._patiently(queue.statuses)):
                time.sleep(POLL)  # runs whose search other workers are about to complete
            else:
                return EXIT_FINISHED
        return EXIT_STOPPED

    def _patiently(self, call: Callable[[], Any]) -> Any:
        return retry_unreachable(call, lambda: self._stopping)

    def _next(self, queue: SweepQueue) -> ClaimedRun | None:
        queue.requeue_lost()
        return queue.claim(f"{socket.gethostname()}/{self.slot}")

    def _train(self, place: SweepDirectory, queue: SweepQueue, claim: ClaimedRun) -> int:
        run = Workdir(place.path / claim.planned.name)
        try:
            with queue.send_heartbeats(claim):
                code, why = self._run(queue, claim, run)
        except SystemExit:  # of submitit, after `checkpoint`
            queue.requeue(claim)
            raise
        self._patiently(lambda: self._settle(queue, claim, run, code, why))
        return code

    def _run(self, queue: SweepQueue, claim: ClaimedRun, run: Workdir) -> tuple[int, str]:
        """Exit code of the training, and the end of what it said."""
        try:
            config = build_run_config(queue.sweep, claim.planned, claim.settings)
            self._wait_until_free(run)
            if run.finished or self._stopping:
                return (EXIT_FINISHED if run.finished else EXIT_STOPPED), ""
            write_json(run.path / CONFIG, config_to_dict(config))
        except UserError as error:
            return error.exit_code, str(error)
        return self._start(run.path)

    def _wait_until_free(self, run: Workdir) -> None:
        """A training whose worker was lost may still be saving."""
        while run.taken and not self._stopping:
            time.sleep(POLL)

    def _start(self, directory: Path) -> tuple[int, str]:
        log = directory / OUTPUT
        command = [sys.executable, "-m", "imagenet_repro.sweeps.trial", str(directory / CONFIG), str(directory)]
        root = Path(__file__).parents[2]
        environment = os.environ | {trial.PARENT: str(os.getpid()), "PYTHONPATH": _with(root)}
        environment.pop(STORAGE, None)  # a training has no use for it
        with log.open("ab") as output:
            began = output.tell()
            # A session of its own: Ctrl-C in a terminal reaches it once, through the worker.
            self._child = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
            if self._stopping:
                self._child.terminate()
            code = self._child.wait()
        self._child = None
        return code, _last_words(log, began)

    def _settle(self, queue: SweepQueue, claim: ClaimedRun, run: Workdir, code: int, why: str) -> None:
        """Tells the queue what came of a training."""
        if code == EXIT_FINISHED:
            self._finish(queue, claim, run)
        elif code == EXIT_DIVERGED and claim.planned.is_trial:
            queue.complete(claim, DIVERGED)
        elif code in (EXIT_STOPPED, EXIT_SAVE_FAILED) or self._stopping:  # some fail as their readers are ended too
            queue.requeue(claim)
        elif code < 0:
            queue.requeue_after_crash(claim, _crash(signal.Signals(-code), why))
        else:
            queue.fail(claim, why or f"ended with code {code}")

    def _finish(self, queue: SweepQueue, claim: ClaimedRun, run: Workdir) -> None:
        try:
            rates = run.result()["rates"]
        except UserError as error:
            queue.fail(claim, str(error))
            return
        queue.complete(claim, rates[queue.sweep.search.metric if claim.planned.is_trial else "top1_error"])


def _with(root: Path) -> str:
    return os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))


def _crash(number: signal.Signals, why: str) -> str:
    """Who is killed has no time for a message, so that the last line alone says how far it was."""
    if number != signal.SIGKILL:
        return f"ended by {number.name}; {why}"
    _, _, last = why.rpartition("\n")
    return f"ended by SIGKILL, perhaps for lack of memory; its last line: {last}"


def _last_words(log: Path, began: int) -> str:
    """The last paragraph of what a process wrote, which is its message where it failed."""
    with log.open("rb") as file:
        file.seek(began)
        text = file.read().decode(errors="replace").strip()
    return text.split("\n\n")[-1][-1000:]

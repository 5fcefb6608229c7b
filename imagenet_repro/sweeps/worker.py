"""A worker: takes one training after the other from the queue until none waits, and can be stopped at any moment."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from imagenet_repro import config as cfg
from imagenet_repro.errors import EXIT_DIVERGED, EXIT_FINISHED, EXIT_SAVE_FAILED, EXIT_STOPPED, SaveError, UserError
from imagenet_repro.sweeps import trial
from imagenet_repro.sweeps.place import SweepPlace
from imagenet_repro.sweeps.plan import configuration
from imagenet_repro.sweeps.queue import Claim, Queue
from imagenet_repro.sweeps.status import OUTPUT
from imagenet_repro.workdir import Workdir, write_json

POLL = 2.0  # seconds
PATIENCE = 600.0  # seconds for a storage that does not answer, after which a worker ends
CONFIG = "planned.json"  # in a training's workdir
DIVERGED = 1.0  # the error of a trial whose loss was not finite: no setting is worse


class Worker:
    """What submitit starts, here or on another machine.

    Args:
      directory: of the sweep.
      storage: its URL.
      slot: of this worker, from zero.
    """

    def __init__(self, directory: str, storage: str, slot: int):
        self.directory, self.storage, self.slot = directory, storage, slot
        self._stopping = False
        self._child: subprocess.Popen | None = None
        self._claim: Claim | None = None
        self._queue: Queue | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"directory": self.directory, "storage": self.storage, "slot": self.slot}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def __call__(self) -> int:
        """Works until nothing waits; ends the process with an exit code of errors.py where something is left."""
        place = SweepPlace(self.directory)
        with place.slot(self.slot) as free:
            if not free:
                print(f"worker {self.slot} is there already")
                return EXIT_FINISHED
            signal.signal(signal.SIGTERM, self._stop)
            try:
                code = self._work(place)
            except UserError as error:
                print(error, file=sys.stderr)
                code = error.exit_code
        if code != EXIT_FINISHED:
            sys.exit(code)  # submitit takes any return for success, also of a job that SLURM starts again
        return code

    def checkpoint(self) -> Any:
        """What submitit calls before a cluster takes the machine away: saves, puts back, asks to be started again."""
        import submitit

        self._stop(signal.SIGUSR2, None)
        if self._child is not None:
            self._child.wait()
        if self._claim is not None and self._queue is not None:
            self._queue.put_back(self._claim)
        return submitit.helpers.DelayedSubmission(self)

    def _stop(self, _number: int, _frame: Any) -> None:
        self._stopping = True
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()

    def _work(self, place: SweepPlace) -> int:
        queue = self._queue = Queue(self.storage, place.sweep(), place.identity())
        while not self._stopping:
            queue.recover()
            self._claim = queue.claim(f"{socket.gethostname()}/{self.slot}")
            if self._claim is not None:
                code = self._train(place, queue, self._claim)
                self._claim = None
                if code == EXIT_SAVE_FAILED:
                    return code
            elif any(one.state == "waiting" for one in queue.entries()):
                time.sleep(POLL)  # runs whose search other workers are about to complete
            else:
                return EXIT_FINISHED
        return EXIT_STOPPED

    def _train(self, place: SweepPlace, queue: Queue, claim: Claim) -> int:
        run = Workdir(place.path / claim.planned.name)
        with queue.alive(claim):
            code, why = self._run(place, queue, claim, run)
        patiently = _Patience()
        while True:
            try:
                self._settle(queue, claim, run, code, why)
                return code
            except UserError as error:
                patiently.wait(error)

    def _run(self, place: SweepPlace, queue: Queue, claim: Claim, run: Workdir) -> tuple[int, str]:
        """Exit code of the training, and the end of what it said."""
        try:
            config = configuration(queue.sweep, claim.planned, claim.settings)
            self._wait_until_free(run)
            if run.finished or self._stopping:
                return (EXIT_FINISHED if run.finished else EXIT_STOPPED), ""
            write_json(run.path / CONFIG, cfg.to_dict(config))
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

    def _settle(self, queue: Queue, claim: Claim, run: Workdir, code: int, why: str) -> None:
        """Tells the queue what came of a training."""
        if code == EXIT_FINISHED:
            rates = run.result()["rates"]
            queue.finish(claim, rates[queue.sweep.search.metric if claim.planned.search else "top1_error"])
        elif code == EXIT_DIVERGED and claim.planned.search:
            queue.finish(claim, DIVERGED)
        elif code in (EXIT_STOPPED, EXIT_SAVE_FAILED) or (code < 0 and self._stopping):
            queue.put_back(claim)
        elif code < 0:
            name = signal.Signals(-code).name
            queue.put_back_after_crash(claim, f"ended by {name}{', perhaps for lack of memory' * (code == -9)}; {why}")
        else:
            queue.fail(claim, why or f"ended with code {code}")


class _Patience:
    """Waits for a storage, longer each time."""

    def __init__(self):
        self._began, self._pause = time.monotonic(), 1.0

    def wait(self, error: UserError) -> None:
        if isinstance(error, SaveError) or time.monotonic() - self._began > PATIENCE:
            raise error
        print(f"{error}; trying again in {self._pause:.0f} s", file=sys.stderr)
        time.sleep(self._pause)
        self._pause = min(60.0, 2 * self._pause)


def _with(root: Path) -> str:
    return os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))


def _last_words(log: Path, began: int) -> str:
    """The last paragraph of what a process wrote, which is its message where it failed."""
    with log.open("rb") as file:
        file.seek(began)
        text = file.read().decode(errors="replace").strip()
    return text.split("\n\n")[-1][-1000:]

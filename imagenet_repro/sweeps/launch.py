"""Where workers run: on this machine, or as an array of SLURM jobs; submitit starts them in both cases."""

import contextlib
import itertools
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import submitit

from imagenet_repro.errors import UserError, nearest
from imagenet_repro.storage.workdir import read_json, write_json
from imagenet_repro.sweeps.directory import SweepDirectory
from imagenet_repro.sweeps.worker import STORAGE, Worker

FOREVER = 60 * 24 * 3650  # minutes, of a local worker
SLURM_MINUTES = 60 * 24  # of a job where nobody says another time
SLURM_SIGNAL = 180  # seconds before a job's end at which it saves
SLURM_RETURNS = 1000  # times that a job may run out of time and go on in a new one
JOBS = "jobs.json"


@runtime_checkable
class Launcher(Protocol):
    """Starts workers and knows which live."""

    default_workers: int

    @property
    def description(self) -> str:
        """For a person."""

    def start(self, slots: Sequence[int]) -> None:
        """Starts a worker for each of these places."""

    def is_alive(self, slot: int) -> bool:
        """Whether a worker has that place, or is about to."""

    def stop(self) -> None:
        """Has the workers of this machine save and end, and waits for that."""


class LocalLauncher:
    """Workers on this machine, one for each accelerator by default; they outlive the process that started them."""

    def __init__(self, place: SweepDirectory, storage: str):
        self._place, self._storage = place, storage
        self._gpus = visible_gpus()
        self._jobs: dict[int, submitit.Job] = {}

    @property
    def default_workers(self) -> int:
        """One for each GPU that may be used; one where there are none, for the CPU or all of a host's TPU cores."""
        return max(1, len(self._gpus))

    @property
    def description(self) -> str:
        """For a person."""
        devices = f"one for each GPU of {', '.join(self._gpus)}" if self._gpus else "all devices each"
        return f"this machine, {devices}"

    def start(self, slots: Sequence[int]) -> None:
        """Starts a worker for each of these places; Ctrl-C in the terminal will not reach them by itself."""
        for slot in slots:
            executor = submitit.AutoExecutor(folder=self._place.workers / f"slot-{slot}", cluster="local")
            executor.update_parameters(timeout_min=FOREVER, **self._device(slot))
            with _ctrl_c_ignored(), _for_workers(self._storage):
                self._jobs[slot] = executor.submit(Worker(str(self._place.path), slot))

    def _device(self, slot: int) -> dict[str, Any]:
        if not self._gpus:
            return {}
        # submitit alone shows a worker none, and takes numbers only, not the names that parts of a GPU have.
        return {"local_setup": [f"export CUDA_VISIBLE_DEVICES={shlex.quote(self._gpus[slot % len(self._gpus)])}"]}

    def is_alive(self, slot: int) -> bool:
        """Whether a worker has that place, or is about to."""
        return (slot in self._jobs and not self._jobs[slot].done()) or self._place.is_slot_taken(slot)

    def stop(self) -> None:
        """Has the workers save and end, those of an earlier process too, and waits for that.

        One that has just been started is told once it has its place; a second signal would end a training unsaved.
        """
        told: set[int] = set()
        while (pids := set(self._place.worker_pids())) or not all(job.done() for job in self._jobs.values()):
            for pid in pids - told:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            told |= pids
            time.sleep(0.2)


class SlurmLauncher:
    """Workers as an array of SLURM jobs; they go on without this process, in new jobs when theirs run out of time.

    Args:
      place: of the sweep, on a disk that all machines share.
      storage: a URL that all machines reach.
      options: parameters of submitit's SlurmExecutor, such as partition, time (minutes), gpus_per_node, mem, account.

    Raises:
      UserError: there is no SLURM here, or an option is none of its.
    """

    default_workers = 1

    def __init__(self, place: SweepDirectory, storage: str, options: Mapping[str, Any]):
        for command in ("sbatch", "srun", "squeue"):
            if shutil.which(command) is None:
                raise UserError(
                    f"--launcher=slurm: there is no {command} on this machine; start the sweep on a login node"
                )
        self._place, self._storage = place, storage
        defaults = {"time": SLURM_MINUTES, "signal_delay_s": SLURM_SIGNAL, "job_name": "imagenet_repro"}
        self._options = defaults | dict(options)
        self._check_options()

    def _check_options(self) -> None:
        valid = submitit.SlurmExecutor._valid_parameters()
        for name in self._options:
            if name not in valid:
                raise UserError(f"--slurm.{name}: submitit has no such option of SLURM; {nearest(name, valid)}")

    @property
    def description(self) -> str:
        """For a person."""
        return "SLURM: " + ", ".join(f"{key}={value}" for key, value in self._options.items())

    def start(self, slots: Sequence[int]) -> None:
        """Submits one array of jobs.

        Raises:
          UserError: SLURM refuses it.
        """
        executor = submitit.AutoExecutor(
            folder=self._place.workers / "%A", cluster="slurm", slurm_max_num_timeout=SLURM_RETURNS
        )
        named = {f"slurm_{name}": value for name, value in self._options.items()}
        executor.update_parameters(slurm_array_parallelism=len(slots), **named)
        workers = [Worker(str(self._place.path), slot) for slot in slots]
        try:
            with _for_workers(self._storage), executor.batch():
                jobs = [executor.submit(worker) for worker in workers]
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
            raise UserError(f"--launcher=slurm: SLURM refused the jobs: {str(error).strip()}") from error
        known = self._known() | {str(slot): job.job_id for slot, job in zip(slots, jobs, strict=True)}
        write_json(self._place.workers / JOBS, known)

    def _known(self) -> dict[str, str]:
        path = self._place.workers / JOBS
        return read_json(path, "sweep writes it") if path.exists() else {}

    def is_alive(self, slot: int) -> bool:
        """Whether the worker's job waits or runs."""
        job = self._known().get(str(slot))
        return (job is not None and _in_slurm(job)) or self._place.is_slot_taken(slot)

    def stop(self) -> None:
        """Leaves the jobs alone: a person who stops watching does not mean to end what runs elsewhere."""
        jobs = sorted({job.split("_")[0] for job in self._known().values()})
        print(f"the workers go on in SLURM (jobs {', '.join(jobs)}); `scancel {' '.join(jobs)}` has them save and end")


def _in_slurm(job: str) -> bool:
    """Whether SLURM's queue has a job, or does not answer; accounting, which many clusters lack, is not asked."""
    found = subprocess.run(["squeue", "--noheader", f"--jobs={job}"], capture_output=True, text=True, check=False)
    if found.returncode:
        return "Invalid job id" not in found.stderr
    return bool(found.stdout.strip())


def visible_gpus() -> list[str]:
    """The numbers or names of NVIDIA's GPUs that may be used, without touching them, as JAX in this process would."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:  # CUDA reads it up to the first that is none
        return list(itertools.takewhile(lambda one: one and one != "-1", (one.strip() for one in named.split(","))))
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    return [str(number) for number in range(sum(line.startswith("GPU ") for line in listed.stdout.splitlines()))]


@contextlib.contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Processes started within ignore SIGINT, which a terminal sends to all; the sweep stops them in order."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _for_workers(storage: str) -> Iterator[None]:
    """Processes started within find this package wherever they start, and the trials."""
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, (str(Path(__file__).parents[2]), before.get("PYTHONPATH")))
    )
    os.environ[STORAGE] = storage
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)

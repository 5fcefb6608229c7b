"""Launchers: submitit starts the workers of a sweep on this machine or as an array of SLURM jobs."""

import contextlib
import itertools
import os
import shlex
import shutil
import signal
import subprocess
import time
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.slurm import slurm

from imagenet_repro.config import parse_text
from imagenet_repro.errors import UserError, nearest
from imagenet_repro.storage.json_files import read_json, write_json
from imagenet_repro.sweeps.directory import SweepDirectory
from imagenet_repro.sweeps.worker import STORAGE, Worker, python_path

LOCAL_MINUTES = 60 * 24 * 3650  # time limit of a local worker: ten years, since submitit requires one
SLURM_MINUTES = 60 * 24  # default time limit of a SLURM job
SLURM_SIGNAL = 180  # seconds before the end of a SLURM job at which it gets the signal to save
SLURM_RESUBMISSIONS = 1000  # how often a job that runs out of time may continue in a new one
JOBS = "jobs.json"


def read_slurm_options(texts: Mapping[str, str]) -> dict[str, Any]:
    """Return options of SLURM jobs from texts, each read by the type that submitit declares.

    Args:
      texts: by the option's name; one that submitit does not have keeps its text, and `SlurmLauncher` refuses it.

    Raises:
      UserError: a text does not have the type of its option.
    """
    value_types = typing.get_type_hints(slurm._make_sbatch_string)
    return {name: parse_text(text, value_types.get(name, str), f"--slurm.{name}") for name, text in texts.items()}


@runtime_checkable
class Launcher(Protocol):
    """An object that starts workers and knows which of them are alive."""

    @property
    def default_workers(self) -> int:
        """The number of workers unless the user names one."""
        ...

    @property
    def description(self) -> str:
        """A description, for a person, of the machines on which workers run."""
        ...

    def start(self, slots: Sequence[int]) -> None:
        """Start a worker for each slot."""

    def is_alive(self, slot: int) -> bool:
        """Whether a worker holds the slot, or is about to."""
        ...

    def stop(self) -> None:
        """Stop the workers of this machine after they have saved, and wait until they have ended."""


class LocalLauncher:
    """Workers on this machine, by default one for each accelerator; they outlive the process that started them.

    Args:
      directory: the sweep's directory.
      storage: the URL of the trials.
    """

    def __init__(self, directory: SweepDirectory, storage: str):
        self._directory, self._storage = directory, storage
        self._gpus = visible_gpus()
        self._jobs: dict[int, submitit.Job] = {}

    @property
    def default_workers(self) -> int:
        """One worker for each visible GPU; without GPUs one worker, for the CPU or for all TPU cores of the host."""
        return max(1, len(self._gpus))

    @property
    def description(self) -> str:
        """A description, for a person, of the machine on which workers run."""
        if self._gpus:
            return f"this machine, each on one of the GPUs {', '.join(self._gpus)}"
        return "this machine, each on all of its devices"

    def start(self, slots: Sequence[int]) -> None:
        """Start a worker for each slot; Ctrl-C in the terminal does not reach the workers directly."""
        for slot in slots:
            executor = submitit.AutoExecutor(folder=self._directory.workers_path / f"slot-{slot}", cluster="local")
            executor.update_parameters(timeout_min=LOCAL_MINUTES, **self._device_options(slot))
            with _ignore_ctrl_c(), _worker_environment(self._storage):
                self._jobs[slot] = executor.submit(Worker(str(self._directory.path), slot))

    def _device_options(self, slot: int) -> dict[str, Any]:
        if not self._gpus:
            return {}
        # By default submitit hides all GPUs from a worker, and its own option takes numbers but not the names of MIGs.
        return {"local_setup": [f"export CUDA_VISIBLE_DEVICES={shlex.quote(self._gpus[slot % len(self._gpus)])}"]}

    def is_alive(self, slot: int) -> bool:
        """Whether a worker holds the slot, or is about to."""
        return (slot in self._jobs and not self._jobs[slot].done()) or self._directory.is_slot_taken(slot)

    def stop(self) -> None:
        """Stop the workers after they have saved, including those of an earlier process, and wait for their end.

        A worker that was just started is signalled once it holds its slot. Each worker is signalled once, because a
        second signal would end a training run without saving.
        """
        signalled: set[int] = set()
        while (pids := set(self._directory.worker_pids())) or not all(job.done() for job in self._jobs.values()):
            for pid in pids - signalled:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            signalled |= pids
            time.sleep(0.2)


class SlurmLauncher:
    """Workers as an array of SLURM jobs.

    The jobs continue without this process. A job that runs out of time resumes its work in a new job.

    Args:
      directory: the sweep's directory, on a disk that all machines share.
      storage: a URL that all machines can reach.
      options: parameters of submitit's SlurmExecutor, such as partition, time (minutes), gpus_per_node, mem, account.

    Raises:
      UserError: this machine has no SLURM, or an option does not exist.
    """

    default_workers = 1

    def __init__(self, directory: SweepDirectory, storage: str, options: Mapping[str, Any]):
        for command in ("sbatch", "srun", "squeue"):
            if shutil.which(command) is None:
                raise UserError(
                    f"--launcher=slurm: there is no {command} on this machine; start the sweep on a login node"
                )
        self._directory, self._storage = directory, storage
        defaults = {"time": SLURM_MINUTES, "signal_delay_s": SLURM_SIGNAL, "job_name": "imagenet_repro"}
        self._options = defaults | dict(options)
        self._check_options()

    def _check_options(self) -> None:
        valid = submitit.SlurmExecutor._valid_parameters()
        for name in self._options:
            if name not in valid:
                raise UserError(f"--slurm.{name}: submitit has no such SLURM option; {nearest(name, valid)}")

    @property
    def description(self) -> str:
        """A description, for a person, of the jobs in which workers run."""
        return "SLURM: " + ", ".join(f"{key}={value}" for key, value in self._options.items())

    def start(self, slots: Sequence[int]) -> None:
        """Submit one array of jobs, with one job for each slot.

        Raises:
          UserError: SLURM refuses the jobs.
        """
        executor = submitit.AutoExecutor(
            folder=self._directory.workers_path / "%A",
            cluster="slurm",
            slurm_max_num_timeout=SLURM_RESUBMISSIONS,
        )
        slurm_options = {f"slurm_{name}": value for name, value in self._options.items()}
        executor.update_parameters(slurm_array_parallelism=len(slots), **slurm_options)
        workers = [Worker(str(self._directory.path), slot) for slot in slots]
        try:
            with _worker_environment(self._storage), executor.batch():
                jobs = [executor.submit(worker) for worker in workers]
        except (FailedJobError, FailedSubmissionError) as error:
            raise UserError(f"--launcher=slurm: SLURM refused the jobs: {str(error).strip()}") from error
        job_ids = self._job_ids() | {str(slot): job.job_id for slot, job in zip(slots, jobs, strict=True)}
        write_json(self._directory.workers_path / JOBS, job_ids)

    def _job_ids(self) -> dict[str, str]:
        path = self._directory.workers_path / JOBS
        return read_json(path, "sweep writes it") if path.exists() else {}

    def is_alive(self, slot: int) -> bool:
        """Whether the job of the slot's worker waits or runs."""
        job_id = self._job_ids().get(str(slot))
        return (job_id is not None and _is_in_slurm(job_id)) or self._directory.is_slot_taken(slot)

    def stop(self) -> None:
        """Leave the jobs running, and print how to stop them: a user who stops watching may not want to end them."""
        jobs = sorted({job_id.split("_")[0] for job_id in self._job_ids().values()})
        print(
            f"the workers continue in SLURM (jobs {', '.join(jobs)});"
            f" `scancel {' '.join(jobs)}` stops them after they have saved"
        )


def _is_in_slurm(job_id: str) -> bool:
    """Whether a job is in SLURM's queue, or the queue does not answer.

    Only the queue is consulted, because many clusters have no accounting database.
    """
    listing = subprocess.run(
        ["squeue", "--noheader", f"--jobs={job_id}"],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if listing.returncode:
        return "Invalid job id" not in listing.stderr
    return bool(listing.stdout.strip())


def visible_gpus() -> list[str]:
    """Return the numbers or names of the NVIDIA GPUs that JAX would use in this process, without initialising them."""
    variable = os.environ.get("CUDA_VISIBLE_DEVICES")
    if variable is not None:  # CUDA ignores everything after the first invalid entry
        names = (name.strip() for name in variable.split(","))
        return list(itertools.takewhile(lambda name: name and name != "-1", names))
    if shutil.which("nvidia-smi") is None:
        return []
    listing = subprocess.run(
        ["nvidia-smi", "--list-gpus"], capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    return [str(number) for number in range(sum(line.startswith("GPU ") for line in listing.stdout.splitlines()))]


@contextlib.contextmanager
def _ignore_ctrl_c() -> Iterator[None]:
    """Start processes within the block that ignore SIGINT; the sweep stops its workers itself, in order."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


@contextlib.contextmanager
def _worker_environment(storage: str) -> Iterator[None]:
    """Set the environment variables within the block that let workers find this package and the trials."""
    environment = dict(os.environ)
    os.environ |= {"PYTHONPATH": python_path(), STORAGE: storage}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)

"""The devices of a process: several hosts joined, and what was compiled once kept for the next process."""

import os
from pathlib import Path

import jax
from absl import logging

from imagenet_repro.errors import UserError
from imagenet_repro.training import allocator


def start() -> None:
    """Joins the other hosts of a run, and turns on the compilation cache.

    Several hosts are joined where the scheduler is one that `jax.distributed` knows (TPU pods, SLURM, Open MPI) and
    says so, or where COORDINATOR_ADDRESS, NUM_PROCESSES and PROCESS_ID are set in the environment.
    """
    allocator.keep_memory()
    environment = os.environ
    if "COORDINATOR_ADDRESS" in environment:
        try:
            number, index = int(environment["NUM_PROCESSES"]), int(environment["PROCESS_ID"])
        except (KeyError, ValueError) as error:
            raise UserError(
                "COORDINATOR_ADDRESS is set; NUM_PROCESSES and PROCESS_ID must be set too, to whole numbers"
            ) from error
        jax.distributed.initialize(environment["COORDINATOR_ADDRESS"], number, index)
    elif int(environment.get("SLURM_NTASKS", "1")) > 1 or "," in environment.get("TPU_WORKER_HOSTNAMES", ""):
        jax.distributed.initialize()
    logging.set_verbosity(logging.ERROR)  # Orbax and tfds warn of what a user can do nothing about
    home = Path(environment.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    cache = {
        "jax_compilation_cache_dir": str(home / "imagenet_repro" / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 2.0,
    }
    for name, value in cache.items():
        if name.upper() not in environment:  # where JAX was told so itself, that holds
            jax.config.update(name, value)

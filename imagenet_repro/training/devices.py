"""Start-up of the devices of a process: several hosts joined, and a cache of compiled programs."""

import os

import jax
from absl import logging

from imagenet_repro.errors import UserError
from imagenet_repro.storage import user
from imagenet_repro.training import allocator, peers


def start() -> None:
    """Join the other hosts of a run, and turn on the compilation cache.

    Several hosts are joined under a scheduler that `jax.distributed` knows (TPU pods, SLURM, Open MPI), or where
    COORDINATOR_ADDRESS, NUM_PROCESSES and PROCESS_ID are set in the environment.
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
        peers.join(environment["COORDINATOR_ADDRESS"], number, index)
    elif int(environment.get("SLURM_NTASKS", "1")) > 1 or "," in environment.get("TPU_WORKER_HOSTNAMES", ""):
        peers.join()
    logging.set_verbosity(logging.ERROR)  # Orbax and tfds warn about things that a user cannot change
    cache = {
        "jax_compilation_cache_dir": str(user.cache_directory() / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 2.0,
    }
    for name, value in cache.items():
        if name.upper() not in environment:  # a setting in JAX's own environment variable takes precedence
            jax.config.update(name, value)

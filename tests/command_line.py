"""Functions that run `main.py`, in processes of their own as a user does, or in the process of the tests."""

import contextlib
import io
import os
import socket
import subprocess
import sys
from pathlib import Path
from unittest import mock

import jax
import numpy as np

REPOSITORY = Path(__file__).parent.parent
OLDER_EMITTERS_END = (0, 11)  # the version of JAX whose XLA has the newer fusion emitters alone


def xla_flags(devices):
    """Return the value of XLA_FLAGS for a number of host devices and for fast compilation.

    Compilation dominates the time of the tests. LLVM does not optimise, and where XLA still has its older fusion
    emitters, they give it half as much code as the newer ones.
    """
    flags = [
        f"--xla_force_host_platform_device_count={devices}",
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
    ]
    if jax.__version_info__ < OLDER_EMITTERS_END:  # an unknown flag ends the process
        flags.append("--xla_cpu_use_fusion_emitters=false")
    else:  # one module for LLVM instead of up to 32 took 7 to 14 % less CPU time for a ResNet-18
        flags.append("--xla_cpu_parallel_codegen_split_count=1")
    return " ".join(flags)


# `main.py` that sends itself a signal, its first argument, when an event of the second argument's text has happened: a
# training step of this number was logged, or a stage of features has begun. So the signal never comes too late.
SIGNALLED = """
import os, sys
from imagenet_repro.runs import feature_run
from imagenet_repro.training.log import RunLog

number, moments = int(sys.argv.pop(1)), {sys.argv.pop(1)}


def signal_after(function, name):
    def call(*arguments, **values):
        result = function(*arguments, **values)
        if name(*arguments) in moments:
            moments.clear()
            os.kill(os.getpid(), number)
        return result

    return call


RunLog.write = signal_after(RunLog.write, lambda log, kind, step: f"{kind} {step}")
feature_run._Watcher.show = signal_after(feature_run._Watcher.show, lambda watcher, stage, done, total: stage)
import main

sys.exit(main.main(sys.argv[1:]))
"""


def start(*arguments, devices=1, environment=None, program=("main.py",), **options):
    """Start `main.py ARGUMENTS`, or another program, on a number of host devices and return the process."""
    flags = {"XLA_FLAGS": xla_flags(devices), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, *program, *map(str, arguments)],
        cwd=REPOSITORY,
        env=os.environ | flags | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(*arguments, code=0, tracebacks=False, seconds=1500, **options):
    """Run `main.py ARGUMENTS`, which must end with `code` within `seconds`; return its standard output and error."""
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == code, f"exit code {process.returncode}, not {code}\n{out}\n{err}"
    assert tracebacks or "Traceback" not in err, err
    return out, err


def call(*arguments, code=0):
    """Run `main.py ARGUMENTS` as `run` does, but in this process, whose imports and eight devices are there already.

    This saves the 3 seconds of a start, where the test is not about the process.
    """
    import submitit  # noqa: F401  # its import ends absl's logging, which closes what is not sys.stderr at that time

    import main
    from imagenet_repro.training import devices

    out, err, precision = io.StringIO(), io.StringIO(), jax.config.jax_default_matmul_precision
    try:
        with (
            contextlib.chdir(REPOSITORY),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch.object(devices, "start"),  # JAX has started, with the cache of the tests
        ):
            returned = main.main([*map(str, arguments)])
    finally:
        jax.config.update("jax_default_matmul_precision", precision)
    assert returned == code, f"exit code {returned}, not {code}\n{out.getvalue()}\n{err.getvalue()}"
    return out.getvalue(), err.getvalue()


@contextlib.contextmanager
def coordinator(processes=2):
    """Yield the environment of the processes of one run but for PROCESS_ID, with a port that no one else gets.

    The port is bound here and shared with JAX's coordinator; since nothing listens here, no connection is lost.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("", 0))
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        yield {"COORDINATOR_ADDRESS": address, "NUM_PROCESSES": str(processes)}


def prepare_fractal(directory, train_images):
    """Prepare six categories of fractals of 32 pixels, with seven validation images each; return the directory."""
    options = {"categories": 6, "train_images": train_images, "validation_images": 7, "size": 32}
    run("prepare", "fractal", f"--data_dir={directory}", *[f"--fractal.{k}={v}" for k, v in options.items()])
    return str(directory)


def train_arguments(data_dir, workdir, *, recipe="tests/recipe.py", **overrides):
    """Return the arguments of `train` with a recipe of the tests."""
    keys = [f"--config.{key.replace('__', '.')}={value}" for key, value in overrides.items()]
    return ["train", f"--config={recipe}:{data_dir}", f"--workdir={workdir}", *keys]


def arrays(workdir, step):
    """Return every array of a checkpoint by its path, as NumPy arrays that Orbax reads without this project."""
    import orbax.checkpoint as ocp

    path = Path(workdir).absolute() / "checkpoints" / str(step) / "state"
    with ocp.PyTreeCheckpointer() as reader:
        as_numpy = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), reader.metadata(path).item_metadata.tree
        )
        tree = reader.restore(path, restore_args=as_numpy)
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}

"""Starts `main.py` as a person does, in processes of its own."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

REPOSITORY = Path(__file__).parent.parent


def xla_flags(devices):
    """For so many host devices; most of the tests' time goes into compiling, so as little is done there as can be.

    LLVM optimises nothing, and XLA's older emitters of fusions hand it half of the code that the newer ones do.
    """
    fast = (
        "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
        " --xla_cpu_use_fusion_emitters=false"
    )
    return f"--xla_force_host_platform_device_count={devices} {fast}"


def start(*arguments, devices=1, environment=None, **options):
    """`main.py ARGUMENTS` on a number of host devices."""
    flags = {"XLA_FLAGS": xla_flags(devices), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, "main.py", *map(str, arguments)],
        cwd=REPOSITORY,
        env=os.environ | flags | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(*arguments, code=0, tracebacks=False, seconds=500, **options):
    """Standard output and error of `main.py ARGUMENTS`, which must end with `code` in so many seconds."""
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == code, f"exit code {process.returncode}, not {code}\n{out}\n{err}"
    assert tracebacks or "Traceback" not in err, err
    return out, err


def prepare_fractal(directory, train_images):
    """Six categories of so many fractals of 32 pixels, and seven each to be scored; the directory as text."""
    options = {"categories": 6, "train_images": train_images, "validation_images": 7, "size": 32}
    run("prepare", "fractal", f"--data_dir={directory}", *[f"--fractal.{k}={v}" for k, v in options.items()])
    return str(directory)


def train_arguments(data_dir, workdir, *, recipe="tests/recipe.py", **overrides):
    """Arguments of `train` with a recipe of the tests."""
    keys = [f"--config.{key.replace('__', '.')}={value}" for key, value in overrides.items()]
    return ["train", f"--config={recipe}:{data_dir}", f"--workdir={workdir}", *keys]


def arrays(workdir, step):
    """Every array of a checkpoint by its path, as NumPy, read by Orbax alone."""
    import orbax.checkpoint as ocp

    path = Path(workdir).absolute() / "checkpoints" / str(step) / "state"
    with ocp.PyTreeCheckpointer() as reader:
        as_numpy = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), reader.metadata(path).item_metadata.tree
        )
        tree = reader.restore(path, restore_args=as_numpy)
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}

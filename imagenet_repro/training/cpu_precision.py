"""The precision of a run on a CPU: bfloat16 only where the processor gains from it.

Most processors have no arithmetic in bfloat16, or XLA does not use it, so that a step takes longer than in float32.
Whether this one gains is measured once and kept in a file of the user's cache directory. On an accelerator nothing is
measured, and a run computes as configured.
"""

import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from imagenet_repro.errors import SaveError, UserError
from imagenet_repro.models.nn import cpu_convolution, target
from imagenet_repro.storage import user
from imagenet_repro.storage.json_files import write_json

VARIABLE = "IMAGENET_REPRO_CPU_BFLOAT16"  # environment variable: yes, no or measure
FILE = "cpu_bfloat16.json"
TIMED_STEPS = 20
GAIN = 0.9  # largest share of float32's time at which bfloat16 counts as faster; less could be noise
TIMEOUT = 300.0  # seconds for the measurement with its compilation


def choose(precision: str) -> str:
    """Return the precision in which a new run computes: float32 in place of a bfloat16 that the CPU is slower in.

    Args:
      precision: `config.precision`.

    Raises:
      UserError: the environment variable has an unknown value.
    """
    setting = os.environ.get(VARIABLE, "measure")
    if setting not in ("yes", "no", "measure"):
        raise UserError(f"{VARIABLE}={setting}: must be yes, no or measure")
    if precision != "bfloat16" or target.platform() != "cpu" or setting == "yes":
        return precision
    return "bfloat16" if setting == "measure" and _is_faster() else "float32"


def explain(requested: str, computed: str) -> str:
    """Return a line about a run that computes in another precision than `config.precision`; empty for the same."""
    if requested == computed:
        return ""
    return (
        f"computes in {computed}: the CPU that the run began on gains nothing from {requested}"
        f" ({VARIABLE}=yes lets a new run compute in {requested})"
    )


def _is_faster() -> bool:
    """Return whether a step in bfloat16 takes less time than in float32, from the file or from a measurement."""
    path, key = user.cache_directory() / FILE, _machine()
    known = _read(path)
    seconds = known.get(key) or _measure_in_a_process()
    if seconds and key not in known:
        with contextlib.suppress(SaveError):  # the next run measures again
            write_json(path, _read(path) | {key: seconds})
    return bool(seconds) and seconds["bfloat16"] < GAIN * seconds["float32"]


def _read(path: Path) -> dict[str, Any]:
    """Return the measurements by machine; a file that is missing or damaged has none."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _machine() -> str:
    """Return what the measurement depends on: processor, cores and versions of JAX."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = [line for line in lines if line.startswith("flags")]
    bfloat16 = "with" if flags and "bf16" in flags[0] else "without"
    processor = f"{names[0] if names else platform.processor() or platform.machine()}, {bfloat16} bf16 instructions"
    return f"{processor}, {os.cpu_count()} cores, jax {jax.__version__}, jaxlib {importlib.metadata.version('jaxlib')}"


def _measure_in_a_process() -> dict[str, float]:
    """Return the seconds of a step by precision; empty where bfloat16 fails.

    The process is another one because jaxlib 0.11.2 ends the process when it compiles bfloat16 for some CPUs.
    """
    # Without XLA_FLAGS: they could split the CPU into several devices, as tests do.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", __name__]
    try:
        result = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT,
            check=True,
            cwd=_root(),
        )
        return json.loads(result.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return {}


def _root() -> Path:
    return Path(__file__).parents[2]


def measure() -> dict[str, float]:
    """Return the seconds of a step in float32 and in bfloat16.

    The step is the gradient through a convolution, batch normalisation, ReLU and a matrix product. Parameters are
    float32 and cast, as in training. The two precisions take turns, and the shortest time of each counts.
    """
    keys = jax.random.split(jax.random.key(0), 4)
    images, kernel = jax.random.normal(keys[0], (16, 16, 16, 64)), jax.random.normal(keys[1], (3, 3, 64, 64))
    tokens, weight = jax.random.normal(keys[2], (1024, 384)), jax.random.normal(keys[3], (384, 1024))
    steps = {}
    for name in ("float32", "bfloat16"):
        dtype = jnp.dtype(name)

        def loss(parameters: tuple[jax.Array, ...], dtype: jnp.dtype = dtype) -> jax.Array:
            x, kernel, tokens, weight = (a.astype(dtype) for a in parameters)
            y = cpu_convolution.convolve(x, kernel, padding=((1, 1), (1, 1))).astype(jnp.float32)
            y = (y - y.mean((0, 1, 2))) * jax.lax.rsqrt(y.var((0, 1, 2)) + 1e-5)
            y = jax.nn.relu(y.astype(dtype))
            z = jnp.dot(tokens, weight, precision=jax.lax.Precision.HIGHEST)
            return jnp.square(y.astype(jnp.float32)).mean() + jnp.square(z.astype(jnp.float32)).mean()

        steps[name] = jax.jit(jax.grad(loss))
    seconds = dict.fromkeys(steps, float("inf"))
    for number in range(TIMED_STEPS + 1):
        for name, step in steps.items():
            began = time.perf_counter()
            jax.block_until_ready(step((images, kernel, tokens, weight)))
            if number:  # the first compiles
                seconds[name] = min(seconds[name], time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    print(json.dumps(measure()))

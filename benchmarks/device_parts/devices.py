"""Description of the host and its devices, and their rates on the simplest programs."""

import datetime
import importlib.util
import os
import platform
import subprocess
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import timing
from benchmarks.device_parts.bench import Bench, Part
from imagenet_repro import __version__
from imagenet_repro.storage import provenance

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint", "opencv-python-headless")
# Distributions, and the measurements that are left out without them.
OPTIONAL = {
    "grain": "the loader, the loop with real input, the decade",
    "ml-collections": "the decade",
    "tensorflow-datasets": "a prepared data set (--data_dir)",
    "tensorboardX": "the loop with real input, the decade",
    "scipy": "the decade",
}
ACCELERATORS = ("jax-cuda13-plugin", "jax-cuda12-plugin", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12", "libtpu")


class Devices(Part):
    """The devices, the host, and the versions of everything."""

    name, title = "devices", "devices, host and versions"

    def estimate(self, bench: Bench) -> float:
        """See `Part`."""
        return 2.0

    def run(self, bench: Bench) -> None:
        """See `Part`."""
        device = jax.devices()[0]
        bench.record(
            "devices",
            time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            device=device.device_kind,
            platform=bench.platform,
            devices=jax.device_count(),
            platform_version=" ".join(str(getattr(device.client, "platform_version", "")).split()),
            driver=_nvidia("driver_version,memory.total,clocks.max.sm,power.limit,temperature.gpu"),
            memory=device.memory_stats() or {},
            cores=os.cpu_count(),
            usable_cores=bench.compiler.threads,
            host_memory_bytes=_host_memory(),
            load=os.getloadavg()[0],
            python=platform.python_version(),
            packages=provenance.installed(PACKAGES + ACCELERATORS),
            optional=provenance.installed(tuple(OPTIONAL)),
            imagenet_repro=__version__,
            commit=provenance.commit(),
            scale=bench.scale.name,
            minutes=bench.options.minutes,
        )
        bench.say(f"{jax.device_count()} x {device.device_kind}, jax {jax.__version__}, {os.cpu_count()} cores")
        for name, needed_for in OPTIONAL.items():
            if not provenance.installed((name,)):
                bench.left_out(needed_for, f"{name} is not installed")


def _nvidia(query: str) -> str:
    """Return what nvidia-smi says; empty without it."""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _host_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class Peaks(Part):
    """A product of matrices and a copy of an array: what the device reaches in practice."""

    name, title = "peaks", "a product of matrices and a copy, as the peaks in practice"

    def estimate(self, bench: Bench) -> float:
        """See `Part`."""
        return 6 + 2 * bench.scale.seconds

    def run(self, bench: Bench) -> None:
        """See `Part`."""
        size = bench.scale.matrix
        matrix = jax.random.normal(jax.random.key(0), (size, size), bench.scale.precision)
        product = jax.jit(lambda a, b: a @ b)
        flops = self._rate(bench, product, (matrix, matrix), 2 * size**3)
        array = jnp.zeros(bench.scale.copied, jnp.float32)
        moved = self._rate(bench, jax.jit(lambda x: x + 1), (array,), 2 * array.nbytes)
        bench.peaks = {"flops": flops, "bytes": moved}
        precision = bench.scale.precision
        bench.record("peaks", matrix=size, precision=precision, product_flops=flops, copy_bytes=moved)
        bench.say(f"product in {bench.scale.precision} {flops / 1e12:,.1f} TFLOP/s, copy {moved / 1e9:,.0f} GB/s")

    def _rate(self, bench: Bench, function: Any, arguments: tuple, work: int) -> float:
        """Return the work per second of a function: the highest of some turns, since a peak is meant."""
        outputs: dict[str, Any] = {}

        def step() -> None:
            outputs["last"] = function(*arguments)

        def wait() -> None:
            jax.block_until_ready(outputs["last"])

        with bench.timing():
            return timing.rate(step, wait, work, bench.scale.seconds).highest


def is_installed(module: str) -> bool:
    """Return whether a module can be imported, without importing it."""
    return importlib.util.find_spec(module) is not None

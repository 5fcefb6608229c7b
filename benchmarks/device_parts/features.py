"""Fisher vectors from pixels, on the device and on the CPU of the host."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from benchmarks import features, timing
from benchmarks.device_parts import images
from benchmarks.device_parts.bench import Bench, Part

DEVICE_BATCH = 256  # images; on the CPU few, so that intermediate results stay in the caches
COMPARED = 16  # images whose vectors are compared


class FisherVectors(Part):
    """The pipeline of benchmarks/features.py."""

    name, title = "features", "Fisher vectors on the device and on the CPU"

    def estimate(self, bench: Bench) -> float:
        """See `Part`."""
        return 2 * bench.scale.trace_seconds + bench.compile_time(6) + 2 * bench.scale.seconds + 4

    def run(self, bench: Bench) -> None:
        """See `Part`."""
        drawn = images.drawn_pixels(features.SIZE, min(64, bench.scale.feature_images))
        pixels = np.resize(drawn, (bench.scale.feature_images, *drawn.shape[1:]))
        with bench.matmul_precision("float32"):
            device = features.PackagePipeline(pixels, sample=len(drawn))
            vectors = device(pixels[:COMPARED])
            rate = self._rate(bench, device, pixels, _batch(bench.platform, len(pixels)))
            with _on_cpu():
                cpu = features.PackagePipeline(pixels, model=device)
                expected = cpu(pixels[:COMPARED])
                cpu_rate = self._rate(bench, cpu, pixels, features.BATCH) if bench.platform != "cpu" else rate
        error = float(np.linalg.norm(vectors - expected) / np.linalg.norm(expected))
        bench.record(
            "features",
            images=len(pixels),
            image_size=features.SIZE,
            images_per_second=rate,
            cpu_images_per_second=cpu_rate,
            ratio=rate / cpu_rate,
            vector_error=error,
        )
        bench.say(f"Fisher vectors: {rate:,.0f} images/s, on the CPU {cpu_rate:,.0f}; they differ by {error:.1e}")

    def _rate(self, bench: Bench, pipeline: Any, pixels: np.ndarray, batch: int) -> float:
        """Return the images per second; the vectors stay on the device, where training would use them."""
        latest: dict[str, Any] = {}
        count = len(pixels) // batch

        def step() -> None:
            for i in range(count):
                latest["vectors"] = pipeline.encode(pixels[i * batch : (i + 1) * batch])

        with bench.timing():
            return timing.rate(
                step, lambda: jax.block_until_ready(latest["vectors"]), count * batch, bench.scale.seconds
            ).median


def _batch(platform: str, images: int) -> int:
    return features.BATCH if platform == "cpu" else min(DEVICE_BATCH, images)


@contextlib.contextmanager
def _on_cpu() -> Iterator[None]:
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        yield

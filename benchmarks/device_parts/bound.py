"""The least time of a compiled step: operations, and bytes of memory traffic, at the device's rates."""

import functools
import re
from typing import Any

import jax

from benchmarks.device_parts.bench import Bench, MeasuredNetwork
from imagenet_repro import models
from imagenet_repro.zoo import sizes

# JAX's names of TPUs, and those of the plan.
KINDS = {"tpu v5 lite": "v5e", "tpu v5": "v5p", "tpu v6 lite": "v6e"}


def compute(bench: Bench, compiled: Any, network: MeasuredNetwork, batch: int) -> dict[str, Any]:
    """Return the bound of a compiled step over all devices as entries of a result; empty where there is none.

    `bound_images_per_second` is at the published rates of the device, or at the measured ones where it is not known;
    `limiter` names the slower part. The operations are three times those of a forward pass, from the stored
    multiply-adds of the network at its published image size.
    """
    peak, bandwidth, source = rates(bench)
    if not (peak and bandwidth):
        return {}
    text = compiled.as_text()
    if not text:
        return {}
    from imagenet_repro.planning import hlo, traffic

    moved = traffic.count_traffic(hlo.parse(text)).total_bytes
    operations = flops(network, batch) / jax.device_count()
    arithmetic, memory = operations / peak, moved / bandwidth
    return {
        "flops": operations,
        "traffic_bytes": moved,
        "arithmetic_seconds": arithmetic,
        "traffic_seconds": memory,
        "limiter": "arithmetic" if arithmetic > memory else "memory traffic",
        "bound_images_per_second": batch / max(arithmetic, memory),
        "bound_at": source,
    }


def flops(network: MeasuredNetwork, batch: int) -> float:
    """Return the operations of a step over the whole batch; areas scale the multiply-adds of convolutions."""
    published = models.spec(network.name).preprocessing.image_size
    return 6.0 * sizes.sizes(network.name).multiply_adds * (network.image_size / published) ** 2 * batch


def rates(bench: Bench) -> tuple[float, float, str]:
    """Return the FLOP/s and bytes/s of one device and where they are from: its data sheet, or measured."""
    facts = device_facts(jax.devices()[0].device_kind)
    if facts is not None:
        return facts.peak(bench.scale.precision), facts.bandwidth, "published rates"
    return bench.peaks.get("flops", 0.0), bench.peaks.get("bytes", 0.0), "measured rates"


@functools.cache
def device_facts(kind: str) -> Any:
    """Return the published facts of a device by JAX's name for its kind; None where they are not known."""
    from imagenet_repro.planning import facts

    words = re.split(r"\W+", KINDS.get(kind.lower(), kind.lower()))
    return next((known for name, known in facts.all_devices().items() if name in words), None)

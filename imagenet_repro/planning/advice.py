"""Advice where a step does not fit: settings that take less memory, and the largest batch that fits."""

from collections.abc import Callable, Iterator

from imagenet_repro.config import Config, replace_keys
from imagenet_repro.planning.plan import Plan

LARGE_STATE = 0.2  # share of the memory from which it pays to split the state over devices


def advise(plan: Plan, config: Config) -> list[str]:
    """Return settings to try, each with what it does; none for a plan that fits."""
    return [] if plan.fits else list(_advice(plan, config))


def _advice(plan: Plan, config: Config) -> Iterator[str]:
    devices = len(plan.topology.devices)
    share = config.batch_size // devices
    if config.model.options.get("remat") is False:
        yield "--config.model.options without 'remat' lets the run choose what the backward pass computes again"
    parts = _parts(plan.compiled.needed_bytes / plan.memory, share // config.accumulate)
    if parts > 1:
        yield f"--config.accumulate={parts * config.accumulate} computes each device's share in more parts"
    state = sum(size for name, size in plan.compiled.arguments.items() if name != "batch")
    if devices > 1 and config.parallel != "fsdp" and state > LARGE_STATE * plan.memory:
        yield "--config.parallel=fsdp splits parameters and optimizer state over the devices"
    if share > 1:
        half = max(devices, config.batch_size // 2)
        yield f"--config.batch_size={half} is half the batch; --find_batch finds the largest that fits"


def _parts(excess: float, images: int) -> int:
    """Return the least power of two that is not below `excess`, or the largest below it that divides `images`."""
    parts = 1
    while parts < excess and images % (2 * parts) == 0:
        parts *= 2
    return parts


def find_batch(config: Config, devices: int, plan: Callable[[Config], Plan]) -> Plan:
    """Return the plan of the largest batch that fits, among the configuration's times powers of two.

    Where none fits, it is the plan of the smallest batch that divides among the devices.

    Args:
      config: the configuration to begin with.
      devices: the number of devices.
      plan: compiles a configuration, as `plan_step` does; called for each batch that is tried.
    """
    best = plan(config)
    factor = 2.0 if best.fits else 0.5
    size = config.batch_size * factor
    while size >= 1 and size % (devices * config.accumulate) == 0:
        tried = plan(replace_keys(config, {"batch_size": str(int(size))}))
        if not tried.fits and best.fits:
            return best
        best = tried
        if tried.fits and factor < 1:
            return best
        size *= factor
    return best

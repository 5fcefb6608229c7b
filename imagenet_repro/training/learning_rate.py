"""The learning rate of each step: a function of progress and, for `plateau`, of the errors of evaluations.

This is the only place where a learning rate is computed. The loop asks for it before each step and passes it to the
compiled step, whose optimizer multiplies its updates by it. One compiled step therefore works for every rate and every
schedule.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike

from imagenet_repro.config import (
    ConstantSchedule,
    CooldownSchedule,
    CosineSchedule,
    ExponentialSchedule,
    LinearSchedule,
    PlateauSchedule,
    Schedule,
    StepSchedule,
)


def create_schedule(spec: Schedule) -> Callable[[ArrayLike], Array]:
    """Return the function from progress to the share of the peak learning rate.

    Progress is a float32 in [0, 1], the share of the budget spent before the step. During the warm-up the share is
    `progress / warmup`. A decay that is a curve (cosine, linear) starts where the warm-up ends; one in stairs (steps,
    exponential) counts from the start of the run; a cooldown ends with the run. The drops of `plateau` are in
    `LearningRate`.
    """
    decay = _create_decay(spec)

    def share(progress: Any) -> Array:
        # Not optax's own warm-up, which computes 1 - (1 - x) and rounds small rates.
        warming = progress / max(spec.warmup, 1e-9)
        return jnp.where(progress < spec.warmup, warming, decay(progress))

    return share


def falls(spec: Schedule) -> bool:
    """Return whether the rate may fall after its warm-up."""
    if isinstance(spec, PlateauSchedule):
        return spec.drops > 0 and spec.factor < 1
    shares = create_schedule(spec)(np.linspace(spec.warmup, 1.0, 1001, dtype=np.float32))
    return bool(jnp.min(shares) < 1)


def _create_decay(spec: Schedule) -> Callable[[Any], Any]:
    # optax annotates boundaries and lengths as whole steps; here they are shares of the budget, which work as well.
    if isinstance(spec, StepSchedule):
        scales = {boundary: spec.factor ** spec.boundaries.count(boundary) for boundary in spec.boundaries}
        return optax.piecewise_constant_schedule(1.0, scales)  # pyright: ignore[reportArgumentType]
    if isinstance(spec, ExponentialSchedule):
        return optax.exponential_decay(1.0, spec.every, spec.factor, staircase=True)  # pyright: ignore[reportArgumentType]
    if isinstance(spec, PlateauSchedule | ConstantSchedule):
        return optax.constant_schedule(1.0)
    if isinstance(spec, CooldownSchedule):
        line = optax.linear_schedule(1.0, spec.final, 1)
        return lambda progress: line(jnp.clip((progress - (1.0 - spec.cooldown)) / spec.cooldown, 0.0, 1.0))
    if isinstance(spec, CosineSchedule):
        curve = optax.cosine_decay_schedule(1.0, 1, alpha=spec.final)
    else:
        assert isinstance(spec, LinearSchedule)
        curve = optax.linear_schedule(1.0, spec.final, 1)
    return lambda progress: curve(jnp.clip((progress - spec.warmup) / max(1.0 - spec.warmup, 1e-9), 0.0, 1.0))


class LearningRate:
    """The learning rate of one run.

    Every process sees the same progress and the same errors, which are counted over all of them, and so computes the
    same rates.

    Args:
      peak: the highest rate, `config.optimizer.learning_rate`.
      spec: the section `schedule`.
      drops: the value of `drops_record` when a checkpoint was saved; empty for a new run.
    """

    def __init__(self, peak: float, spec: Schedule, drops: dict[str, Any] | None = None):
        self._peak = peak
        self._rate = jax.jit(_scaled(create_schedule(spec)))
        self._drops = PlateauDrops(spec, **(drops or {})) if isinstance(spec, PlateauSchedule) else None
        self._device = _host_device()

    def __call__(self, progress: float) -> np.float32:
        """Return the learning rate of the step that begins at `progress`, the share of the budget spent, in [0, 1]."""
        with jax.default_device(self._device):
            return np.float32(self._rate(np.float32(self._peak * self.scale), np.float32(progress)))

    @property
    def scale(self) -> float:
        """The share of the peak that the drops of a plateau have left."""
        return self._drops.scale if self._drops else 1.0

    @property
    def drops_record(self) -> dict[str, Any]:
        """The state of the drops for a checkpoint, as JSON values; empty unless the schedule is `plateau`."""
        return self._drops.record if self._drops else {}

    def observe(self, error: float) -> bool:
        """Record the top-1 error of an evaluation, in [0, 1]; return whether the rate drops now."""
        return self._drops is not None and self._drops.observe(error)


# optax.contrib.reduce_on_plateau takes a value at every update, inside the compiled step. The error of an evaluation
# is known on the host, and only once in many steps.
class PlateauDrops:
    """The drops of the learning rate when the error has stopped falling.

    Args:
      spec: the section `schedule`.
      best: lowest top-1 error so far that was an improvement, in [0, 1]; None before the first evaluation.
      stalled: evaluations since that improvement, or since the last drop.
      dropped: the number of drops so far.
    """

    def __init__(self, spec: PlateauSchedule, best: float | None = None, stalled: int = 0, dropped: int = 0):
        self._spec, self._best, self._stalled, self._dropped = spec, best, stalled, dropped

    @property
    def scale(self) -> float:
        """The share of the peak that the drops have left."""
        return self._spec.factor**self._dropped

    @property
    def record(self) -> dict[str, Any]:
        """The state for a checkpoint, as JSON values."""
        return {"best": self._best, "stalled": self._stalled, "dropped": self._dropped}

    def observe(self, error: float) -> bool:
        """Record the top-1 error of an evaluation; return whether the rate drops now."""
        if self._best is None or error < self._best - self._spec.min_delta:
            self._best, self._stalled = error, 0
            return False
        self._stalled += 1
        if self._stalled < self._spec.patience or self._dropped == self._spec.drops:
            return False
        self._stalled, self._dropped = 0, self._dropped + 1
        return True


def _scaled(schedule: Callable[[ArrayLike], Array]) -> Callable[[ArrayLike, ArrayLike], ArrayLike]:
    return lambda peak, progress: peak * schedule(progress)


def _host_device() -> Any:
    """Return the host as a device, where a rate need not wait for steps in flight; None if JAX has no CPU device."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS excludes the CPU
        return None

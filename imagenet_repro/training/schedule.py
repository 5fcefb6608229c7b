"""Learning rates as functions of progress, and of nothing else but, for `plateau`, the errors of evaluations."""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from imagenet_repro.config import (
    CosineSchedule,
    ExponentialSchedule,
    LinearSchedule,
    PlateauSchedule,
    Schedule,
    StepSchedule,
)


class Moment(NamedTuple):
    """When a step is taken, and the rate of the run: data to the compiled step, so that all rates share one."""

    # A NamedTuple of shapes is a valid argument too, so no annotation names a shape here.
    progress: Any  # float32 [], share of the budget spent before the step
    rate: Any  # float32 [], the peak learning rate, or what the drops of a plateau have left of it


def rate(spec: Schedule, progress: Float[Array, ""]) -> Float[Array, ""]:
    """The share of the peak learning rate at `progress`.

    Args:
      spec: a section `schedule`.
      progress: float32 in [0, 1], the share of the budget spent before the step.

    Returns:
      A float32 in [0, 1]. During the warm-up it is `progress / warmup`; a decay that is a curve (cosine, linear)
      starts where the warm-up ends, one in stairs counts from the start of the run. The drops of `plateau` are
      not in it: they are in `Moment.rate`.
    """
    after = jnp.clip((progress - spec.warmup) / max(1.0 - spec.warmup, 1e-9), 0.0, 1.0)
    if isinstance(spec, CosineSchedule):
        decayed = spec.final + (1 - spec.final) * 0.5 * (1 + jnp.cos(jnp.pi * after))
    elif isinstance(spec, LinearSchedule):
        decayed = spec.final + (1 - spec.final) * (1 - after)
    elif isinstance(spec, StepSchedule):
        decayed = spec.factor ** jnp.sum(progress >= jnp.asarray(spec.boundaries)).astype(jnp.float32)
    elif isinstance(spec, ExponentialSchedule):
        decayed = spec.factor ** jnp.floor(progress / spec.every)
    else:
        decayed = jnp.ones_like(progress)
    warming = progress / max(spec.warmup, 1e-9)
    return jnp.where(progress < spec.warmup, warming, decayed)


# optax.contrib.reduce_on_plateau looks at a value given to every update, inside the compiled step. Ours is known on
# the host, once in many steps, and a step compiled for it would hold a count of evaluations in the optimizer's state.
@dataclasses.dataclass
class Watch:
    """Watches the evaluations of a run whose schedule is `plateau`; any other schedule it leaves alone.

    Every process sees the same errors, which are counted over all of them, and so decides the same.

    Args:
      spec: the section `schedule`; None: there is none.
      best: lowest top-1 error so far that was an improvement, in [0, 1]; None before the first evaluation.
      stalled: evaluations since then, or since the last drop.
      dropped: drops so far.
    """

    spec: Schedule | None
    best: float | None = None
    stalled: int = 0
    dropped: int = 0

    @property
    def scale(self) -> float:
        """What the drops have left of the rate."""
        return self.spec.factor**self.dropped if isinstance(self.spec, PlateauSchedule) else 1.0

    @property
    def known(self) -> dict[str, Any]:
        """All but `spec`, for a checkpoint, as JSON values."""
        if not isinstance(self.spec, PlateauSchedule):
            return {}
        return {"best": self.best, "stalled": self.stalled, "dropped": self.dropped}

    def look(self, error: float) -> bool:
        """Takes in the top-1 error of an evaluation; tells whether the rate drops now."""
        if not isinstance(self.spec, PlateauSchedule):
            return False
        if self.best is None or error < self.best - self.spec.min_delta:
            self.best, self.stalled = error, 0
            return False
        self.stalled += 1
        if self.stalled < self.spec.patience or self.dropped == self.spec.drops:
            return False
        self.stalled, self.dropped = 0, self.dropped + 1
        return True


@dataclasses.dataclass
class EarlyStopping:
    """Ends a run whose evaluations have stopped getting better, before its budget does (Akata et al. 2014).

    Args:
      patience: evaluations in a row without a lower top-1 error that end the run; 0: none do.
      best: lowest top-1 error so far, in [0, 1]; None before the first evaluation.
      stalled: evaluations since then.
    """

    patience: int
    best: float | None = None
    stalled: int = 0

    @property
    def known(self) -> dict[str, Any]:
        """All but `patience`, for a checkpoint, as JSON values."""
        return {"best": self.best, "stalled": self.stalled} if self.patience else {}

    @property
    def due(self) -> bool:
        """Whether the run ends now."""
        return 0 < self.patience <= self.stalled

    def look(self, error: float) -> None:
        """Takes in the top-1 error of an evaluation."""
        if self.best is None or error < self.best:
            self.best, self.stalled = error, 0
        else:
            self.stalled += 1

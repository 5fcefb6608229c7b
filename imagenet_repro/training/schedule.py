"""Learning rates as functions of progress, and of nothing else."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from imagenet_repro import config as cfg


def rate(spec: cfg.Schedule, progress: Float[Array, ""]) -> Float[Array, ""]:
    """The share of the peak learning rate at `progress`.

    Args:
      spec: a section `schedule`.
      progress: float32 in [0, 1], the share of the budget spent before the step.

    Returns:
      A float32 in [0, 1]. During the warm-up it is `progress / warmup`; a decay that is a curve (cosine, linear)
      starts where the warm-up ends, one in stairs counts from the start of the run.
    """
    after = jnp.clip((progress - spec.warmup) / max(1.0 - spec.warmup, 1e-9), 0.0, 1.0)
    if isinstance(spec, cfg.Cosine):
        decayed = spec.final + (1 - spec.final) * 0.5 * (1 + jnp.cos(jnp.pi * after))
    elif isinstance(spec, cfg.Linear):
        decayed = spec.final + (1 - spec.final) * (1 - after)
    elif isinstance(spec, cfg.Steps):
        decayed = spec.factor ** jnp.sum(progress >= jnp.asarray(spec.boundaries)).astype(jnp.float32)
    else:
        decayed = spec.factor ** jnp.floor(progress / spec.every)
    warming = progress / max(spec.warmup, 1e-9)
    return jnp.where(progress < spec.warmup, warming, decayed)

"""The state that a run carries from step to step, and that a checkpoint stores."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from imagenet_repro.training.functional import Tensors


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The pytree that a training step maps to the next one.

    Attributes:
      step: number of steps taken.
      params: float32 parameters by name.
      stats: float32 running statistics of batch norm by name.
      opt_state: state of the optimizer.
      ema: averages of both, `{"params": …, "stats": …}`, or an empty dictionary if no average is kept.
      rng: data of the run's random key; every step folds in its own number.
    """

    # The fields may also hold shapes, shardings or specs in place of arrays, so no annotation has a shape.
    step: Any  # int32 []
    params: Tensors
    stats: Tensors
    opt_state: Any
    ema: dict[str, Tensors]
    rng: Any  # uint32 [2]

    @property
    def evaluated(self) -> tuple[Tensors, Tensors]:
        """The parameters and statistics to evaluate: the averages, if they are kept."""
        return (self.ema["params"], self.ema["stats"]) if self.ema else (self.params, self.stats)


def create(
    params: Tensors, stats: Tensors, optimizer: optax.GradientTransformation, *, ema: bool, seed: int
) -> TrainState:
    """Return the state before the first step; the average starts at the initial weights."""

    def copy(tree: Any) -> Any:
        return jax.tree.map(jnp.copy, tree)  # buffers are donated, so no two leaves may share one

    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        stats=stats,
        opt_state=jax.jit(optimizer.init)(params),
        ema={"params": copy(params), "stats": copy(stats)} if ema else {},
        rng=jax.random.key_data(jax.random.key(seed)),
    )

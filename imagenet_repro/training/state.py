"""The state that a run carries from step to step, and that a checkpoint stores."""

import dataclasses
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax

from imagenet_repro.training.functional import Tensors

TEACHER = "teacher."  # before the names of a teacher's tensors (training/distillation.py)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The pytree that a training step maps to the next one.

    Attributes:
      step: number of steps taken.
      params: float32 parameters by name.
      stats: float32 running statistics of batch norm by name.
      opt_state: state of the optimizer, for the parameters that are trained.
      ema: averages of both, `{"params": …, "stats": …}`, without those that are frozen; an empty dictionary if no
        average is kept.
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
        own = self.without_teacher()
        if not self.ema:
            return own.params, own.stats
        return own.params | self.ema["params"], own.stats | self.ema["stats"]

    def without_teacher(self) -> "TrainState":
        """Return the state without the tensors of a teacher, as checkpoints hold it."""
        params, stats = ({n: x for n, x in t.items() if not is_teachers(n)} for t in (self.params, self.stats))
        return dataclasses.replace(self, params=params, stats=stats)


def is_teachers(name: str) -> bool:
    """Return whether a tensor belongs to a teacher."""
    return name.startswith(TEACHER)


def create(
    params: Tensors,
    stats: Tensors,
    optimizer: optax.GradientTransformation,
    *,
    ema: bool,
    seed: int,
    frozen: Collection[str] = (),
) -> TrainState:
    """Return the state before the first step; the average starts at the initial weights.

    Args:
      params: float32 parameters by name.
      stats: running statistics by name.
      optimizer: transformation of the gradients of those that are not frozen.
      ema: whether an average is kept.
      seed: of the run.
      frozen: names of parameters and statistics that no step changes: no optimizer state and no average is kept.
    """

    def moving(tensors: Tensors) -> Tensors:
        return {name: value for name, value in tensors.items() if name not in frozen}

    def copy(tree: Tensors) -> Tensors:
        return jax.tree.map(jnp.copy, moving(tree))  # buffers are donated, so no two leaves may share one

    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        stats=stats,
        opt_state=jax.jit(optimizer.init)(moving(params)),
        ema={"params": copy(params), "stats": copy(stats)} if ema else {},
        rng=jax.random.key_data(jax.random.key(seed)),
    )

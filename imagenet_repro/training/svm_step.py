"""The step of linear machines on codes, written for one device as training/step.py's is for networks.

The SVMs of all channels take it together, each on its own codes of the same images. `parallel` spreads it in the same
three ways; under `fsdp` every machine's weights are cut along its features.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from imagenet_repro.config import Svm
from imagenet_repro.features import svm
from imagenet_repro.scoring import metrics
from imagenet_repro.training.functional import Tensors
from imagenet_repro.training.state import TrainState
from imagenet_repro.training.step import AXIS, REPLICATED, Batch, ParameterLayout

CODES = "codes."  # before a channel's name: its codes in a batch


def initial(features: dict[str, int], classes: int) -> Tensors:
    """Weights of zero for channels whose codes have so many numbers."""
    weights = {f"{channel}.weight": jnp.zeros((count, classes)) for channel, count in features.items()}
    return weights | {f"{channel}.bias": jnp.zeros(classes) for channel in features}


def scores(params: Tensors, codes: dict[str, Float[Array, "n _f"]], problem: Svm) -> Float[Array, "n c"]:
    """The mean over the channels of their machines' scores."""
    found = [
        svm.scores(x, params[f"{channel}.weight"], params[f"{channel}.bias"], problem) for channel, x in codes.items()
    ]
    return sum(found) / len(found)


@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity, as compilation caches want it
class SvmStep:
    """`step(state, batch, learning_rate) -> (state, measures)`, with the two halves of `TrainStep`.

    The averages of the weights, which are what is evaluated, stand where a network has its exponential ones.

    Args:
      channels: whose machines are trained.
      problem: of each of them.
      average_from: steps before the first whose weights are averaged.
    """

    channels: tuple[str, ...]
    problem: Svm
    average_from: int

    def __call__(
        self, state: TrainState, batch: Batch, learning_rate: ArrayLike
    ) -> tuple[TrainState, dict[str, Array]]:
        """One device's step on its share: `label`, and for each channel `codes.NAME`, [b, f] in float32.

        Returns:
          The next state, and over the whole batch: `loss`, the mean over images of the sum over classes, averaged over
          channels; `top1_correct` and `top5_correct` of the weights before the step, not averaged; `gradient_norm`;
          `learning_rate`.
        """
        return self.update(state, *self.gradients(state, batch), learning_rate)

    def gradients(
        self, state: TrainState, batch: Batch, layout: ParameterLayout = REPLICATED
    ) -> tuple[Tensors, Tensors, dict[str, Array]]:
        """Mean gradient of the loss, the vocabulary as it was, and measures, reduced over the axis "data"."""
        key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
        key = jax.random.fold_in(key, lax.axis_index(AXIS))
        of_params = jax.value_and_grad(self._losses, has_aux=True)
        (_, measures), gradients = of_params(state.params, key, batch, layout.gather)
        mean = {"loss": lax.pmean(measures.pop("loss"), AXIS)}
        return layout.reduce(gradients), state.stats, mean | lax.psum(measures, AXIS)

    def update(
        self,
        state: TrainState,
        gradients: Tensors,
        stats: Tensors,
        measures: dict[str, Array],
        learning_rate: ArrayLike,
    ) -> tuple[TrainState, dict[str, Array]]:
        """The state after the step, whose length follows from the number of the step and not from `learning_rate`."""
        del learning_rate
        length = svm.rate(state.step, self.problem)
        params = {
            name: svm.descend(value, gradients[name], length, self.problem) for name, value in state.params.items()
        }
        means = {
            name: svm.update_average(state.ema["params"][name], value, state.step, self.average_from)
            for name, value in params.items()
        }
        ema = {"params": means, "stats": stats}
        measures = measures | {"gradient_norm": optax.tree.norm(gradients), "learning_rate": length}
        return TrainState(state.step + 1, params, stats, state.opt_state, ema, state.rng), measures

    def _losses(
        self, params: Tensors, key: Array, batch: Batch, gather: Callable[[Tensors], Tensors]
    ) -> tuple[Array, dict[str, Array]]:
        """The sum over channels of each machine's loss, whose gradient each takes for itself."""
        params, labels = gather(params), batch["label"]
        total, losses = 0.0, []
        for number, channel in enumerate(self.channels):
            weights, bias = params[f"{channel}.weight"], params[f"{channel}.bias"]
            found = svm.scores(batch[CODES + channel], weights, bias, self.problem)
            losses.append(svm.loss(found, labels, jax.random.fold_in(key, number), self.problem).mean())
            total += found
        counts = metrics.correct_counts(total, labels, jnp.ones(len(labels), jnp.float32))
        measures = {"loss": sum(losses) / len(losses), **{k: counts[k] for k in ("top1_correct", "top5_correct")}}
        return sum(losses), measures

"""The training step of linear SVMs on codes, written for one device like that of networks (training/step.py).

The SVMs of all channels take the step together, each on its own codes of the same images. `parallel` spreads it in the
same three ways; under `fsdp` the weights of every SVM are split along its features.
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
from imagenet_repro.models.nn.shards import complete
from imagenet_repro.scoring import metrics
from imagenet_repro.training.functional import Tensors
from imagenet_repro.training.state import TrainState
from imagenet_repro.training.step import AXIS, REPLICATED, Batch, ParameterLayout

CODES = "codes."  # prefix of a channel's name, for its codes in a batch


def initial(features: dict[str, int], classes: int) -> Tensors:
    """Return weights of zero; `features` has the length of each channel's codes."""
    weights = {f"{channel}.weight": jnp.zeros((count, classes)) for channel, count in features.items()}
    return weights | {f"{channel}.bias": jnp.zeros(classes) for channel in features}


def scores(params: Tensors, codes: dict[str, Float[Array, "n _f"]], problem: Svm) -> Float[Array, "n c"]:
    """Return the mean over the channels of their SVMs' scores; a parameter may be a `Shard`."""
    params = complete(params)
    channel_scores = [
        svm.scores(x, params[f"{channel}.weight"], params[f"{channel}.bias"], problem) for channel, x in codes.items()
    ]
    return sum(channel_scores, start=jnp.zeros(())) / len(channel_scores)


@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity, as compilation caches want it
class SvmStep:
    """The step `(state, batch, learning_rate) -> (state, measures)`, with the two halves of `TrainStep`.

    Evaluation uses the averages of the weights, which are stored where a network has its exponential averages.

    Args:
      channels: names of the channels.
      problem: the section `svm`, the same for every channel.
      average_from: number of steps before weights are averaged.
    """

    channels: tuple[str, ...]
    problem: Svm
    average_from: int

    def __call__(
        self, state: TrainState, batch: Batch, learning_rate: ArrayLike
    ) -> tuple[TrainState, dict[str, Array]]:
        """Take one device's step on its share: `label`, and for each channel `codes.NAME`, [b, f] in float32.

        Returns:
          The next state, and measures over the whole batch: `loss`, the mean over images of the sum over classes,
          averaged over channels; `top1_correct` and `top5_correct` of the weights before the step, not averaged;
          `gradient_norm`; `learning_rate`.
        """
        return self.update(state, *self.gradients(state, batch), learning_rate)

    def gradients(
        self, state: TrainState, batch: Batch, layout: ParameterLayout = REPLICATED
    ) -> tuple[Tensors, Tensors, dict[str, Array]]:
        """Return the mean gradient of the loss, the unchanged vocabulary and measures, reduced over "data"."""
        key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
        key = jax.random.fold_in(key, lax.axis_index(AXIS))
        of_params = jax.value_and_grad(self._losses, has_aux=True)
        (_, measures), gradients = of_params(state.params, key, batch, layout.wrap)
        mean = {"loss": lax.pmean(measures.pop("loss"), AXIS)}
        return layout.reduce(gradients), state.stats, mean | lax.psum(measures, AXIS)

    def trained(self, params: Tensors) -> Tensors:
        """Return the parameters: all are trained."""
        return params

    def update(
        self,
        state: TrainState,
        gradients: Tensors,
        stats: Tensors,
        measures: dict[str, Array],
        learning_rate: ArrayLike,
    ) -> tuple[TrainState, dict[str, Array]]:
        """Return the next state; the length of the step follows from its number, and `learning_rate` is not used."""
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
        self, params: Tensors, key: Array, batch: Batch, wrap: Callable[[Tensors], Tensors]
    ) -> tuple[Array, dict[str, Array]]:
        """Return the sum of the SVMs' losses; its gradient has each SVM's own, since they share no weights."""
        params, labels = complete(wrap(params)), batch["label"]
        total = total_loss = jnp.zeros(())
        for number, channel in enumerate(self.channels):
            weights, bias = params[f"{channel}.weight"], params[f"{channel}.bias"]
            channel_scores = svm.scores(batch[CODES + channel], weights, bias, self.problem)
            loss_key = jax.random.fold_in(key, number)
            total_loss += svm.loss(channel_scores, labels, loss_key, self.problem).mean()
            total += channel_scores
        counts = metrics.correct_counts(total, labels, jnp.ones(len(labels), jnp.float32))
        measures = {
            "loss": total_loss / len(self.channels),
            **{k: counts[k] for k in ("top1_correct", "top5_correct")},
        }
        return total_loss, measures

"""The training step of two towers on image-text pairs, written for one device like that of networks."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float

from imagenet_repro.config import ContrastiveConfig, SoftmaxPairs
from imagenet_repro.data.augment import augment
from imagenet_repro.errors import UserError
from imagenet_repro.models.image_text import Similarity
from imagenet_repro.training.clock import HOSTS
from imagenet_repro.training.contrastive_loss import PairLoss, sigmoid_loss, softmax_loss
from imagenet_repro.training.functional import FunctionalNetwork, Tensors
from imagenet_repro.training.state import TrainState
from imagenet_repro.training.step import AXIS, MEANS, REPLICATED, Batch, NetworkStep, ParameterLayout

SCALE = "logit_scale"  # the parameter that is the logarithm of the scale


@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity, as compilation caches want it
class ContrastiveStep(NetworkStep):
    """The step `(state, batch, learning_rate) -> (state, measures)` on pairs of images and tokens.

    Args:
      network: both towers, as an `ImageTextNetwork`.
      config: the run's configuration.
      optimizer: as returned by `optimizer.create`.
      frozen: names of parameters and statistics that no step changes; their gradients are not computed.

    Raises:
      UserError: the batch is divided into parts, or has a single pair.
    """

    has_parts: ClassVar[bool] = False
    network: FunctionalNetwork
    config: ContrastiveConfig
    optimizer: optax.GradientTransformationExtraArgs
    frozen: frozenset[str] = frozenset()

    def __post_init__(self):
        check_batch(self.config)

    def gradients(
        self, state: TrainState, batch: Batch, layout: ParameterLayout = REPLICATED
    ) -> tuple[Tensors, Tensors, dict[str, Array]]:
        """Return the mean gradient, the averaged running statistics and the measures, reduced over the axis "data".

        `layout` defines how a device's parameters are completed and its gradients averaged. The measures are `loss`
        (mean), `top1_correct` and `top5_correct`, the numbers of images whose own text is the most similar of the
        whole batch, or among the five most similar, `scale`, the inverse temperature, and `hosts` as in `TrainStep`.
        """
        run_key = jax.random.wrap_key_data(state.rng)  # not the seed: one compiled step fits every seed
        key = jax.random.fold_in(jax.random.fold_in(run_key, state.step), lax.axis_index(AXIS))
        trained = self.trained(state.params)
        frozen = {name: value for name, value in state.params.items() if name not in trained}
        fixed_stats = {name: value for name, value in state.stats.items() if name in self.frozen}

        def loss_of(trained: Tensors) -> tuple[Array, tuple[Tensors, dict[str, Array]]]:
            images = self._images(batch, run_key)
            params = layout.wrap(trained | frozen)
            pairs, stats = self.network.train_pairs(params, state.stats, key, images, batch["tokens"])
            loss, better = self._pair_loss(pairs)
            counts = {f"top{n}_correct": (better < n).sum(dtype=jnp.int32) for n in (1, 5)}
            return loss, (stats, {"loss": loss, "scale": pairs.scale, **counts})

        (_, (stats, measures)), gradients = jax.value_and_grad(loss_of, has_aux=True)(trained)
        means = {name: measures.pop(name) for name in (*MEANS, "scale") if name in measures}
        if HOSTS in batch:
            measures[HOSTS] = batch[HOSTS].sum(0)
        stats = lax.pmean(stats, AXIS) | fixed_stats  # a mean of equal numbers may be rounded
        return layout.reduce(gradients), stats, lax.pmean(means, AXIS) | lax.psum(measures, AXIS)

    def bounded(self, trained: Tensors) -> Tensors:
        """Return the parameters with the scale clipped (Radford et al. 2021, sec. 2.5; to at least 1 in open_clip)."""
        loss = self.config.loss
        if not isinstance(loss, SoftmaxPairs) or SCALE not in trained:
            return trained
        return trained | {SCALE: jnp.clip(trained[SCALE], 0.0, math.log(loss.max_scale))}

    def _images(self, batch: Batch, run_key: Array) -> Float[Array, "b h w 3"]:
        """Return the augmented images; pairs have no classes, so the targets are of one class and are not used."""
        labels = jnp.zeros(len(batch["image"]), jnp.int32)
        spec = self.config.augment
        return augment.augment(
            batch["image"], labels, batch["epoch"], batch["index"], seed=run_key, spec=spec, num_classes=1
        )[0]

    def _pair_loss(self, pairs: Similarity) -> PairLoss:
        """Return this device's share of the loss; raise UserError where the towers' features differ in width."""
        widths = pairs.images.shape[1], pairs.texts.shape[1]
        if widths[0] != widths[1]:
            raise UserError(
                f"config.model: the features of images have {widths[0]} numbers and those of texts {widths[1]}, and"
                " they must be in one space; give both towers the same number of features"
            )
        if isinstance(self.config.loss, SoftmaxPairs):
            return softmax_loss(pairs.images, pairs.texts, pairs.scale)
        assert pairs.bias is not None, "the system gives networks without a bias one"
        return sigmoid_loss(pairs.images, pairs.texts, pairs.scale, pairs.bias)


def check_batch(config: ContrastiveConfig) -> None:
    """Raise UserError where a batch is divided into parts, whose pairs would not be compared, or has a single pair."""
    if config.accumulate != 1:
        raise UserError(
            f"config.accumulate: {config.accumulate} parts would each be a smaller batch with fewer negatives, since"
            " the loss compares all pairs of a batch with each other; set it to 1. config.parallel=fsdp, more devices,"
            " or config.model.options.remat=true need less memory for the same batch"
        )
    if config.batch_size < 2:
        raise UserError(f"config.batch_size: {config.batch_size} pair has no negatives; at least 2 are needed")

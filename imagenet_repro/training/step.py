"""The training and the evaluation step, each written for one device and its share of the batch.

The steps reduce over the axis "data".
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int

from imagenet_repro.config import Config, NoDistillation
from imagenet_repro.data.augment import augment
from imagenet_repro.models.nn.network import WithAuxiliary
from imagenet_repro.scoring import metrics
from imagenet_repro.training import distillation, loss
from imagenet_repro.training.clock import HOSTS
from imagenet_repro.training.functional import FunctionalNetwork, Tensors
from imagenet_repro.training.optimizer import average, bound_filters
from imagenet_repro.training.state import TrainState

AXIS = "data"
MEANS = ("loss", "objective")  # measures that are means over images; the others are counts
Batch = dict[str, Any]  # arrays of data/batch.py on the device


@runtime_checkable
class ParameterLayout(Protocol):
    """The layout of a step's parameters on the devices."""

    def wrap(self, params: Tensors) -> Tensors:
        """Return what a network takes for the parameters that a device holds: these, or a `Shard` for each part."""
        ...

    def reduce(self, gradients: Tensors) -> Tensors:
        """Return the mean over devices of the gradients with respect to the parameters that a device holds."""
        ...


class ReplicatedParameters:
    """A `ParameterLayout` in which every device holds a copy of each parameter."""

    def wrap(self, params: Tensors) -> Tensors:
        """Return the parameters as they are."""
        return params

    def reduce(self, gradients: Tensors) -> Tensors:
        """Return the mean over devices."""
        return lax.pmean(gradients, AXIS)


REPLICATED = ReplicatedParameters()


@runtime_checkable
class DeviceStep(Protocol):
    """A training step of one device, in two halves that `fsdp` spreads differently."""

    def __call__(
        self, state: TrainState, batch: Batch, learning_rate: ArrayLike
    ) -> tuple[TrainState, dict[str, Array]]:
        """Take one step; every device leaves it with the same state."""
        ...

    def trained(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return the entries of parameters, or of anything else by their names, that the step trains."""
        ...

    def gradients(
        self, state: TrainState, batch: Batch, layout: ParameterLayout = ...
    ) -> tuple[Tensors, Tensors, dict[str, Array]]:
        """Return mean gradients of the trained parameters, statistics and measures, reduced over the axis "data"."""
        ...

    def update(
        self,
        state: TrainState,
        gradients: Tensors,
        stats: Tensors,
        measures: dict[str, Array],
        learning_rate: ArrayLike,
    ) -> tuple[TrainState, dict[str, Array]]:
        """Return the state after the optimizer, and the measures with those of the update."""
        ...


class NetworkStep(abc.ABC):
    """The half of a step that every network's has: the update of what is trained.

    Attributes:
      network: the network to train.
      config: the run's configuration.
      optimizer: as returned by `optimizer.create`.
      frozen: names of parameters and statistics that no step changes; their gradients are not computed.
      has_parts: whether a batch can be computed in parts, one after the other (`config.accumulate`).
    """

    has_parts: ClassVar[bool] = True
    network: FunctionalNetwork
    config: Config
    optimizer: optax.GradientTransformationExtraArgs
    frozen: frozenset[str]

    def __call__(
        self, state: TrainState, batch: Batch, learning_rate: ArrayLike
    ) -> tuple[TrainState, dict[str, Array]]:
        """Take one device's step; every device leaves it with the same state.

        Args:
          state: the same on every device.
          batch: this device's share.
          learning_rate: float32 [], the rate of this step.

        Returns:
          The next state, and measures over the whole batch: those of `gradients`, `gradient_norm` and `learning_rate`.
        """
        gradients, stats, measures = self.gradients(state, batch)
        return self.update(state, gradients, stats, measures, learning_rate)

    @abc.abstractmethod
    def gradients(
        self, state: TrainState, batch: Batch, layout: ParameterLayout = REPLICATED
    ) -> tuple[Tensors, Tensors, dict[str, Array]]:
        """Return the mean gradient, the running statistics and the measures, reduced over the axis "data"."""

    def trained(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return the entries that are not frozen."""
        return {name: value for name, value in params.items() if name not in self.frozen}

    def bounded(self, trained: Tensors) -> Tensors:
        """Return the parameters after an update, within bounds that the loss may set."""
        return trained

    def replace(self, **fields: Any) -> "NetworkStep":
        """Return the step with other values of some fields."""
        return dataclasses.replace(self, **fields)  # pyright: ignore[reportArgumentType,reportType]  # a dataclass

    def update(
        self,
        state: TrainState,
        gradients: Tensors,
        stats: Tensors,
        measures: dict[str, Array],
        learning_rate: ArrayLike,
    ) -> tuple[TrainState, dict[str, Array]]:
        """Return the state after the optimizer, and `measures` with the gradient's norm and the learning rate."""
        config = self.config
        trained = self.trained(state.params)
        updates, opt_state = self.optimizer.update(gradients, state.opt_state, trained, learning_rate=learning_rate)
        trained: Any = optax.apply_updates(trained, updates)
        if config.max_filter_rms:
            trained = bound_filters(trained, config.max_filter_rms)
        trained = self.bounded(trained)
        ema: Any = state.ema
        if ema:
            ema = self._average(ema, state.step, opt_state, trained, self.trained(stats))
        params = state.params | trained
        measures = measures | {"gradient_norm": optax.tree.norm(gradients), "learning_rate": learning_rate}
        return TrainState(state.step + 1, params, stats, opt_state, ema, state.rng), measures

    def _average(
        self, ema: dict[str, Tensors], step: Array, opt_state: Any, params: Tensors, stats: Tensors
    ) -> dict[str, Tensors]:
        """Return the averages that are evaluated, after a step."""
        own = average(self.config.optimizer, opt_state, params)
        if own is not None:
            return {"params": own, "stats": stats}
        # optax takes and returns trees whose type says nothing of ours.
        new: Any = {"params": params, "stats": stats}
        old: Any = ema
        mean: Any = optax.incremental_update(new, old, self._share_of_new(step))
        return mean

    def _share_of_new(self, step: Int[Array, ""]) -> float | Float[Array, ""]:
        """Return one minus the decay of the average at the update that follows `step` others."""
        share = 1.0 - self.config.ema_decay
        # t counts this update too, as in the code of EfficientNet; 1 - (1 + t) / (10 + t) is 9 / (10 + t).
        return jnp.maximum(share, 9.0 / (11.0 + step)) if self.config.ema_warmup else share


@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity, as compilation caches want it
class TrainStep(NetworkStep):
    """The step `(state, batch, learning_rate) -> (state, measures)`, in two halves that `fsdp` spreads differently.

    Args:
      network: the network to train.
      config: the run's configuration.
      num_classes: the number of classes of the data set.
      optimizer: as returned by `optimizer.create`.
      frozen: names of parameters and statistics that no step changes; their gradients are not computed.
      teacher: whose tensors are in the state (`Teacher.tensors`); None: the labels alone.
    """

    network: FunctionalNetwork
    config: Config
    num_classes: int
    optimizer: optax.GradientTransformationExtraArgs
    frozen: frozenset[str] = frozenset()
    teacher: distillation.Teacher | None = None

    def gradients(
        self, state: TrainState, batch: Batch, layout: ParameterLayout = REPLICATED
    ) -> tuple[Tensors, Tensors, dict[str, Array]]:
        """Return the mean gradient, the averaged running statistics and the measures, reduced over the axis "data".

        `layout` defines how a device's parameters are completed and its gradients averaged. The measures are `loss`
        (mean), `top1_correct` and `top5_correct` (counts against the heavier label where labels are mixed). They are
        those of the main head. Where there are auxiliary heads or a teacher, `objective` is the loss with theirs,
        which is minimised. Where the batch has an entry for several processes (`clock.Agreement`), `hosts` is its sum
        over the images.
        """
        run_key = jax.random.wrap_key_data(state.rng)  # not the seed: one compiled step fits every seed
        key = jax.random.fold_in(run_key, state.step)
        parts = jax.tree.map(self._split, batch)
        trained = self.trained(state.params)
        frozen = {name: value for name, value in state.params.items() if name not in trained}
        fixed_stats = {name: value for name, value in state.stats.items() if name in self.frozen}

        def wrap(trained: Tensors) -> Tensors:
            return layout.wrap(trained | frozen)

        def teach(images: Array) -> Array:
            assert self.teacher is not None
            return self.teacher.logits(wrap({}), fixed_stats, images, self.config.augment)

        def part(stats: Tensors, inputs: tuple[Array, Batch]) -> tuple[Tensors, tuple[Tensors, dict[str, Array]]]:
            number, share = inputs
            part_key = jax.random.fold_in(jax.random.fold_in(key, lax.axis_index(AXIS)), number)
            loss_of = functools.partial(self._loss, run_key=run_key, key=part_key, batch=share, wrap=wrap, teach=teach)
            objective = jax.value_and_grad(loss_of, has_aux=True)
            (_, (stats, measures)), gradients = objective(trained, stats)
            return stats, (gradients, measures)

        if self.config.accumulate == 1:
            stats, (gradients, measures) = part(
                state.stats, (jnp.zeros((), jnp.int32), jax.tree.map(lambda x: x[0], parts))
            )
        else:
            stats, gradients, measures = _scan_sum(part, state.stats, parts, self.config.accumulate)
        scale = 1.0 / self.config.accumulate
        gradients = layout.reduce(jax.tree.map(lambda g: g * scale, gradients))
        means = {name: measures.pop(name) * scale for name in MEANS if name in measures}
        if HOSTS in batch:
            measures[HOSTS] = batch[HOSTS].sum(0)
        stats = lax.pmean(stats, AXIS) | fixed_stats  # a mean of equal numbers may be rounded
        return gradients, stats, lax.pmean(means, AXIS) | lax.psum(measures, AXIS)

    def _split(self, x: Array) -> Array:
        return x.reshape(self.config.accumulate, x.shape[0] // self.config.accumulate, *x.shape[1:])

    def _loss(
        self,
        params: Tensors,
        stats: Tensors,
        *,
        run_key: Array,
        key: Array,
        batch: Batch,
        wrap: Callable[[Tensors], Tensors],
        teach: Callable[[Array], Array] | None = None,
    ) -> tuple[Array, tuple[Tensors, dict[str, Array]]]:
        images, targets = augment.augment(
            batch["image"],
            batch["label"],
            batch["epoch"],
            batch["index"],
            seed=run_key,
            spec=self.config.augment,
            num_classes=self.num_classes,
        )
        output, stats = self.network.train(wrap(params), stats, key, images)
        output = output if isinstance(output, WithAuxiliary) else WithAuxiliary(output, (), 0.0)
        logits = output.logits
        if self.teacher is None or teach is None:
            main, objective = self._label_loss(output, targets)
        else:
            main, objective = self._distilled_loss(output, targets, teach(images))
        counts = metrics.correct_counts(
            logits, jnp.argmax(targets, -1).astype(jnp.int32), jnp.ones(len(logits), jnp.float32)
        )
        measures = {"loss": main, **{k: counts[k] for k in ("top1_correct", "top5_correct")}}
        has_others = bool(output.auxiliary) or self.teacher is not None
        return objective, (stats, measures | ({"objective": objective} if has_others else {}))

    def _label_loss(self, output: WithAuxiliary, targets: Array) -> tuple[Array, Array]:
        """Return the main head's loss against the labels, and its sum with the auxiliary heads' losses."""
        heads = (output.logits, *output.auxiliary)
        main, *others = (loss.per_image(self.config.loss, head, targets).mean() for head in heads)
        return main, main + output.weight * sum(others) if others else main

    def _distilled_loss(self, output: WithAuxiliary, targets: Array, teacher: Array) -> tuple[Array, Array]:
        """Return the main head's loss against the labels, and the weighted mean of the labels' and the teacher's loss.

        A distillation head learns from the teacher alone, the class head from the labels alone (Touvron et al. 2020,
        sec. 4). In a network without one the main head learns from both; auxiliary heads learn from the labels.
        """
        spec = self.config.distill
        assert not isinstance(spec, NoDistillation)
        student, labelled = output.logits, output
        if output.is_distilled:
            student, labelled = output.auxiliary[0], WithAuxiliary(output.logits, (), 0.0)
        main, objective = self._label_loss(labelled, targets)
        against_teacher = distillation.per_image(spec, student, teacher).mean()
        return main, (1 - spec.alpha) * objective + spec.alpha * against_teacher


def _scan_sum(part: Callable, stats: Tensors, parts: Batch, number: int) -> tuple[Tensors, Tensors, dict[str, Array]]:
    """Run `part` over the parts of a batch; carry the statistics along, and sum the gradients and measures."""

    def body(carry: tuple, inputs: tuple) -> tuple:
        stats, total = carry
        stats, new = part(stats, inputs)
        return (stats, jax.tree.map(jnp.add, total, new)), None

    first = jax.tree.map(lambda x: x[0], parts)
    stats, total = part(stats, (jnp.zeros((), jnp.int32), first))
    rest = jax.tree.map(lambda x: x[1:], parts)
    (stats, (gradients, measures)), _ = lax.scan(body, (stats, total), (jnp.arange(1, number), rest))
    return stats, gradients, measures


@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity, as compilation caches want it
class EvalStep:
    """The step `(params, stats, batch) -> (counts, predictions)` for one device's share.

    `counts` are integers over all devices: `images`, `top1_correct`, `top5_correct`, and the float32 sum
    `cross_entropy`; `predictions` stay on their device: `top5` and `logits`.

    Args:
      score: from parameters, statistics and uint8 images to the score of every class.
    """

    score: Callable[[Tensors, Tensors, Array], Array]

    def __call__(self, params: Tensors, stats: Tensors, batch: Batch) -> tuple[dict[str, Array], dict[str, Array]]:
        """Score one share; padding and undecodable images have weight zero."""
        logits = self.score(params, stats, batch["image"]).astype(jnp.float32)
        weights = batch["weight"]
        counts = metrics.correct_counts(logits, batch["label"], weights)
        entropy = metrics.cross_entropy(logits, batch["label"])
        counts["cross_entropy"] = metrics.weighted_sum(entropy, weights)
        return lax.psum(counts, AXIS), {"top5": metrics.top5(logits), "logits": logits}

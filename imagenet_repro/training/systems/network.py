"""Networks: construction from a configuration, and placement on devices."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, UInt8

from imagenet_repro import models, pretrained
from imagenet_repro.config import Config, Model, ScheduleFreeAdamW
from imagenet_repro.data.augment import augment
from imagenet_repro.data.batch import TRAINING_KEYS, Key, padding
from imagenet_repro.data.captions import Captioner
from imagenet_repro.data.sources import Split
from imagenet_repro.errors import UserError
from imagenet_repro.models import dense, depth, parameter_names
from imagenet_repro.models.nn.network import Network
from imagenet_repro.training import finetuning, learning_rate, optimizer, parallel, progressive, state
from imagenet_repro.training.distillation import Teacher
from imagenet_repro.training.functional import FunctionalNetwork, Tensors
from imagenet_repro.training.parallel import Spread
from imagenet_repro.training.state import TrainState
from imagenet_repro.training.step import TrainStep
from imagenet_repro.training.systems.system import PreparationCost, step_flops
from imagenet_repro.zoo import counting

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float64": jnp.float64}
RESERVED_OPTIONS = {  # options that the run itself sets, and their source
    "name": "config.model.name",
    "num_classes": "the data set",
    "dtype": "config.precision",
    "seed": "config.seed",
    "rngs": "config.seed",
}


@dataclasses.dataclass
class NetworkSystem:
    """A network as a `System`.

    Attributes:
      config: the configuration of the run.
      num_classes: the number of classes of the data set.
      network: the network as pure functions.
      spread: the way in which batches and parameters are spread over devices.
      optimizer: the transformation of gradients into updates.
      frozen: names of parameters and statistics that no step changes.
      teacher: whose labels it learns from (training/teachers.py); None: the labels alone.
      loaded: the report on the weights that the network starts from; None where it starts from random values.
    """

    config: Config
    num_classes: int
    network: FunctionalNetwork
    spread: Spread
    optimizer: optax.GradientTransformationExtraArgs
    frozen: frozenset[str] = frozenset()
    loaded: pretrained.Report | None = None
    teacher: Teacher | None = None

    @classmethod
    def create(
        cls,
        config: Config,
        num_classes: int,
        weights: str | pretrained.Weights = "",
        *,
        drop_background: bool = False,
        class_names: Sequence[str] = (),
    ) -> "NetworkSystem":
        """Build the network; only its initialisation is compiled.

        Args:
          config: the configuration of the run.
          num_classes: the number of classes of the data set.
          weights: a file, or its contents, in place of the random initial values; empty: none.
          drop_background: as in `pretrained.load`.
          class_names: names of the data set's classes, with which those of the file are compared; empty: only their
            number is.

        Raises:
          UserError: as `models.create` and `pretrained.load`, an option that the run itself sets, or a name in
            `config.train` that the network does not have.
        """
        check_options(config.model)
        if config.precision == "float32":
            jax.config.update("jax_default_matmul_precision", "highest")  # JAX would use bf16 or TF32 passes
        if config.precision == "float64":
            jax.config.update("jax_enable_x64", True)
        spread = parallel.create(config.parallel, deterministic=config.deterministic)
        with spread.initial_device():
            model = models.create(
                config.model.name,
                num_classes=num_classes,
                dtype=DTYPES[config.precision],
                seed=config.seed,
                **config.model.options,
            )
            loaded = (
                pretrained.load(model, weights, drop_background=drop_background, class_names=class_names)
                if weights
                else None
            )
        return cls._assemble(config, num_classes, model, spread, loaded)

    @classmethod
    def of_network(cls, config: Config, num_classes: int, network: Network) -> "NetworkSystem":
        """Return the system of a network that is there already, with its weights, to be scored."""
        if config.precision == "float32":
            jax.config.update("jax_default_matmul_precision", "highest")
        spread = parallel.create(config.parallel, deterministic=config.deterministic)
        return cls._assemble(config, num_classes, network, spread)

    @classmethod
    def abstract(cls, config: Config, num_classes: int, devices: Sequence[Any]) -> "NetworkSystem":
        """Return the system for devices that may not be here; shapes stand for its parameters, nothing is allocated.

        Args:
          config: the configuration of the run.
          num_classes: the number of classes of the data set.
          devices: all devices of all processes, or their description.

        Raises:
          UserError: as `models.abstract`, or an option that the run itself sets.
        """
        check_options(config.model)
        spread = parallel.create(config.parallel, deterministic=config.deterministic, devices=devices)
        model = _abstract(config, num_classes)
        return cls._assemble(config, num_classes, model, spread)

    @classmethod
    def _assemble(
        cls,
        config: Config,
        num_classes: int,
        model: Network,
        spread: Spread,
        loaded: pretrained.Report | None = None,
    ) -> "NetworkSystem":
        _check_norm_group(config, spread.mesh.size)
        _check_own_average(config)
        layers = depth.layers(model) if optimizer.needs_layers(config.optimizer) else None
        finetuning.prepare(model, config)
        names = parameter_names.shapes(model)
        frozen = finetuning.frozen_names(config.train, model, names)
        finetuning.check_head(loaded.replaced if loaded else (), frozen)
        network = functional(model, config, frozen)
        transformation = optimizer.create(
            config.optimizer, config.clip_norm, {name: layers(name) for name in names} if layers else None
        )
        return cls(config, num_classes, network, spread, transformation, frozen | network.fixed_stats, loaded)

    @classmethod
    def check_config(cls, config: Config, path: str = "config") -> None:
        """Raise UserError, with the key below `path`, if no network has the configuration's name."""
        try:
            models.spec(config.model.name)
        except UserError as error:
            raise UserError(f"{path}.model.name: {error}") from error

    @property
    def scores_are_logits(self) -> bool:
        """True: the softmax of a network's scores is a probability."""
        return True

    def at_stage(self, stage: int) -> "NetworkSystem":
        """Return the system as a stage of `config.progressive` trains it; all stages have the same parameters."""
        config = progressive.stage_config(self.config, stage)
        network = self.network
        if config.model != self.config.model:
            model = _abstract(config, self.num_classes)
            finetuning.prepare(model, config)
            network = functional(model, config, self.frozen)
        return dataclasses.replace(self, config=config, network=network)

    def initial_state(self) -> TrainState:
        """Return the state before the first step, on the devices. Call it once: it releases the initial values."""
        train_state = self.spread.initial_state(
            self.network.params,
            self.network.stats,
            self.optimizer,
            ema=self.config.keeps_average,
            seed=self.config.seed,
            frozen=self.frozen,
        )
        self.network.release()
        return train_state

    def check_evaluated_size(self) -> None:
        """Trace the network on images of the evaluated size, where it is not that of training.

        Raises:
          UserError: the network cannot take them.
        """
        side = self.config.data.size_evaluated
        if side != self.config.data.image_size:
            shapes = jax.eval_shape(lambda: (self.network.params, self.network.stats))
            jax.eval_shape(self.score, *shapes, jax.ShapeDtypeStruct((1, side, side, 3), jnp.uint8))

    def with_teacher(self, train_state: TrainState) -> TrainState:
        """Return a state with the teacher's tensors, on the devices, where there is a teacher."""
        return train_state if self.teacher is None else self.spread.put_state(_join(train_state, self.teacher))

    def abstract_state(self) -> TrainState:
        """Return the shapes of the state before the first step, those of a teacher included."""
        create = functools.partial(
            state.create,
            optimizer=self.optimizer,
            ema=self.config.keeps_average,
            seed=self.config.seed,
            frozen=self.frozen,
        )
        shapes = jax.eval_shape(create, self.network.params, self.network.stats)
        teacher = self.teacher
        return shapes if teacher is None else jax.eval_shape(lambda: _join(shapes, teacher))

    def scoring_state(self, train_state: TrainState) -> TrainState:
        """Return the state as it is: nothing is computed before the images."""
        return train_state

    def score(self, params: Tensors, stats: Tensors, images: UInt8[Array, "b h w 3"]) -> Float[Array, "b classes"]:
        """Return the logits of images, in evaluation mode."""
        return self.network.evaluate(params, stats, augment.normalize(images, self.config.augment))

    def class_map(
        self, params: Tensors, stats: Tensors, images: UInt8[Array, "b h w 3"]
    ) -> Float[Array, "b oh ow classes"]:
        """Return the logits at every position of larger images, in evaluation mode."""
        model = cast(Network, self.network.model(params, stats))
        return dense.class_map(model, augment.normalize(images, self.config.augment), self.config.data.size_evaluated)

    @property
    def device_keys(self) -> tuple[Key, ...]:
        """The arrays of a batch that the training step takes."""
        return TRAINING_KEYS

    def captioner(self, split: Split) -> Captioner | None:
        """Return what gives the images of a training split their captions; None: they have labels alone."""
        del split

    def train_step(self, num_examples: int) -> TrainStep:
        """Return one device's step; it does not depend on the length of an epoch."""
        del num_examples
        frozen = self.frozen | (self.teacher.names if self.teacher else frozenset())
        return TrainStep(self.network, self.config, self.num_classes, self.optimizer, frozen, self.teacher)

    def blank_batch(self, size: int) -> dict[str, np.ndarray]:
        """Return `size` black images with their labels and numbers."""
        side = self.config.data.image_size
        batch = padding(size, (side, side, 3))
        return {name: np.zeros_like(batch[name]) for name in TRAINING_KEYS}

    def flops_per_step(self, train_state: TrainState) -> int:
        """Return the floating point operations of one step over the whole batch."""
        batch = self.blank_batch(self.config.batch_size)
        batch = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in batch.items()}
        return step_flops(self.train_step(1), train_state, batch, taps=self.config.flops)

    def measure_preparation(self, num_examples: int) -> PreparationCost:
        """Return zeros: a network needs no preparation."""
        del num_examples
        return PreparationCost()

    def summary(self) -> dict[str, Any]:
        """Return the network's name, its parameters, and the multiply-adds of one image of the training size."""
        # Counted from shapes, since an option (ViT's image_size) may have the name of an argument of the count.
        shapes = models.abstract(self.config.model.name, self.num_classes, **self.config.model.options)
        return {
            "system": self.config.model.name,
            "parameters": counting.parameter_count(shapes),
            "multiply_adds": counting.multiply_adds(shapes, self.config.data.image_size),
        } | ({"trained_parameters": self.trained_parameters} if self.frozen else {})

    @property
    def trained_parameters(self) -> int:
        """The number of parameters that steps change."""
        return int(sum(x.size for name, x in self.network.params.items() if name not in self.frozen))


def with_image_size(config: Config) -> Config:
    """Return a configuration whose network is built for the size of the run's images, where it has an option for it.

    A network that starts from weights keeps their size, or its own.
    """
    model = config.model
    default = models.spec(model.name).options.get("image_size")
    if default is None or model.weights or "image_size" in model.options or default == config.data.image_size:
        return config
    options = {"image_size": config.data.image_size} | model.options
    return dataclasses.replace(config, model=dataclasses.replace(model, options=options))


def describe_loaded(report: pretrained.Report) -> str:
    """Return a sentence for a person about the weights that were loaded."""
    return "; ".join([f"weights of {report.path}", *report.notes])


def _abstract(config: Config, num_classes: int) -> Network:
    """Return the network of a configuration in shapes, as published."""
    return models.abstract(config.model.name, num_classes, DTYPES[config.precision], **config.model.options)


def functional(model: nnx.Module, config: Config, frozen: frozenset[str]) -> FunctionalNetwork:
    """Return a module as pure functions, with the batch norm that a configuration names."""
    return FunctionalNetwork(
        model,
        cross_device_norm=config.cross_device_norm,
        norm_group=config.norm_group,
        frozen=frozen,
        frozen_norm=config.train.frozen_norm,
    )


def _join(train_state: TrainState, teacher: Teacher) -> TrainState:
    params, stats = teacher.tensors()
    return dataclasses.replace(train_state, params=train_state.params | params, stats=train_state.stats | stats)


def _check_norm_group(config: Config, devices: int) -> None:
    """Raise UserError for a group that does not divide the devices, or that nothing reads."""
    if config.norm_group and not config.cross_device_norm:
        raise UserError(
            f"config.norm_group: {config.norm_group} has no effect without config.cross_device_norm=true; set it too"
        )
    if config.norm_group and devices % config.norm_group:
        raise UserError(
            f"config.norm_group: {devices} device(s) do not divide into groups of {config.norm_group}; take a divisor"
        )


def _check_own_average(config: Config) -> None:
    """Raise UserError for settings that contradict an optimizer that evaluates an average of its own."""
    if not isinstance(config.optimizer, ScheduleFreeAdamW):
        return
    name = config.optimizer.name
    if config.ema_decay:
        raise UserError(f"config.ema_decay: {name} evaluates an average of its own; set config.ema_decay=0")
    if config.max_filter_rms:
        raise UserError(
            f"config.max_filter_rms: {name} averages iterates that a limit on filters would change; set it to 0"
        )
    if learning_rate.falls(config.schedule):
        raise UserError(
            f"config.schedule: {name} needs a rate that stays at its peak after the warm-up;"
            " set config.schedule.name=linear and config.schedule.final=1"
        )


def check_options(model: Model) -> None:
    """Raise UserError for options that `NetworkSystem.create` sets, which the network's own check never sees."""
    for option in model.options:
        if option in RESERVED_OPTIONS:
            raise UserError(f"config.model.options: '{option}' follows from {RESERVED_OPTIONS[option]}; leave it out")
        if not isinstance(option, str):
            raise UserError(f"config.model.options: {option!r} is not the name of an option; a string is needed")

"""Systems before 2012, with hand-made features and linear SVMs: construction, and placement on devices."""

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, UInt8

from imagenet_repro.config import FeatureConfig
from imagenet_repro.config.amount import Amount
from imagenet_repro.errors import UserError
from imagenet_repro.features.channel_encoder import ChannelEncoder
from imagenet_repro.training import parallel, svm_step
from imagenet_repro.training.budget import Meter
from imagenet_repro.training.functional import Tensors
from imagenet_repro.training.parallel import Spread
from imagenet_repro.training.state import TrainState
from imagenet_repro.training.svm_step import CODES, SvmStep
from imagenet_repro.training.systems.system import PreparationCost, step_flops
from imagenet_repro.zoo import counting

IMAGES_MEASURED = 32  # the most images whose coding is timed


@dataclasses.dataclass
class FeatureSystem:
    """Channels of hand-made features and their SVMs, as a `System`.

    A state's `params` are those of the SVMs, `CHANNEL.weight` and `CHANNEL.bias`. Its `stats` are the vocabularies,
    such as `CHANNEL.mixture.means`.

    Attributes:
      config: the configuration of the run.
      num_classes: the number of classes of the data set.
      encoders: the encoder of each channel, for images of the training size.
      spread: the way in which batches and parameters are spread over devices.
    """

    config: FeatureConfig
    num_classes: int
    encoders: dict[str, ChannelEncoder]
    spread: Spread

    @classmethod
    def create(cls, config: FeatureConfig, num_classes: int) -> "FeatureSystem":
        """Build the encoders; nothing is compiled.

        Raises:
          UserError: a key that such a system does not read, several processes, or a channel that cannot be built.
        """
        if config.data.repeats != 1:
            raise UserError("config.data.repeats: a system of features sees every image as it is; it must be 1")
        if jax.process_count() > 1:
            raise UserError(
                f"systems of features train in one process, over all its devices; here are {jax.process_count()}"
            )
        jax.config.update("jax_default_matmul_precision", "highest")  # JAX would use bf16 or TF32 passes
        spread = parallel.create(config.parallel, deterministic=config.deterministic)
        return cls(config, num_classes, create_encoders(config, config.data.image_size), spread)

    @classmethod
    def check_config(cls, config: FeatureConfig, path: str = "config") -> None:
        """Accept every configuration: building the system is cheap, and `create` checks it."""

    @property
    def scores_are_logits(self) -> bool:
        """False: the scores are margins, whose softmax is not a probability."""
        return False

    @property
    def features(self) -> dict[str, int]:
        """The length of an image's code in each channel."""
        return {name: encoder.features for name, encoder in self.encoders.items()}

    def initial_state(self, vocabularies: dict[str, Tensors] | None = None) -> TrainState:
        """Return the state before the first step, on the devices; without vocabularies, to restore into."""
        params, stats = self.initial_values(vocabularies)
        return self.spread.initial_state(params, stats, optax.identity(), ema=True, seed=self.config.seed)

    def initial_values(self, vocabularies: dict[str, Tensors] | None = None) -> tuple[Tensors, Tensors]:
        """Return weights of zero, and the vocabularies or zeros in their place."""
        channels = vocabularies or {name: encoder.blank() for name, encoder in self.encoders.items()}
        stats = {
            f"{name}.{key}": jnp.asarray(value)
            for name, vocabulary in channels.items()
            for key, value in vocabulary.items()
        }
        return svm_step.initial(self.features, self.num_classes), stats

    def scoring_state(self, train_state: TrainState) -> TrainState:
        """Return the state as it is: nothing is computed before the images."""
        return train_state

    def score(self, params: Tensors, stats: Tensors, images: UInt8[Array, "b h w 3"]) -> Float[Array, "b classes"]:
        """Return the mean over the channels of their SVMs' scores; the codes are not quantised."""
        codes = {}
        for name, encoder in create_encoders(self.config, images.shape[1]).items():
            vocabulary = {key.removeprefix(f"{name}."): x for key, x in stats.items() if key.startswith(f"{name}.")}
            codes[name] = encoder.encode(images, vocabulary)
        return svm_step.scores(params, codes, self.config.svm)

    def class_map(
        self, params: Tensors, stats: Tensors, images: UInt8[Array, "b h w 3"]
    ) -> Float[Array, "b oh ow classes"]:
        """Raise UserError: a pyramid's cells are parts of the whole image, so there is nothing to slide."""
        raise UserError(
            f"{self.config.system} is no convolutional network, which a dense protocol needs; use a protocol of crops"
        )

    def train_step(self, num_examples: int) -> SvmStep:
        """Return one device's step of the SVMs; averaging starts at `config.svm.average_from`."""
        meter = Meter(self.config.batch_size, num_examples, 0)
        average_from = meter.steps_to(average_start(self.config))
        assert average_from is not None  # `average_start` rejects seconds
        return SvmStep(tuple(self.config.channels), self.config.svm, average_from)

    def blank_batch(self, size: int) -> dict[str, np.ndarray]:
        """Return `size` codes of zeros in each channel, with their labels."""
        codes = {CODES + name: np.zeros((size, count), np.float32) for name, count in self.features.items()}
        return codes | {"label": np.zeros(size, np.int32)}

    def flops_per_step(self, train_state: TrainState) -> int:
        """Return the floating point operations of one step over the whole batch."""
        size = self.config.batch_size
        batch = {
            CODES + name: jax.ShapeDtypeStruct((size, count), jnp.float32) for name, count in self.features.items()
        }
        batch["label"] = jax.ShapeDtypeStruct((size,), jnp.int32)
        return step_flops(self.train_step(1), train_state, batch, taps=self.config.flops)

    def measure_preparation(self, num_examples: int) -> PreparationCost:
        """Measure coding every image once, on blank images; learning the vocabularies is not included."""
        size, side = min(self.config.batch_size, IMAGES_MEASURED), self.config.data.image_size
        images = jnp.zeros((size, side, side, 3), jnp.uint8)
        seconds = flops = compilation = 0.0
        for encoder in self.encoders.values():
            blank = {name: jnp.asarray(value) for name, value in encoder.blank().items()}
            began = time.perf_counter()
            compiled = jax.jit(encoder.encode).lower(images, blank).compile()
            compilation += time.perf_counter() - began
            jax.block_until_ready(compiled(images, blank))
            began = time.perf_counter()
            jax.block_until_ready(compiled(images, blank))
            seconds += (time.perf_counter() - began) / size * num_examples
            flops += counting.flops(encoder.encode, images, blank) / size * num_examples
        return PreparationCost(seconds, flops, compilation)

    def summary(self) -> dict[str, Any]:
        """Return the system's name, its parameters with the vocabularies' numbers, and one image's multiply-adds."""
        params, stats = jax.eval_shape(self.initial_values)
        size = self.config.data.size_evaluated
        image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8)
        return {
            "system": self.config.system,
            "parameters": sum(x.size for x in jax.tree.leaves((params, stats))),
            "multiply_adds": counting.flops(self.score, params, stats, image) // 2,
        }


def create_encoders(config: FeatureConfig, image_size: int) -> dict[str, ChannelEncoder]:
    """Return the encoder of each channel, by name, for images of `image_size` pixels on a side.

    Raises:
      UserError: a channel cannot be built; the message names it.
    """
    encoders = {}
    for name, channel in config.channels.items():
        try:
            encoders[name] = ChannelEncoder(channel, image_size)
        except UserError as error:
            raise UserError(f"config.channels.{name}: {error}") from error
    return encoders


def average_start(config: FeatureConfig) -> Amount:
    """Return the amount of training from which the weights of the SVMs are averaged.

    Raises:
      UserError: the amount is in seconds or operations, which do not determine a step.
    """
    amount = Amount.parse(config.svm.average_from, "svm.average_from")
    if amount.unit in ("s", "flop"):
        raise UserError(f"config.svm.average_from: {config.svm.average_from!r} must be in epochs, images or steps")
    return amount

"""Two towers that train on image-text pairs, as a classifier of images by the texts of their classes."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int32, UInt8

from imagenet_repro import models, pretrained
from imagenet_repro.config import ContrastiveConfig, NoDistillation, SigmoidPairs, StoredCaptions
from imagenet_repro.data import prompts
from imagenet_repro.data.augment import augment
from imagenet_repro.data.batch import PAIR_KEYS, Key
from imagenet_repro.data.captions import Captioner, ClassNameCaptioner, StoredCaptioner, count_truncated
from imagenet_repro.data.sources import Split
from imagenet_repro.data.tokenizers import BYTES, Tokenizer, open_tokenizer
from imagenet_repro.errors import UserError
from imagenet_repro.models import image_text, parameter_names
from imagenet_repro.models.image_text import ImageTextNetwork, unit
from imagenet_repro.models.nn.initialisers import initialise
from imagenet_repro.models.nn.network import Network, tensor_name
from imagenet_repro.models.registry import widen_parameters
from imagenet_repro.scoring import wordnet
from imagenet_repro.training import finetuning, optimizer, parallel
from imagenet_repro.training.contrastive_step import ContrastiveStep, check_batch
from imagenet_repro.training.functional import Tensors
from imagenet_repro.training.state import TrainState
from imagenet_repro.training.systems.network import DTYPES, NetworkSystem, functional
from imagenet_repro.zoo import counting

CLASSES = "zeroshot.classes"  # among the statistics of a state that is scored: features of the classes
TEXTS_AT_ONCE = 256  # prompts that are encoded together
IMAGE = "image."  # before the names of the image tower's parameters


class PreparedCaptions(NamedTuple):
    """The captions of a training split.

    Attributes:
      captioner: gives each image one of its captions.
      truncated: number of captions that are longer than the text tower's context.
      examined: number of captions among which these were counted.
    """

    captioner: Captioner
    truncated: int
    examined: int


@dataclasses.dataclass
class ContrastiveSystem(NetworkSystem):
    """Two towers as a `System`: they train on pairs, and classify by the features of the classes' prompts.

    Attributes:
      config: the configuration of the run.
      tokenizer: of the texts.
      prompt_tokens: int32 [classes, templates, tokens], what the classifier is made of.
    """

    config: ContrastiveConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    tokenizer: Tokenizer = dataclasses.field(kw_only=True)
    prompt_tokens: np.ndarray = dataclasses.field(kw_only=True)

    @classmethod
    def create(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        config: ContrastiveConfig,
        num_classes: int,
        *,
        class_names: Sequence[str],
        weights: pretrained.Weights | None = None,
        image_tower: Network | None = None,
    ) -> "ContrastiveSystem":
        """Build both towers; only their initialisation is compiled.

        Args:
          config: the configuration of the run.
          num_classes: the number of classes of the data set.
          class_names: their names, which are in the prompts.
          weights: of both towers, in place of the random initial values; None: none.
          image_tower: a network with the weights that the image tower starts from, but for its head; None: none.

        Raises:
          UserError: a key that pairs cannot have, an unknown network or option, weights or a tokenizer that do not
            fit, or a name in `config.train` that the network does not have.
        """
        check_config(config)
        if config.precision == "float32":
            jax.config.update("jax_default_matmul_precision", "highest")  # JAX would use bf16 or TF32 passes
        if config.precision == "float64":
            jax.config.update("jax_enable_x64", True)
        spread = parallel.create(config.parallel, deterministic=config.deterministic)
        with spread.initial_device():
            model = initialise(functools.partial(build, config), jax.random.key(config.seed))
        loaded = _load(config, model, weights) if weights else None
        if image_tower is not None:
            _copy_tower(model, image_tower, _head_names(config, model.image))
        tokenizer = _open_tokenizer(config)
        _check_tokenizer(config, model, tokenizer)
        names = parameter_names.shapes(model)
        frozen = _frozen_names(config, model, names)
        network = functional(model, config, frozen)
        transformation = optimizer.create(config.optimizer, config.clip_norm, None)
        key, length = "config.zeroshot.templates", model.text.context
        tokens, _ = prompts.class_tokens(prompt_names(class_names), config.zeroshot.templates, tokenizer, length, key)
        return cls(
            config,
            num_classes,
            network,
            spread,
            transformation,
            frozen | network.fixed_stats,
            loaded,
            tokenizer=tokenizer,
            prompt_tokens=tokens,
        )

    @classmethod
    def abstract(cls, config: ContrastiveConfig, num_classes: int, devices: Sequence[Any]) -> "ContrastiveSystem":
        """Raise UserError: plans are made for networks with one tower."""
        del num_classes, devices
        raise UserError(f"{config.model.name} has two towers, and only networks with one can be planned")

    @classmethod
    def check_config(cls, config: ContrastiveConfig, path: str = "config") -> None:
        """Raise UserError, with the key below `path`, for a network that does not exist or a key that pairs refuse."""
        check_config(config, path)

    def check_evaluated_size(self) -> None:
        """See `NetworkSystem`."""
        side = self.config.data.size_evaluated
        if side != self.config.data.image_size:
            params, stats = jax.eval_shape(lambda: (self.network.params, self.network.stats))
            image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.uint8)
            jax.eval_shape(self.score, params, stats | {CLASSES: self._blank_classes(params, stats)}, image)

    def _blank_classes(self, params: Tensors, stats: Tensors) -> jax.ShapeDtypeStruct:
        tokens = jax.ShapeDtypeStruct(self.prompt_tokens.shape[1:], jnp.int32)
        features = jax.eval_shape(self._encode_texts, params, stats, tokens)
        return jax.ShapeDtypeStruct((len(self.prompt_tokens), features.shape[1]), jnp.float32)

    def scoring_state(self, train_state: TrainState) -> TrainState:
        """Return the state with the features of the classes, which are computed once for all images."""
        params, stats = train_state.evaluated
        classes, templates, length = self.prompt_tokens.shape
        texts = self.prompt_tokens.reshape(-1, length)
        rows = [self._encoder(params, stats, part) for part in _parts(texts, TEXTS_AT_ONCE)]
        features = np.concatenate([np.asarray(row) for row in rows])[: len(texts)].reshape(classes, templates, -1)
        weights = np.asarray(unit(jnp.asarray(features.mean(axis=1))))
        placed = jax.make_array_from_callback(weights.shape, self._replicated, lambda index: weights[index])
        return dataclasses.replace(train_state, stats=train_state.stats | {CLASSES: placed})

    @property
    def text_length(self) -> int:
        """The number of tokens of a text."""
        return self.prompt_tokens.shape[2]

    @property
    def _replicated(self) -> NamedSharding:
        return NamedSharding(self.spread.mesh, PartitionSpec())

    @functools.cached_property
    def _encoder(self) -> Callable[[Tensors, Tensors, Int32[np.ndarray, "b l"]], Float[Array, "b d"]]:
        """The compiled `_encode_texts`, whose result every device has."""
        return jax.jit(self._encode_texts, out_shardings=self._replicated)

    def _encode_texts(self, params: Tensors, stats: Tensors, tokens: Array) -> Float[Array, "b d"]:
        return unit(self._model(params, stats).encode_text(tokens))

    def _model(self, params: Tensors, stats: Tensors) -> ImageTextNetwork:
        model = self.network.model(params, stats)
        assert isinstance(model, ImageTextNetwork)
        return model

    def score(self, params: Tensors, stats: Tensors, images: UInt8[Array, "b h w 3"]) -> Float[Array, "b classes"]:
        """Return the scaled cosines of images with the classes, of a state that `scoring_state` returned."""
        model = self._model(params, stats)
        features = unit(model.encode_image(augment.normalize(images, self.config.augment)))
        return jnp.exp(model.logit_scale[...]) * features @ stats[CLASSES].T

    def class_map(
        self, params: Tensors, stats: Tensors, images: UInt8[Array, "b h w 3"]
    ) -> Float[Array, "b oh ow classes"]:
        """Raise UserError: the features of an image have no positions."""
        raise UserError(
            f"{self.config.model.name} compares complete images with texts, and a dense protocol needs scores at every"
            " position; use a protocol of crops"
        )

    @property
    def device_keys(self) -> tuple[Key, ...]:
        """See `NetworkSystem`."""
        return PAIR_KEYS

    def captioner(self, split: Split) -> Captioner:
        """See `NetworkSystem`."""
        return self.captions(split).captioner

    def captions(self, split: Split) -> "PreparedCaptions":
        """Return the captions of a training split, those that are stored after reading some of them.

        Raises:
          UserError: a caption is empty or missing, or a template has no place for the class.
        """
        spec = self.config.captions
        if isinstance(spec, StoredCaptions):
            stored = StoredCaptioner(self.tokenizer, self.text_length)
            return PreparedCaptions(stored, *count_truncated(split, stored))
        names, key = prompt_names(split.class_names), "config.captions.templates"
        table, n_truncated = prompts.class_tokens(names, spec.templates, self.tokenizer, self.text_length, key)
        return PreparedCaptions(ClassNameCaptioner(table), n_truncated, len(names) * len(spec.templates))

    def train_step(self, num_examples: int) -> ContrastiveStep:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return one device's step; it does not depend on the length of an epoch."""
        del num_examples
        return ContrastiveStep(self.network, self.config, self.optimizer, self.frozen)

    def blank_batch(self, size: int) -> dict[str, np.ndarray]:
        """Return `size` black images with their numbers and tokens of zero."""
        batch = super().blank_batch(size)
        del batch["label"]
        return batch | {"tokens": np.zeros((size, self.text_length), np.int32)}

    def summary(self) -> dict[str, Any]:
        """Return the network's name, the parameters of both towers, and the multiply-adds of encoding one image."""
        model = nnx.eval_shape(lambda: build(self.config, nnx.Rngs(0)))
        return {
            "system": self.config.system_name,
            "parameters": counting.parameter_count(model),
            "multiply_adds": counting.multiply_adds(model.image, self.config.data.image_size),
        } | ({"trained_parameters": self.trained_parameters} if self.frozen else {})


def check_config(config: ContrastiveConfig, path: str = "config") -> None:
    """Raise UserError for a network that does not exist, and for keys that pairs cannot have; `path` precedes them."""
    for key, check in (
        ("model.name", lambda: image_text.two_towers(config.model.name)),
        ("image.model", lambda: config.image.model and models.spec(config.image.model)),
    ):
        try:
            check()
        except UserError as error:
            raise UserError(f"{path}.{key}: {error}") from error
    for key, reason in _refused_keys(config):
        raise UserError(f"{path}.{key}: {reason}")
    check_batch(config)


def _refused_keys(config: ContrastiveConfig) -> Iterator[tuple[str, str]]:
    """Yield the keys that the configuration sets and pairs cannot have, with the reason."""
    mixed = "captions cannot be mixed or smoothed as labels are; set it to 0"
    for key in ("mixup", "cutmix", "label_smoothing"):
        if getattr(config.augment, key):
            yield f"augment.{key}", mixed
    if config.progressive.stages > 1:
        yield "progressive.stages", "two towers train at one size of images; set it to 1"
    if not isinstance(config.distill, NoDistillation):
        yield "distill.name", "a teacher's labels are for classes, and pairs have none; set it to none"
    if config.train.lora.rank:
        yield "train.lora.rank", "adapters are for networks with one tower; set it to 0"
    if config.train.zero_head:
        yield "train.zero_head", "two towers have no classifier that could start at zero; set it to False"
    if finetuning.ALL_BUT_HEAD in config.train.freeze:
        yield "train.freeze", "two towers have no classifier; config.image.locked=true trains the text tower"
    if optimizer.needs_layers(config.optimizer):
        yield "optimizer", f"{config.optimizer.name} with these settings counts layers, which two towers do not share"
    if config.image.options and not config.image.model:
        yield "image.options", "they are options of image.model, which is empty; use model.options"
    if config.model.weights and config.image.weights:
        yield "image.weights", "model.weights has an image tower too; name one of the two"
    if config.model.weights and config.image.model:
        yield "image.model", "model.weights is for the image tower of model.name; leave image.model out"


def prompt_names(class_names: Sequence[str]) -> list[str]:
    """Return the names of classes as a sentence has them: the first of an id's words, and blanks for underscores.

    Where two classes would have the same name, they keep all of their words.
    """
    complete = [name.replace("_", " ") for name in wordnet.readable_names(class_names)]
    short = [
        name.split(",")[0] if wordnet.is_wordnet_id(own) else name
        for own, name in zip(class_names, complete, strict=True)
    ]
    return [one if short.count(one) == 1 else full for one, full in zip(short, complete, strict=True)]


def with_image_size(config: ContrastiveConfig) -> ContrastiveConfig:
    """Return a configuration whose image tower is built for the size of the run's images, where it has an option.

    A tower that starts from weights keeps their size, or its own.
    """
    if config.initial_weights:
        return config
    size, image, model = config.data.image_size, config.image, config.model
    if not image.model:
        options = {"image_size": size} | model.options
        return dataclasses.replace(config, model=dataclasses.replace(model, options=options))
    if "image_size" not in models.spec(image.model).options:
        return config
    return dataclasses.replace(config, image=dataclasses.replace(image, options={"image_size": size} | image.options))


def build(config: ContrastiveConfig, rngs: nnx.Rngs) -> ImageTextNetwork:
    """Return both towers, with the image tower, the scale and the bias that the configuration names."""
    dtype = DTYPES[config.precision]
    pair = image_text.create_image_text(config.model.name, rngs, dtype=dtype, **config.model.options)
    image: Any = pair.image
    if config.image.model:
        features = image_text.two_towers(config.model.name).features
        image = models.build(config.image.model, rngs=rngs, num_classes=features, dtype=dtype, **config.image.options)
    loss = config.loss
    bias = loss.bias if isinstance(loss, SigmoidPairs) else None
    network = ImageTextNetwork(image, pair.text, scale=loss.scale, bias=bias, rngs=rngs)
    network.origin = pair.origin
    if config.precision == "float64":
        widen_parameters(network)
    return network


def _load(config: ContrastiveConfig, model: ImageTextNetwork, weights: pretrained.Weights) -> pretrained.Report:
    """Load the weights of both towers, with their scale and bias; return the report.

    Raises:
      UserError: as `pretrained.load_image_text`, or the weights were trained with the other loss.
    """
    has_bias = "logit_bias" in weights.tensors
    if has_bias != (model.logit_bias is not None):
        other = "sigmoid" if has_bias else "softmax"
        raise UserError(
            f"config.loss.name: {weights.path} {'has a' if has_bias else 'has no'} bias of the logits, so it was"
            f" trained with the {other} loss; set config.loss.name={other}"
        )
    return pretrained.load_image_text(model, weights)


def _head_names(config: ContrastiveConfig, tower: Any) -> frozenset[str]:
    """Return the names, within the image tower, of the projection to the shared features; empty if it has none."""
    if config.image.model:
        return parameter_names.head_names(tower.known_origin)
    return frozenset(name for name in parameter_names.shapes(tower) if name.startswith("head."))


def _copy_tower(model: ImageTextNetwork, source: Network, heads: frozenset[str]) -> None:
    """Copy the weights of a network into the image tower, in place, all but those of its head.

    Raises:
      UserError: a tensor is missing or has another shape.
    """
    theirs = {tensor_name(path): variable for path, variable in _variables(source)}
    unfit = []
    for path, variable in _variables(model.image):
        name = tensor_name(path)
        if name in heads:
            continue
        shape = variable.get_raw_value().shape
        found = theirs[name].get_raw_value().shape if name in theirs else None
        if found == shape:
            variable.set_value(theirs[name].get_raw_value())
        else:
            unfit.append(f"{name} is {list(shape)} here and {list(found) if found else 'missing'} there")
    if unfit:
        raise UserError(
            f"config.image.weights: {len(unfit)} tensors do not fit the image tower: {'; '.join(unfit[:3])}. Name its"
            " network under config.image.model, with config.image.options and config.data.image_size of the weights"
        )


def _variables(module: nnx.Module) -> list[tuple[Any, Any]]:
    return list(nnx.to_flat_state(nnx.state(module, nnx.Any(nnx.Param, nnx.BatchStat))))


def _open_tokenizer(config: ContrastiveConfig) -> Tokenizer:
    """Return the tokenizer of the network with the vocabulary in `config.tokenizer`, or that of bytes by its name."""
    kind = image_text.two_towers(config.model.name).tokenizer
    if kind == BYTES and config.tokenizer not in ("", BYTES):
        raise UserError(
            f"config.tokenizer: {config.model.name} reads bytes, and {config.tokenizer} is the vocabulary of another"
            " tokenizer; leave it out, or choose a network that reads such tokens"
        )
    try:
        if config.tokenizer in ("", BYTES):
            return open_tokenizer(config.tokenizer or kind)
        return open_tokenizer(kind, config.tokenizer)
    except UserError as error:
        raise UserError(f"config.tokenizer: {error}") from error


def _check_tokenizer(config: ContrastiveConfig, model: ImageTextNetwork, tokenizer: Tokenizer) -> None:
    """Raise UserError where a tokenizer has more tokens than the text tower."""
    if tokenizer.vocabulary > model.text.vocabulary:
        raise UserError(
            f"config.tokenizer: it has {tokenizer.vocabulary:,} tokens, and the text tower of {config.model.name} has"
            f" {model.text.vocabulary:,}; set config.model.options.vocabulary={tokenizer.vocabulary}, or use the"
            " tokenizer that the tower was made for"
        )


def _frozen_names(config: ContrastiveConfig, model: ImageTextNetwork, names: dict[str, Any]) -> frozenset[str]:
    """Return the names of the parameters that no step changes: those of `train.freeze`, and a locked image tower's."""
    frozen = finetuning.frozen_names(config.train, model, names)
    if not config.image.locked:
        return frozen
    heads = {f"{IMAGE}{name}" for name in _head_names(config, model.image)}
    return frozen | {name for name in names if name.startswith(IMAGE) and name not in heads}


def _parts(rows: Int32[np.ndarray, "n l"], size: int) -> Iterator[Int32[np.ndarray, "size l"]]:
    """Yield rows in parts of one size, so that one program fits all; the last is filled with its last row."""
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        yield np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])

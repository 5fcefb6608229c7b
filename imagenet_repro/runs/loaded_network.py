"""A trained network with the preparation of its images, for use from Python: `imagenet_repro.load`."""

import functools
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8
from PIL import Image

from imagenet_repro import models, pretrained
from imagenet_repro.config import Config, replace_keys
from imagenet_repro.data import crops, decode
from imagenet_repro.data.augment import augment
from imagenet_repro.errors import UserError, nearest
from imagenet_repro.models.nn import lora
from imagenet_repro.models.nn.layers import Conv, Linear
from imagenet_repro.models.nn.network import Network
from imagenet_repro.pretrained import tensors
from imagenet_repro.runs.evaluate import configure_evaluation, with_evaluated_size
from imagenet_repro.runs.export import describe_preprocessing
from imagenet_repro.runs.restore import restore, trained_classes
from imagenet_repro.scoring import class_names, sets, wordnet
from imagenet_repro.storage import user
from imagenet_repro.storage.workdir import CONFIG, Workdir
from imagenet_repro.training import systems
from imagenet_repro.training.functional import FunctionalNetwork, flat
from imagenet_repro.training.systems import NetworkSystem

# A path, the bytes of an image file, a Pillow image, uint8 RGB [h, w, 3], or float32 [size, size, 3] as `preprocess`
# returns it.
AnyImage = str | Path | bytes | Image.Image | np.ndarray
AnyImages = Sequence[Any] | np.ndarray | Array  # of such images, or all of them as one array
BATCH = 64  # images of one compiled call
MAP = "map"  # the layer of the last feature map, or of all tokens


def load(
    source: str | Path,
    *,
    model: str = "",
    options: Mapping[str, Any] | None = None,
    which: str = "best",
    image_size: int = 0,
    batch_size: int = BATCH,
) -> "LoadedNetwork":
    """Return a trained network with the preparation of its images.

    Images are prepared as the file of weights states, otherwise as published for the network; those of a run as the
    run evaluates them. A network whose file has no head returns pooled features in place of logits.

    Args:
      source: a file of weights (`pretrained.read`), or the workdir of a run.
      model: name of the network, where the file does not state it; a workdir states it.
      options: options of the network, which override those of the file; not for a workdir.
      which: checkpoint of a run, "best", "last" or a step.
      image_size: side of the prepared images in pixels; 0: as stated or published.
      batch_size: number of images that are computed at once.

    Raises:
      UserError: the source cannot be read, states no network or another one, does not fit the network, or is a run
        without a network or without the checkpoint.
    """
    if batch_size < 1 or image_size < 0:
        raise UserError(f"batch_size={batch_size}, image_size={image_size}: positive numbers are needed")
    if is_run(source):
        if model or options:
            raise UserError(f"{source} is a run, which states its network; leave out model and options")
        return _load_run(Workdir(source), which, image_size, batch_size)
    return _load_file(str(source), model, dict(options or {}), image_size, batch_size)


def is_run(source: str | Path) -> bool:
    """Whether a path is the workdir of a run; the directory of a published model may have a `config.json` too."""
    path = user.expand(source) if str(source) else Path("/dev/null")
    return path.is_dir() and (Workdir(path).checkpoints.is_dir() or b'"provenance"' in _content(path / CONFIG))


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _load_run(run: Workdir, which: str, image_size: int, batch_size: int) -> "LoadedNetwork":
    only = "only networks can be loaded; `main.py evaluate` scores the others"
    config = systems.require_network(run.as_computed(run.config()), run.path, only)
    classes = trained_classes(run)
    precision = jax.config.jax_default_matmul_precision
    try:
        system = NetworkSystem.create(config, len(classes))  # changes the precision of the whole process
    finally:
        jax.config.update("jax_default_matmul_precision", precision)
    restored = restore(run, system, system.initial_state(), which)
    network = lora.merge(cast(Network, system.network.model(*restored.state.evaluated)))
    notes = (f"step {restored.step:,} of the run in {run.path}",)
    return LoadedNetwork(network, _with_size(config, image_size), classes, notes, batch_size)


def _load_file(source: str, model: str, options: dict[str, Any], image_size: int, batch_size: int) -> "LoadedNetwork":
    weights = pretrained.read(source)
    if not model and weights.origin is None and not weights.network:
        raise UserError(f"{source} does not state its network; add model=NAME (models.names() lists all)")
    selection = pretrained.select(weights, model, options)
    name, options = selection.name, selection.options
    if "auxiliary" in models.spec(name).options:
        options = {"auxiliary": False} | options  # these heads only act in training
    config = configure_evaluation(name, options, selection.preprocessing)
    config = with_evaluated_size(_with_size(config, image_size))
    count = count_classes(weights, name, config.model.options)
    network = models.create(name, num_classes=count, **config.model.options)
    report = pretrained.load(network, weights)
    classes, notes = weights.class_names, (*report.notes, selection.describe_images())
    if not classes and count == sets.CLASSES:
        classes, notes = sets.imagenet_wnids(), (*notes, pretrained.IMAGENET_ORDER)
    return LoadedNetwork(network, config, classes or class_names.numbered(count), notes, batch_size)


def _with_size(config: Config, image_size: int) -> Config:
    if not image_size:
        return config
    return replace_keys(config, {"data.image_size": str(image_size), "data.eval_image_size": "0"})


def count_classes(weights: pretrained.Weights, name: str, options: Mapping[str, Any]) -> int:
    """Return the number of classes of a file's head; 0 if it has none."""
    if weights.class_names:
        return len(weights.class_names)
    one, other = (tensors.shapes(models.abstract(name, count, **options)) for count in (2, 3))
    heads = [key for key, shape in one.items() if other[key] != shape and key in weights.tensors]
    return min((weights.tensors[key].shape[0] for key in heads if weights.tensors[key].ndim), default=0)


class LoadedNetwork:
    """A network in evaluation mode, with the preparation of its images and the names of its classes.

    Args:
      network: with its weights.
      config: of its evaluation; its crop, size and colours prepare images.
      classes: names by class index; empty for a network without a head.
      notes: sentences on what was converted, resized or left out when the weights were loaded.
      batch_size: number of images that are computed at once; fewer are padded to a power of two.
    """

    def __init__(
        self, network: Network, config: Config, classes: Sequence[str], notes: Sequence[str], batch_size: int = BATCH
    ):
        self.network, self.config, self.classes = network.eval(), config, tuple(classes)
        self.notes, self.batch_size = tuple(notes), batch_size
        self._definition, self._state = nnx.split(self.network)
        self._compiled: dict[str, Callable[[Any, Any], Array]] = {}

    @property
    def name(self) -> str:
        """The name of the network."""
        return self.config.model.name

    @functools.cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes by index for a reader; WordNet ids are replaced by their words."""
        return tuple(wordnet.readable_names(self.classes))

    @property
    def image_size(self) -> int:
        """The side of prepared images in pixels."""
        return self.config.data.size_evaluated

    @property
    def preprocessing(self) -> models.Preprocessing | None:
        """The preparation of images as a file of weights states it; None for a crop that no file can state."""
        return describe_preprocessing(self.config)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that `features` can return; all but "map" are rows that `main.py probe` judges too."""
        return (MAP, *self.network.feature_layers)

    def __repr__(self) -> str:
        return f"<{self.name}, {len(self.classes):,} classes, images of {self.image_size} px>"

    def preprocess(self, image: AnyImage) -> Float[np.ndarray, "size size 3"]:
        """Return an image as evaluation prepares it: decoded, cropped, and normalised per colour.

        Args:
          image: a path, the bytes of an image file, a Pillow image, or RGB as uint8 [h, w, 3]. EXIF orientation is
            ignored, as in evaluation.

        Returns:
          float32 [size, size, 3].

        Raises:
          UserError: the image cannot be read or decoded, or the array is not uint8 RGB.
        """
        return self._prepare(image)

    def _prepare(self, image: Any) -> Float[np.ndarray, "size size 3"]:
        pixels = _pixels(image)
        # Evaluation crops have no randomness, and so take nothing from the generator.
        cropped = crops.crop(pixels, self.config.eval_crop, self.image_size, np.random.default_rng(0))
        return np.asarray(self._normalize(cropped[None])[0])

    @functools.cached_property
    def _normalize(self) -> Callable[[Any], Array]:
        return jax.jit(functools.partial(augment.normalize, spec=self.config.augment))

    def __call__(self, images: AnyImages) -> Float[np.ndarray, "n classes"]:
        """Return the logits of images, float32; see `features` for the images.

        Raises:
          UserError: as `preprocess`, or a prepared image has another shape.
        """
        return self._compute("logits", lambda network, batch: cast(Array, network(batch)), images)

    def features(self, images: AnyImages, layer: str = "pooled") -> Float[np.ndarray, "n ..."]:
        """Return the features of images, float32 [n, d]; of the layer "map" the last feature map or all tokens.

        Args:
          images: a sequence of images of any kind that `preprocess` takes, of prepared images, or an array of either
            kind [n, h, w, 3]. They are read batch by batch.
          layer: one of `layers`.

        Raises:
          UserError: there is no such layer; or as `preprocess`, or a prepared image has another shape.
        """
        if layer not in self.layers:
            raise UserError(f"layer={layer}: {self.name} has no such features; {nearest(layer, self.layers)}")
        if layer == MAP:
            return self._compute(MAP, lambda network, batch: network.features(batch), images)
        return self._compute(layer, functools.partial(self._rows, layer), images)

    def _rows(self, layer: str, network: Network, batch: Array) -> Array:
        """Return the features of a layer, from the network without its head."""
        headless = FunctionalNetwork(_without_head(self.network))
        _, params, stats, _ = nnx.split(network, nnx.Param, nnx.BatchStat, ...)
        known = (headless.params, headless.stats)
        tensors = (
            {name: flat(state)[name] for name in names} for names, state in zip(known, (params, stats), strict=True)
        )
        parts = cast(Network, headless.model(*tensors)).feature_parts(batch)
        return jnp.concatenate([parts[name] for name in self.network.feature_layers[layer]], axis=1)

    def top(self, logits: Float[np.ndarray, "n classes"], k: int = 5) -> list[list[tuple[str, float]]]:
        """Return the `k` most probable classes of each row of logits, best first, each with its probability.

        Raises:
          UserError: the network has no classes, or the logits have another number of them.
        """
        logits = np.asarray(logits, np.float64)
        if not self.classes or logits.ndim != 2 or logits.shape[1] != len(self.classes):
            raise UserError(
                f"logits of shape {logits.shape} do not fit {self.name}, which has {len(self.classes):,} classes;"
                " pass the result of net(images)"
            )
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        best = np.argsort(-logits, axis=1, kind="stable")[:, :k]  # ties go to the lower class
        return [[(self.class_names[c], float(row[c])) for c in order] for row, order in zip(shares, best, strict=True)]

    def _compute(
        self,
        name: str,
        function: Callable[[Network, Array], Array],
        images: AnyImages,
    ) -> np.ndarray:
        """Return the function's float32 values for all images, batch by batch."""
        if name not in self._compiled:
            definition = self._definition
            self._compiled[name] = jax.jit(lambda state, batch: function(nnx.merge(definition, state), batch))
        results = []
        with jax.default_matmul_precision("highest"):
            for batch in self._batches(images):
                size = min(self.batch_size, 1 << (len(batch) - 1).bit_length())  # few sizes, so few compilations
                padding = np.zeros((size - len(batch), *batch.shape[1:]), np.float32)
                values = self._compiled[name](self._state, np.concatenate([batch, padding]))
                results.append(np.asarray(values[: len(batch)], np.float32))
        return np.concatenate(results)

    def _batches(self, images: Any) -> Iterator[Float[np.ndarray, "b size size 3"]]:
        if isinstance(images, str | Path | bytes | Image.Image) or len(images) == 0:
            raise UserError("a sequence of at least one image is needed; put a single image into a list")
        if getattr(images, "ndim", 4) != 4:
            raise UserError(f"an array of images has the shape [n, h, w, 3], not {tuple(images.shape)}")
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(images), self.batch_size):
                yield np.stack(list(pool.map(self._prepared, images[start : start + self.batch_size])))

    def _prepared(self, image: Any) -> Float[np.ndarray, "size size 3"]:
        """Return an image prepared, or as it is where it already is."""
        if not hasattr(image, "dtype") or image.dtype == np.uint8:
            return self._prepare(image)
        shape = (self.image_size, self.image_size, 3)
        if not np.issubdtype(image.dtype, np.floating) or image.shape != shape:
            raise UserError(
                f"an array of {image.dtype} {tuple(image.shape)} is no image for {self.name}: uint8 RGB [h, w, 3] is"
                f" prepared, and float32 {shape} is taken as the result of net.preprocess"
            )
        return np.asarray(image, np.float32)


def _without_head(network: Network) -> Network:
    """Return the shapes of the same network for no classes."""
    origin = network.known_origin
    dtype = next(
        (module.dtype for _, module in nnx.iter_modules(network) if isinstance(module, Conv | Linear)), jnp.float32
    )
    return models.abstract(origin.name, 0, dtype, **origin.options)


def _pixels(image: Any) -> UInt8[np.ndarray, "h w 3"]:
    """Return RGB; raise UserError where the image cannot be read."""
    if isinstance(image, Image.Image):
        return np.array(image.convert("RGB"))
    if isinstance(image, str | Path):
        return _decode(_read(Path(image)), str(image))
    if isinstance(image, bytes | bytearray | memoryview | io.BytesIO):
        return _decode(image.getvalue() if isinstance(image, io.BytesIO) else bytes(image), "the image")
    if not isinstance(image, np.ndarray | jax.Array):
        raise UserError(f"{image!r:.80} is no image; a path, bytes, a Pillow image or an array is")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise UserError(f"an array of {image.dtype} {tuple(image.shape)} is no image; uint8 RGB [h, w, 3] is needed")
    return np.asarray(image)


def _read(path: Path) -> bytes:
    try:
        return user.expand(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def _decode(content: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    try:
        return decode.decode(content)
    except decode.DecodeError as error:
        raise UserError(f"{name} cannot be decoded: {error}") from error

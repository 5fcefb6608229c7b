"""Evaluation protocols: one crop, ten, 144, dense evaluation at several scales, and any mixture of them.

A protocol is a sum of parts. Each part defines which pixels the host takes from one decoding of an image
(`data.crops`), and what the device computes from them: views (`inference.views`), a score for each view, and their
mean. `--protocol=NAME` chooses one of `PROTOCOLS`, `--protocol.KEY=VALUE` replaces one of its keys, and NAME+NAME
averages the probabilities of both.

Sizes in a protocol are stated for crops of 224 pixels and scale with the system's image size: 256 becomes 342 for 299,
and 73 for 64. AlexNet's 227 counts as 224, because its crops of 227 come from the 256 pixels of the paper.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, UInt8
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from imagenet_repro.config import AnyConfig, Crop, SquashCrop, bounded, build_section, config_to_dict, set_texts
from imagenet_repro.config.data import Kernel
from imagenet_repro.data import crops
from imagenet_repro.errors import UserError, nearest
from imagenet_repro.inference import views
from imagenet_repro.scoring.metrics import ErrorRates, format_rate
from imagenet_repro.scoring.terminal import score_table
from imagenet_repro.statistics.populations import NEW_IMAGES
from imagenet_repro.training.functional import Tensors

Average = Literal["probabilities", "logits"]
PUBLISHED_SIZE = 224  # pixels of the crops for which sizes are stated
VIEWS_AS_ONE = 10  # views whose bytes take about as much memory as the network's activations for one view
ALEXNET_SIZE = 227  # Caffe's size of the same crop of 256


@runtime_checkable
class ScoredSystem(Protocol):
    """The part of a system that protocols need; every `training.systems.System` provides it."""

    @property
    def config(self) -> AnyConfig:
        """The configuration of the run."""
        ...

    def score(self, params: Tensors, stats: Tensors, images: UInt8[Array, "b h w 3"]) -> Float[Array, "b classes"]:
        """Return the scores of images of the system's own size."""
        ...

    def class_map(self, params: Tensors, stats: Tensors, images: UInt8[Array, "b h w 3"]) -> Float[Array, "b i j c"]:
        """Return the scores at every position at which the system's own size fits into larger images."""
        ...


# --- parts -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class OneCrop:
    """One square of the image."""

    name: str = "crop"
    squash: bool = False  # the complete image made square; otherwise the configuration's own evaluation crop
    flips: bool = False  # also the mirror image
    average: Average = "probabilities"

    def taken(self, config: AnyConfig, aspect: float) -> Crop:
        """Return the crop that the host makes."""
        crop = config.eval_crop
        return SquashCrop(kernel=_kernel(config), antialias=crop.antialias) if self.squash else crop

    def views(self, config: AnyConfig) -> int:
        """Return the number of views."""
        return 1 + self.flips

    def memory(self, config: AnyConfig, aspect: float) -> float:
        """Return the memory on the device relative to one crop."""
        return 1.0

    def scores(
        self, system: ScoredSystem, params: Tensors, stats: Tensors, rows: UInt8[Array, "b n"]
    ) -> Float[Array, "b classes"]:
        """Return the mean score over the views."""
        size = system.config.data.size_evaluated
        return _mean_score(
            system, params, stats, _mirrored([rows.reshape(-1, size, size, 3)], self.flips), self.average
        )


@dataclasses.dataclass(frozen=True)
class ManyCrops:
    """Windows of the system's image size at each scale, in each region, at each position."""

    name: str = "crops"
    # Shorter side of the resized image, for crops of 224 pixels.
    scales: tuple[int, ...] = bounded((256,), 1, 65_536, increasing=True)
    squares: views.Squares = "center"  # whole | center | three: where windows lie (see `views.cut_windows`)
    positions: tuple[views.Position, ...] = ("corners", "center")
    flips: bool = True
    average: Average = "probabilities"

    def __post_init__(self):
        if self.squares == "whole" and "square" in self.positions:
            raise UserError("protocol.positions: 'square' resizes a square, and squares = 'whole' has none")
        for name in ("scales", "positions"):
            if len(set(getattr(self, name))) != len(getattr(self, name)) or not getattr(self, name):
                raise UserError(f"protocol.{name} = {getattr(self, name)}: at least one is needed, and none twice")

    def taken(self, config: AnyConfig, aspect: float) -> crops.Canvases:
        """Return the crop that the host makes."""
        return crops.Canvases(self._pixels(config), _kernel(config), config.eval_crop.antialias)

    def views(self, config: AnyConfig) -> int:
        """Return the number of views."""
        squares = 1 if self.squares == "whole" else len(views.SQUARES[self.squares])
        positions = sum(len(views.PLACES.get(position, (0,))) for position in self.positions)
        return len(self.scales) * squares * positions * (1 + self.flips)

    def memory(self, config: AnyConfig, aspect: float) -> float:
        """Return the approximate memory on the device relative to one crop, if pixels are kept as bytes."""
        return max(1.0, self.views(config) / VIEWS_AS_ONE)

    def scores(
        self, system: ScoredSystem, params: Tensors, stats: Tensors, rows: UInt8[Array, "b n"]
    ) -> Float[Array, "b classes"]:
        """Return the mean score over the views."""
        size = system.config.data.size_evaluated
        windows = []
        for canvas in views.read_canvases(rows, self._pixels(system.config)):
            windows += views.cut_windows(canvas, size, self.squares, self.positions)
        return _mean_score(system, params, stats, _mirrored(windows, self.flips), self.average)

    def _pixels(self, config: AnyConfig) -> tuple[int, ...]:
        size, scales = config.data.size_evaluated, scale_pixels(self.scales, config)
        if min(scales) < size:
            raise UserError(
                f"protocol.scales: windows of {size} pixels do not fit into a shorter side of {min(scales)}"
                f" (scales are for crops of {PUBLISHED_SIZE} pixels)"
            )
        return scales


@dataclasses.dataclass(frozen=True)
class Dense:
    """The network applied to the complete image at each scale, its class map averaged over space (VGG, sec. 3.2).

    Images are cropped to the nearest of a few aspects, so that few shapes are compiled.
    """

    name: str = "dense"
    # Shorter side of the resized image, for crops of 224 pixels.
    scales: tuple[int, ...] = bounded((256,), 1, 65_536, increasing=True)
    flips: bool = True
    average: Average = "probabilities"  # over scales and flips; over space, logits are always averaged

    def taken(self, config: AnyConfig, aspect: float) -> crops.Copies:
        """Return the crop that the host makes for images that are `aspect` times as wide as high."""
        return crops.Copies(self._shapes(config, aspect), _kernel(config), config.eval_crop.antialias)

    def views(self, config: AnyConfig) -> int:
        """Return the number of images that the network sees, each at many positions."""
        return len(self.scales) * (1 + self.flips)

    def memory(self, config: AnyConfig, aspect: float) -> float:
        """Return the approximate memory on the device relative to one crop; feature maps grow with the area."""
        return max(height * width for height, width in self._shapes(config, aspect)) / config.data.size_evaluated**2

    def scores(
        self, system: ScoredSystem, params: Tensors, stats: Tensors, rows: UInt8[Array, "b n"], aspect: float
    ) -> Float[Array, "b classes"]:
        """Return the mean score over scales and flips."""
        scores = []
        for copy in views.read_copies(rows, self._shapes(system.config, aspect)):
            for view in _mirrored([copy], self.flips):
                scores.append(system.class_map(params, stats, view).mean((1, 2)))
        return average_views(jnp.stack(scores), self.average)

    def _shapes(self, config: AnyConfig, aspect: float) -> tuple[tuple[int, int], ...]:
        scales = scale_pixels(self.scales, config)
        if aspect >= 1:
            return tuple((scale, math.floor(scale * aspect)) for scale in scales)
        return tuple((math.floor(scale / aspect), scale) for scale in scales)


ProtocolPart = OneCrop | ManyCrops | Dense
KINDS = {"crop": OneCrop, "crops": ManyCrops, "dense": Dense}

PROTOCOLS: dict[str, tuple[ProtocolPart, ...]] = {
    "crop": (OneCrop(),),
    "crop_flip": (OneCrop(flips=True),),
    "squash": (OneCrop(squash=True),),
    "10crop": (ManyCrops(),),  # Krizhevsky et al. 2012, sec. 4.1
    "resnet_10crop": (ManyCrops(squares="whole"),),  # as He et al. did: of the whole image, not its centre
    "googlenet144": (  # Szegedy et al. 2014, sec. 7
        ManyCrops(scales=(256, 288, 320, 352), squares="three", positions=("corners", "center", "square")),
    ),
    "vgg_dense1": (Dense(scales=(384,)),),  # Simonyan & Zisserman 2014, sec. 4.1: half of the jitter's 256 + 512
    "vgg_dense": (Dense(scales=(256, 384, 512)),),  # sec. 4.2
    "vgg_50crops": (ManyCrops(scales=(256, 384, 512), squares="whole", positions=("grid5",)),),  # sec. 4.3: 50 a scale
    "resnet_dense": (Dense(scales=(224, 256, 384, 480, 640)),),  # He et al. 2015, sec. 3.4, which names no flips
    "multiscale": (ManyCrops(scales=(224, 256, 288, 320, 352), squares="whole", positions=("center",)),),
}
PROTOCOLS["vgg_both"] = PROTOCOLS["vgg_dense"] + PROTOCOLS["vgg_50crops"]  # Simonyan & Zisserman 2014, sec. 4.3


OWN_PROTOCOL = "crop"  # the protocol of evaluations during training


def parse(text: str, settings: dict[str, str] | None = None) -> tuple[ProtocolPart, ...]:
    """Return the parts of a protocol by its name, or of several joined by `+`, with keys of a single one replaced.

    Raises:
      UserError: a name or a key does not exist, or a value is out of range.
    """
    parts: list[ProtocolPart] = []
    for name in text.split("+"):
        if name not in (*PROTOCOLS, *KINDS):
            raise UserError(f"--protocol={text}: there is no '{name}'; {nearest(name, (*PROTOCOLS, *KINDS))}")
        parts += PROTOCOLS.get(name) or (KINDS[name](),)
    if not settings:
        return tuple(parts)
    if len(parts) > 1:
        key = next(iter(settings))
        raise UserError(f"--protocol={text} has {len(parts)} parts; --protocol.{key} needs a protocol with one part")
    if "name" in settings:
        raise UserError(f"--protocol.name: the kind of a protocol is its own name, --protocol={settings['name']}")
    values = config_to_dict(parts[0])
    set_texts(values, settings, type(parts[0]), "protocol")
    return (build_section(type(parts[0]), values, "protocol"),)


def for_scores(parts: Sequence[ProtocolPart]) -> tuple[ProtocolPart, ...]:
    """Return the same parts averaging scores, for systems whose scores are not logarithms of probabilities."""
    return tuple(dataclasses.replace(part, average="logits") for part in parts)


# --- complete protocols ------------------------------------------------------------------------------------------


def is_dense(parts: Sequence[ProtocolPart]) -> bool:
    """Return whether images of different aspects need their own programs."""
    return any(isinstance(part, Dense) for part in parts)


def host_crops(parts: Sequence[ProtocolPart], config: AnyConfig, aspect: float) -> crops.CombinedCrops:
    """Return the crops that the host makes for all parts, for images that are `aspect` times as wide as high."""
    return crops.CombinedCrops(tuple(part.taken(config, aspect) for part in parts))


def scorer(parts: Sequence[ProtocolPart], system: ScoredSystem, aspect: float) -> Callable[..., Any]:
    """Return `(params, stats, rows) -> scores` for rows of `host_crops`.

    The scores of several parts are log-probabilities.
    """
    size = system.config.data.size_evaluated
    lengths = [math.prod(crops.output_shape(part.taken(system.config, aspect), size)) for part in parts]

    def score(params: Tensors, stats: Tensors, rows: UInt8[Array, "b n"]) -> Float[Array, "b classes"]:
        part_scores, start = [], 0
        for part, length in zip(parts, lengths, strict=True):
            of_part = functools.partial(part.scores, aspect=aspect) if isinstance(part, Dense) else part.scores
            part_scores.append(of_part(system, params, stats, rows[:, start : start + length]))
            start += length
        return part_scores[0] if len(part_scores) == 1 else average_views(jnp.stack(part_scores), "probabilities")

    return score


def describe(parts: Sequence[ProtocolPart], config: AnyConfig) -> dict[str, Any]:
    """Return each part's keys and number of views, and the system's image size, for provenance."""
    return {
        "parts": [config_to_dict(part) | {"views": part.views(config)} for part in parts],
        "image_size": config.data.size_evaluated,
    }


def scale_pixels(scales: Sequence[int], config: AnyConfig) -> tuple[int, ...]:
    """Convert scales stated for crops of 224 pixels to the system's image size."""
    size = config.data.size_evaluated
    unit = 1.0 if size == ALEXNET_SIZE else size / PUBLISHED_SIZE
    return tuple(round(scale * unit) for scale in scales)


def average_views(scores: Float[Array, "v b c"], average: Average) -> Float[Array, "b c"]:
    """Return the mean over views of logits, or the logarithm of the mean probability, in float32.

    A single view's logits are returned as they are.
    """
    scores = scores.astype(jnp.float32)
    if average == "logits" or len(scores) == 1:
        return scores.mean(0)
    return jax.nn.logsumexp(jax.nn.log_softmax(scores), axis=0) - math.log(len(scores))


def _kernel(config: AnyConfig) -> Kernel:
    """Return the resize kernel of the evaluation crop, which must not be random for views."""
    return cast(Kernel, config.eval_crop.kernel)


def _mirrored(images: list[Array], flips: bool) -> list[Array]:
    return [*images, *(view[:, :, ::-1] for view in images)] if flips else images


def _mean_score(system: ScoredSystem, params: Tensors, stats: Tensors, images: list[Array], average: Average) -> Array:
    """Return the mean score over any number of views, which one program scores one after another."""
    return average_views(lax.map(lambda view: system.score(params, stats, view), jnp.stack(images)), average)


# --- results ----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ProtocolResult:
    """Result of one protocol."""

    name: str
    views: int  # of each image
    rates: ErrorRates
    seconds: float  # without compilation
    predictions: tuple[Path, ...] = ()  # the files of predictions; empty: they are not stored


def print_results(rows: Sequence[ProtocolResult], console: Console | None = None) -> None:
    """Print both error rates and the speed of several protocols on the same images, as a table."""
    console = console or Console()
    console.print(_table(rows), markup=False)
    images = f"{rows[0].rates.images:,} images"
    console.print(f"{images}; Wilson's 95 % intervals for {NEW_IMAGES}; images/s without compilation", highlight=False)


def _table(rows: Sequence[ProtocolResult]) -> Table:
    cells = []
    for row in rows:
        wrong = (row.rates.top1_wrong, row.rates.top5_wrong)
        errors = [" ".join(format_rate(count, row.rates.images)) for count in wrong]
        cells.append((row.name, str(row.views), *errors, f"{row.rates.images / row.seconds:,.1f}"))
    return score_table(("protocol", "views", "top-1 error %", "top-5 error %", "images/s"), cells)


@contextlib.contextmanager
def progress_bar(name: str, images: int) -> Iterator[Callable[[int], None]]:
    """Show a bar with the remaining time on stderr, and yield the function to call after each batch.

    Nothing is shown if stderr is not a terminal.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=images)
        yield lambda done: progress.advance(task, done)

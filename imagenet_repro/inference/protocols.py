"""How an image is looked at before it is scored: one crop, ten, 144, densely at several scales, and any mixture.

A protocol is a sum of parts, each of which says what the host takes of one decoding of an image (data/crops.py) and
what the device makes of it: views (evaluation/views.py), a score for each, and their mean. `--protocol=NAME` chooses
one of `NAMED`, `--protocol.KEY=VALUE` replaces a key of it, and NAME+NAME averages the probabilities of both.

Sizes in a protocol are for crops of 224 pixels and grow with the size that a system looks at: 256 is 342 for 299, and
73 for 64. AlexNet's 227 counts as 224, since its crops of 227 come from the 256 pixels of the paper.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, UInt8
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from imagenet_repro.config import AnyConfig, SquashCrop, bounded, build_section, config_to_dict, parse_literal
from imagenet_repro.data import crops
from imagenet_repro.errors import UserError, nearest
from imagenet_repro.inference import views
from imagenet_repro.scoring.metrics import ErrorRates
from imagenet_repro.scoring.metrics import format_rate as describe_rate
from imagenet_repro.training.functional import Tensors

Average = Literal["probabilities", "logits"]
PUBLISHED_SIZE = 224  # pixels of the crops that sizes are stated for
VIEWS_AS_ONE = 10  # as bytes, beside what a network keeps of one while it looks at it
ALEXNET_SIZE = 227  # Caffe's, for the same crop of 256


@runtime_checkable
class System(Protocol):
    """What is scored: a network or a system of features."""

    @property
    def config(self) -> AnyConfig:
        """The configuration of the run."""
        ...

    def score(self, params: Tensors, stats: Tensors, images: UInt8[Array, "b h w 3"]) -> Float[Array, "b classes"]:
        """Scores of images of the system's own size."""

    def class_map(self, params: Tensors, stats: Tensors, images: UInt8[Array, "b h w 3"]) -> Float[Array, "b i j c"]:
        """Scores at every position at which what the system looks at fits into larger images."""


# --- parts -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class OneCrop:
    """One square of the image."""

    name: str = "crop"
    squash: bool = False  # the whole image made square; else the crop that the system is evaluated with anyway
    flips: bool = False  # its mirror image too
    average: Average = "probabilities"

    def taken(self, config: AnyConfig, aspect: float) -> crops.CropSpec:
        """What the host takes."""
        crop = config.eval_crop
        return SquashCrop(kernel=crop.kernel, antialias=crop.antialias) if self.squash else crop

    def views(self, config: AnyConfig) -> int:
        """How many there are."""
        return 1 + self.flips

    def memory(self, config: AnyConfig, aspect: float) -> float:
        """About how many times that of one crop an image needs on the device."""
        return 1.0

    def scores(
        self, system: System, params: Tensors, stats: Tensors, rows: UInt8[Array, "b n"]
    ) -> Float[Array, "b classes"]:
        """The mean over the views."""
        size = system.config.data.size_evaluated
        return _mean_score(
            system, params, stats, _mirrored([rows.reshape(-1, size, size, 3)], self.flips), self.average
        )


@dataclasses.dataclass(frozen=True)
class ManyCrops:
    """Windows of the size that a system looks at, at each scale, in each region, at each position."""

    name: str = "crops"
    scales: tuple[int, ...] = bounded(
        (256,), 1, increasing=True
    )  # shorter side of the resized image, for crops of 224 pixels
    squares: views.Squares = "center"  # whole | center | three: where windows lie (evaluation/views.py)
    positions: tuple[views.Position, ...] = ("corners", "center")
    flips: bool = True
    average: Average = "probabilities"

    def __post_init__(self):
        if self.squares == "whole" and "square" in self.positions:
            raise UserError("protocol.positions: 'square' resizes a square, and squares = 'whole' takes none")
        for name in ("scales", "positions"):
            if len(set(getattr(self, name))) != len(getattr(self, name)) or not getattr(self, name):
                raise UserError(f"protocol.{name} = {getattr(self, name)}: one or more are needed, each once")

    def taken(self, config: AnyConfig, aspect: float) -> crops.CropSpec:
        """What the host takes."""
        return crops.Canvases(self._pixels(config), config.eval_crop.kernel, config.eval_crop.antialias)

    def views(self, config: AnyConfig) -> int:
        """How many there are."""
        squares = 1 if self.squares == "whole" else len(views.SQUARES[self.squares])
        positions = sum(len(views.PLACES.get(position, (0,))) for position in self.positions)
        return len(self.scales) * squares * positions * (1 + self.flips)

    def memory(self, config: AnyConfig, aspect: float) -> float:
        """About how many times that of one crop an image needs on the device, where its pixels lie as bytes."""
        return max(1.0, self.views(config) / VIEWS_AS_ONE)

    def scores(
        self, system: System, params: Tensors, stats: Tensors, rows: UInt8[Array, "b n"]
    ) -> Float[Array, "b classes"]:
        """The mean over the views."""
        size = system.config.data.size_evaluated
        found = []
        for canvas in views.read_canvases(rows, self._pixels(system.config)):
            found += views.cut_windows(canvas, size, self.squares, self.positions)
        return _mean_score(system, params, stats, _mirrored(found, self.flips), self.average)

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
    """The network slid over the whole image at each scale, its class map averaged over space (VGG, sec. 3.2).

    Images are cut to the nearest of a few aspects, so that few shapes are compiled.
    """

    name: str = "dense"
    scales: tuple[int, ...] = bounded(
        (256,), 1, increasing=True
    )  # shorter side of the resized image, for crops of 224 pixels
    flips: bool = True
    average: Average = "probabilities"  # over scales and flips; over space it is always that of logits

    def taken(self, config: AnyConfig, aspect: float) -> crops.CropSpec:
        """What the host takes of images that are `aspect` times as wide as high."""
        return crops.Copies(self._shapes(config, aspect), config.eval_crop.kernel, config.eval_crop.antialias)

    def views(self, config: AnyConfig) -> int:
        """How many images the network sees, each at many positions."""
        return len(self.scales) * (1 + self.flips)

    def memory(self, config: AnyConfig, aspect: float) -> float:
        """About how many times that of one crop an image needs on the device: feature maps grow as its area."""
        return max(height * width for height, width in self._shapes(config, aspect)) / config.data.size_evaluated**2

    def scores(
        self, system: System, params: Tensors, stats: Tensors, rows: UInt8[Array, "b n"], aspect: float
    ) -> Float[Array, "b classes"]:
        """The mean over scales and flips."""
        found = []
        for copy in views.read_copies(rows, self._shapes(system.config, aspect)):
            for view in _mirrored([copy], self.flips):
                found.append(system.class_map(params, stats, view).mean((1, 2)))
        return average_views(jnp.stack(found), self.average)

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
    "resnet_10crop": (ManyCrops(squares="whole"),),  # as He et al. took them: of the whole image, not its centre
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


OWN_PROTOCOL = "crop"  # the one that a system is evaluated by while it trains


def parse(text: str, settings: dict[str, str] | None = None) -> tuple[ProtocolPart, ...]:
    """The parts of a protocol by its name, or of several joined by `+`, with keys of a single one replaced.

    Raises UserError for a name or a key that there is not, or a value out of range.
    """
    parts: tuple[ProtocolPart, ...] = ()
    for name in text.split("+"):
        if name not in (*PROTOCOLS, *KINDS):
            raise UserError(f"--protocol={text}: there is no '{name}'; {nearest(name, (*PROTOCOLS, *KINDS))}")
        parts += PROTOCOLS.get(name) or (KINDS[name](),)
    if not settings:
        return parts
    if len(parts) > 1:
        raise UserError(f"--protocol={text} has {len(parts)} parts; --protocol.{next(iter(settings))} belongs to one")
    values = config_to_dict(parts[0]) | {name: parse_literal(value) for name, value in settings.items()}
    return (build_section(type(parts[0]), values, "protocol"),)


def for_scores(parts: Sequence[ProtocolPart]) -> tuple[ProtocolPart, ...]:
    """The same, with the mean taken of scores, for systems whose scores are no logarithms of probabilities."""
    return tuple(dataclasses.replace(part, average="logits") for part in parts)


# --- a whole protocol ------------------------------------------------------------------------------------------


def is_dense(parts: Sequence[ProtocolPart]) -> bool:
    """Whether images of different aspects need programs of their own."""
    return any(isinstance(part, Dense) for part in parts)


def host_crops(parts: Sequence[ProtocolPart], config: AnyConfig, aspect: float) -> crops.CombinedCrops:
    """What the host takes of images that are `aspect` times as wide as high, for all parts."""
    return crops.CombinedCrops(tuple(part.taken(config, aspect) for part in parts))


def scorer(parts: Sequence[ProtocolPart], system: System, aspect: float) -> Callable[..., Any]:
    """`(params, stats, rows) -> scores` of rows as `taken` makes them; of several parts, log-probabilities."""
    size = system.config.data.size_evaluated
    lengths = [math.prod(crops.output_shape(part.taken(system.config, aspect), size)) for part in parts]

    def score(params: Tensors, stats: Tensors, rows: UInt8[Array, "b n"]) -> Float[Array, "b classes"]:
        found, start = [], 0
        for part, length in zip(parts, lengths, strict=True):
            of_part = functools.partial(part.scores, aspect=aspect) if isinstance(part, Dense) else part.scores
            found.append(of_part(system, params, stats, rows[:, start : start + length]))
            start += length
        return found[0] if len(found) == 1 else average_views(jnp.stack(found), "probabilities")

    return score


def describe(parts: Sequence[ProtocolPart], config: AnyConfig) -> dict[str, Any]:
    """For provenance: every part's keys, how many views it has, and the pixels that the system looks at."""
    return {
        "parts": [config_to_dict(part) | {"views": part.views(config)} for part in parts],
        "image_size": config.data.size_evaluated,
    }


def scale_pixels(scales: Sequence[int], config: AnyConfig) -> tuple[int, ...]:
    """Scales that are stated for crops of 224 pixels, for the crops of a system."""
    size = config.data.size_evaluated
    unit = 1.0 if size == ALEXNET_SIZE else size / PUBLISHED_SIZE
    return tuple(round(scale * unit) for scale in scales)


def average_views(scores: Float[Array, "v b c"], average: Average) -> Float[Array, "b c"]:
    """The mean over views of logits, or the logarithm of that of probabilities; of one view, its logits; float32."""
    scores = scores.astype(jnp.float32)
    if average == "logits" or len(scores) == 1:
        return scores.mean(0)
    return jax.nn.logsumexp(jax.nn.log_softmax(scores), axis=0) - math.log(len(scores))


def _mirrored(found: list[Array], flips: bool) -> list[Array]:
    return [*found, *(view[:, :, ::-1] for view in found)] if flips else found


def _mean_score(system: System, params: Tensors, stats: Tensors, found: list[Array], average: Average) -> Array:
    """The views are scored one after the other by one program, whatever their number."""
    return average_views(lax.map(lambda view: system.score(params, stats, view), jnp.stack(found)), average)


# --- for a person ----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ProtocolResult:
    """What came of one protocol."""

    name: str
    views: int  # of each image
    rates: ErrorRates
    seconds: float  # without compilation


def print_results(rows: Sequence[ProtocolResult], console: Console | None = None) -> None:
    """Prints both error rates and the speed of several protocols on the same images, as a table."""
    console = console or Console()
    console.print(_table(rows), markup=False)
    images = f"{rows[0].rates.images:,} images"
    console.print(f"{images}; 95 % Wilson intervals; images/s without compilation", highlight=False)


def _table(rows: Sequence[ProtocolResult]) -> Table:
    table = Table("protocol", "views", "top-1 error %", "top-5 error %", "images/s", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        wrong = (row.rates.top1_wrong, row.rates.top5_wrong)
        errors = [" ".join(describe_rate(count, row.rates.images)) for count in wrong]
        table.add_row(row.name, str(row.views), *errors, f"{row.rates.images / row.seconds:,.1f}")
    return table


@contextlib.contextmanager
def progress_bar(name: str, images: int) -> Iterator[Callable[[int], None]]:
    """A bar with the time left, on stderr where that is a terminal; what it gives is told of every batch."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=images)
        yield lambda done: progress.advance(task, done)

"""Boxes for what a trained network guesses: from class activation maps, and by regression from its last feature map.

Maps (Zhou et al. 2016, "Learning Deep Features for Discriminative Localization", sec. 3.2) need no box to learn from.
The map of each guessed class, resized to the crop, is cut at a share of its highest value, 20 % in the paper, and the
box goes around the largest connected region above. The authors' programme cuts 8-bit heat maps at three levels, so
its numbers differ from this rule's.

Regression learns from the boxes of training images, as the single-class regression of Simonyan and Zisserman (2014,
arXiv 1409.1556, appendix A.1): one box for an image, whatever its class. There the network was fine-tuned for it; here
it stays as it is, its last map is averaged over a grid of places, and a linear layer is fitted by ridge regression. A
box's corners are shares of the crop. Ridge regression is linear in its targets, so centres and sizes in place of
corners would give the same boxes. The penalty is the one of a few that puts most boxes right on training images that
are left out of the fit.

Two baselines say what a box is worth that looks at nothing: a central one of half the image's area, and the mean one
of the training images. Least squares is not the share of boxes that are right: where objects differ much in size, the
mean box is right less often than a larger one, and so may be what regresses to it.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, Int, Num

from imagenet_repro.config import CenterCrop, Config, SquashCrop
from imagenet_repro.data import crops, decode, loader
from imagenet_repro.data.augment import augment
from imagenet_repro.data.batch import Batch
from imagenet_repro.data.sources import Split
from imagenet_repro.errors import UserError
from imagenet_repro.inference import maps
from imagenet_repro.scoring import metrics
from imagenet_repro.scoring.classification import NO_GUESS
from imagenet_repro.scoring.localization.annotations import NO_CLASS, NO_OBJECTS, AnnotatedObjects, lookup
from imagenet_repro.scoring.localization.boxes import area, edges, iou, pixels_within
from imagenet_repro.scoring.localization.error_rates import (
    OVERLAP,
    BoxGuesses,
    LocalizationErrors,
    count_errors,
    right_boxes,
)
from imagenet_repro.training.functional import FunctionalNetwork, Tensors

THRESHOLD = 0.2  # of a map's highest value: Zhou et al. 2016, sec. 3.2
CENTRAL = np.array([0.5 - 0.5**1.5, 0.5 - 0.5**1.5, 0.5 + 0.5**1.5, 0.5 + 0.5**1.5])  # shares; half of the area
MOST_FEATURES = 8192  # of an image, for regression: their sums of products take 0.5 GB
CHUNK = 1024  # images whose products are summed in float32
HELD_OUT_EVERY, MOST_HELD_OUT = 10, 2000  # training images that choose the penalty
FEWEST = 20  # training images with boxes, for regression
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # on the weights of standardised features

CAM, REGRESSION = "activation maps", "regression"


@dataclasses.dataclass(frozen=True)
class AnnotatedImage:
    """An image of a split, and where its crop and its objects lie in it; all boxes by their edges."""

    index: int  # in the split
    id: str
    label: int
    height: int  # pixels
    width: int
    window: Float[np.ndarray, " 4"]  # what the crop shows
    instances: Float[np.ndarray, "m 4"]  # the objects of its class

    def from_crop(self, shares: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
        """Boxes in the image, of boxes as shares of the crop."""
        left, top, right, bottom = self.window
        return shares * np.tile([right - left, bottom - top], 2) + np.tile([left, top], 2)

    def in_crop(self, boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
        """Boxes as shares of the crop; beyond [0, 1] is what the crop leaves out."""
        left, top, right, bottom = self.window
        return (boxes - np.tile([left, top], 2)) / np.tile([right - left, bottom - top], 2)

    def from_image(self, shares: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
        """Boxes in the image, of boxes as shares of it."""
        return shares * np.tile([float(self.width), float(self.height)], 2)

    def in_image(self, boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
        """Boxes as shares of the image."""
        return boxes / np.tile([float(self.width), float(self.height)], 2)

    def largest(self) -> Float[np.ndarray, "1 4"]:
        """The largest of the instances."""
        return self.instances[[int(np.argmax(area(self.instances)))]]


@dataclasses.dataclass(frozen=True)
class BoxResult:
    """What one way of making boxes came to."""

    name: str
    guessed: BoxGuesses
    right: Bool[np.ndarray, "n 5"]  # whether a box overlaps its image's objects enough, whatever the class
    errors: tuple[LocalizationErrors, ...]  # with one to five guesses

    @property
    def looks(self) -> bool:
        """Whether the boxes follow from the images."""
        return self.name in (CAM, REGRESSION)


@dataclasses.dataclass(frozen=True)
class LocalizationResult:
    """All ways over the same images."""

    frames: tuple[AnnotatedImage, ...]
    results: tuple[BoxResult, ...]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What is asked of a network about a batch of normalised images; hashed by its fields, as `jax.jit` wants it."""

    guesses: bool = False  # `top5`: the best classes, at most five
    maps: bool = False  # `map` [b, k, mh, mw]: the activation map of each guess
    grid: bool = False  # `grid` [b, d]: the last feature map, averaged over a grid of places

    def __call__(self, model: nnx.Module, images: Float[Array, "b h w 3"]) -> dict[str, Array]:
        """The arrays that are asked for, by name."""
        said = {}
        if self.guesses:
            said["top5"] = metrics.top5(model(images))
        if self.maps:
            said["map"] = maps.activation(model, images, said["top5"])
        if self.grid:
            said["grid"] = grid(maps.localization_map(model, images))
        return said


class LocalizationNetwork:
    """A network in evaluation mode on one device, and the images that it sees.

    Args:
      network: of training/network.py.
      params: its parameters.
      stats: its statistics.
      config: of the run; how images are cropped, normalised and put into batches.
      objects: annotated objects by the names of images.

    Raises:
      UserError: the evaluation crop is drawn at random, so that nobody knows where it lies.
    """

    def __init__(
        self,
        network: FunctionalNetwork,
        params: Tensors,
        stats: Tensors,
        config: Config,
        objects: Mapping[str, AnnotatedObjects],
    ):
        if not isinstance(config.eval_crop, CenterCrop | SquashCrop):
            raise UserError(
                f"config.eval_crop '{config.eval_crop.name}' shows a random part of an image; boxes can be found for"
                " 'center' and 'squash'"
            )
        self._network, self._state, self._config, self._objects = network, (params, stats), config, objects

    @property
    def side(self) -> int:
        """Pixels of the sides of a crop."""
        return self._config.data.size_evaluated

    def frames(self, split: Split, look: Outputs) -> Iterator[tuple[list[AnnotatedImage], dict[str, np.ndarray]]]:
        """Batch by batch the annotated images of a split, and what is asked of the network about each."""
        run = jax.jit(self._looking(look))
        data, crop = self._config.data, self._config.eval_crop
        size = data.eval_batch_size or self._config.batch_size
        for batch in loader.eval_batches(split, data, crop, batch_size=size):
            known = [(row, frame) for row, frame in enumerate(self._framed(split, batch)) if frame is not None]
            if known:
                rows, frames = zip(*known, strict=True)
                said = jax.device_get(run(*self._state, batch["image"]))
                yield list(frames), {name: value[list(rows)] for name, value in said.items()}

    def annotated_beyond(self, split: Split) -> int:
        """How many annotated images are not in a split, whose ids are read for it."""
        ids = (split.records[number].id for number in range(split.num_examples))
        return len(self._objects) - sum(lookup(self._objects, one) is not None for one in ids)

    def _looking(self, look: Outputs) -> Callable:
        def looked(params: Tensors, stats: Tensors, images: Array) -> dict[str, Array]:
            model = self._network.model(params, stats)
            return look(model, augment.normalize(images, self._config.augment))

        return looked

    def _framed(self, split: Split, batch: Batch) -> Iterator[AnnotatedImage | None]:
        for index, weight in zip(batch["index"].tolist(), batch["weight"].tolist(), strict=True):
            if weight == 0:  # padding, or it cannot be decoded
                yield None
                continue
            record = split.records[index]
            boxes = _of_class(lookup(self._objects, record.id) or NO_OBJECTS, split.class_names[record.label])
            if not len(boxes):
                yield None
                continue
            height, width = decode.size(record.image)
            window = np.array(crops.crop_window(self._config.eval_crop, height, width, self.side))
            yield AnnotatedImage(index, record.id, record.label, height, width, window, edges(boxes))


# --- what the network says -------------------------------------------------------------------------------------


def grid(features: Float[Array, "b mh mw c"]) -> Float32[Array, "b d"]:
    """A feature map averaged over the finest square grid that leaves at most 8,192 numbers, or one place.

    Cells begin and end at whole places, and overlap where the sides do not divide, as in PyTorch's adaptive pooling.
    """
    height, width, channels = features.shape[1:]
    side = max(1, min(height, width, int((MOST_FEATURES / channels) ** 0.5)))
    rows, columns = _cells(height, side), _cells(width, side)
    pooled = jnp.einsum("bhwc,ih,jw->bijc", features.astype(jnp.float32), rows, columns)
    return pooled.reshape(len(features), -1)


def _cells(length: int, cells: int) -> Float32[np.ndarray, "cells length"]:
    """Weights that average places into cells."""
    weights = np.zeros((cells, length), np.float32)
    for cell in range(cells):
        start, end = cell * length // cells, -(-(cell + 1) * length // cells)
        weights[cell, start:end] = 1 / (end - start)
    return weights


# --- boxes from maps -------------------------------------------------------------------------------------------


def map_box(
    activation: Float[np.ndarray, "mh mw"], side: int, threshold: float = THRESHOLD
) -> Float[np.ndarray, " 4"]:
    """The box around the largest region of a class activation map that is above a share of its highest value.

    Args:
      activation: of one class; larger is more of it.
      side: pixels of the crop, to which the map is resized bilinearly; regions touch also at corners.
      threshold: the share, in (0, 1).

    Returns:
      Edges as shares of the crop; all of it where nothing speaks for the class.
    """
    resized = cv2.resize(np.asarray(activation, np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    if not resized.max() > 0:
        return np.array([0.0, 0.0, 1.0, 1.0])
    above = (resized > threshold * resized.max()).astype(np.uint8)
    _, _, regions, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    left, top, width, height, _ = regions[1 + int(np.argmax(regions[1:, cv2.CC_STAT_AREA]))].tolist()
    return np.array([left, top, left + width, top + height]) / side


# --- boxes by regression ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class BoxRegressor:
    """A linear layer from features to the corners of a box, as shares of a crop."""

    weight: Float[np.ndarray, "d 4"]
    bias: Float[np.ndarray, " 4"]

    def __call__(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n 4"]:
        """Boxes by their edges."""
        return features @ self.weight + self.bias


class RidgeRegression:
    """Ridge regression from sums over images, in float64, so that no feature need be kept.

    Features are standardised; the penalty is on their weights and not on the bias.
    """

    def __init__(self):
        self._rows: list[tuple[np.ndarray, np.ndarray]] = []
        self._sums: list[np.ndarray | float] | None = None

    def add(self, features: Float32[np.ndarray, "n d"], targets: Float[np.ndarray, "n t"]) -> None:
        """Takes images and what they should give."""
        self._rows.append((features, targets))
        if sum(len(rows) for rows, _ in self._rows) >= CHUNK:
            self._flush()

    def fit(self, penalties: Sequence[float]) -> list[BoxRegressor]:
        """The layer of each penalty: the mean squared error plus penalty x squared weights is least."""
        from scipy.linalg import cho_factor, cho_solve

        self._flush()
        images, sum_x, sum_y, gram, cross = self._sums
        mean, mean_y = sum_x / images, sum_y / images
        scale = np.sqrt(np.maximum(np.diag(gram) / images - mean**2, 0))
        scale = np.where(scale > 1e-6 * (1 + np.abs(mean)), scale, np.inf)  # a feature that never changes says nothing
        gram = (gram / images - np.outer(mean, mean)) / np.outer(scale, scale)
        cross = (cross / images - np.outer(mean, mean_y)) / scale[:, None]
        layers = []
        for penalty in penalties:
            factor = cho_factor(gram + penalty * np.eye(len(gram)), overwrite_a=True)
            weight = cho_solve(factor, cross) / scale[:, None]
            layers.append(BoxRegressor(weight, mean_y - mean @ weight))
        return layers

    def _flush(self) -> None:
        if not self._rows:
            return
        x, y = (np.concatenate(parts) for parts in zip(*self._rows, strict=True))
        self._rows = []
        new = [float(len(x)), x.sum(0, np.float64), y.sum(0), (x.T @ x).astype(np.float64), x.T.astype(np.float64) @ y]
        self._sums = new if self._sums is None else [a + b for a, b in zip(self._sums, new, strict=True)]


@dataclasses.dataclass(frozen=True)
class FittedRegression:
    """What was learned from the boxes of training images."""

    layer: BoxRegressor
    mean: Float[np.ndarray, " 4"]  # box, as shares of an image
    sentence: str  # how it was fitted, for a person


def fit_boxes(batches: Iterator[tuple[list[AnnotatedImage], dict[str, np.ndarray]]]) -> FittedRegression:
    """Fits the largest box of each training image, and takes the penalty that is best on a tenth of the images.

    Args:
      batches: of `Viewer.frames` with `grid`.

    Raises:
      UserError: fewer than 20 training images have boxes.
    """
    ridge, held_out, shares, seen = RidgeRegression(), [], [], 0
    for frames, said in batches:
        targets = np.concatenate([frame.in_crop(frame.largest()) for frame in frames])
        shares += [frame.in_image(frame.largest()) for frame in frames]
        kept = (seen + np.arange(len(frames))) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
        kept &= len(held_out) < MOST_HELD_OUT
        ridge.add(said["grid"][~kept], targets[~kept])
        held_out += zip(said["grid"][kept], targets[kept], strict=True)
        seen += len(frames)
    if seen < FEWEST:
        raise UserError(f"regression learns from the boxes of training images, and only {seen} have one; --method=cam")
    features, targets = (np.stack(part) for part in zip(*held_out, strict=True))
    layers = ridge.fit(PENALTIES)
    right = [_right(layer(features), targets) for layer in layers]
    best = int(np.argmax(right))
    sentence = (
        f"regression: {features.shape[1]:,} features, fitted to {seen - len(targets):,} training images with penalty"
        f" {PENALTIES[best]:g}, which puts {100 * right[best]:.1f} % of {len(targets):,} others' boxes right"
    )
    return FittedRegression(layers[best], np.concatenate(shares).mean(0), sentence)


def _right(boxes: Float[np.ndarray, "n 4"], targets: Float[np.ndarray, "n 4"]) -> float:
    """Share of the boxes that overlap their target enough."""
    pairs = zip(boxes, targets, strict=True)
    return float(np.mean([iou(one[None], other[None])[0, 0] >= OVERLAP for one, other in pairs]))


# --- all of it -------------------------------------------------------------------------------------------------


def localize(
    viewer: LocalizationNetwork, split: Split, train: Split | None, *, cam: bool, threshold: float
) -> LocalizationResult:
    """Boxes for every annotated image of a split, in each way, and their errors.

    Args:
      viewer: of the trained network.
      split: what is judged.
      train: what regression learns from; None: it is left out, and so is the mean training box.
      cam: whether boxes are made from class activation maps.
      threshold: of `map_box`.

    Raises:
      UserError: no image of the split has a box of its class; or too few of `train` have, and there is no other way.
    """
    notes = []
    if train is not None and viewer.annotated_beyond(split) < FEWEST:  # before a long pass over many images
        if not cam:
            raise UserError(
                f"regression learns from the boxes of {train.split}, and the file has none beside those judged"
            )
        train, notes = None, [f"the file has no boxes of {train.split} to learn from: regression is left out"]
    fitted = None if train is None else fit_boxes(viewer.frames(train, Outputs(grid=True)))
    look = Outputs(guesses=True, maps=cam, grid=fitted is not None)
    frames: list[AnnotatedImage] = []
    top5: list[np.ndarray] = []
    boxes: dict[str, list[np.ndarray]] = {}
    for batch, said in viewer.frames(split, look):
        frames += batch
        top5.append(_five(said["top5"]))
        for name, made in _boxes_of(batch, said, fitted, threshold, viewer.side).items():
            boxes.setdefault(name, []).extend(made)
    if not frames:
        raise UserError(f"no image of {split.name} {split.split} has a box of its class in that file")
    if fitted is not None:
        notes.append(fitted.sentence)
    if "map" in said:
        places = " x ".join(map(str, said["map"].shape[2:]))
        notes.append(f"activation maps have {places} places, and their boxes are hardly finer than a place")
    if len(frames) < split.num_examples:
        notes.append(f"{split.num_examples - len(frames):,} images have no box of their class and are left out")
    guessed = np.concatenate(top5)
    results = tuple(_result(name, frames, guessed, np.stack(made)) for name, made in boxes.items())
    return LocalizationResult(tuple(frames), results, tuple(notes))


def _boxes_of(
    frames: list[AnnotatedImage],
    said: dict[str, np.ndarray],
    fitted: FittedRegression | None,
    threshold: float,
    side: int,
) -> dict[str, list[Int[np.ndarray, "5 4"]]]:
    """In each way, the boxes of the five guesses of every image by first and last pixels."""
    made: dict[str, list[np.ndarray]] = {}
    if "map" in said:
        shares = [np.stack([map_box(one, side, threshold) for one in each]) for each in said["map"]]
        made[CAM] = [_pixels(frame, frame.from_crop(box)) for frame, box in zip(frames, shares, strict=True)]
    if fitted is not None:
        corners = fitted.layer(said["grid"].astype(np.float64))
        made[REGRESSION] = [_pixels(f, f.from_crop(box[None])) for f, box in zip(frames, corners, strict=True)]
        made["mean training box"] = [_pixels(frame, frame.from_image(fitted.mean[None])) for frame in frames]
    made["central box"] = [_pixels(frame, frame.from_image(CENTRAL[None])) for frame in frames]
    return made


def _pixels(frame: AnnotatedImage, boxes: Float[np.ndarray, "k 4"]) -> Int[np.ndarray, "5 4"]:
    """First and last pixels of five boxes; one box alone serves all five guesses."""
    found = pixels_within(boxes, frame.height, frame.width)
    return np.concatenate([found, np.repeat(found[-1:], metrics.GUESSES - len(found), axis=0)])


def _five(top5: Int[np.ndarray, "n k"]) -> Int[np.ndarray, "n 5"]:
    return np.pad(top5, ((0, 0), (0, metrics.GUESSES - top5.shape[1])), constant_values=NO_GUESS)


def _result(
    name: str, frames: Sequence[AnnotatedImage], top5: np.ndarray, boxes: Num[np.ndarray, "n 5 4"]
) -> BoxResult:
    labels, ids = np.array([frame.label for frame in frames]), np.array([frame.id for frame in frames])
    guessed = BoxGuesses(top5, boxes, labels, ids)
    pixels = [frame.instances - np.array([0, 0, 1, 1]) for frame in frames]
    return BoxResult(name, guessed, right_boxes(boxes, pixels), count_errors(guessed, pixels))


def _of_class(objects: AnnotatedObjects, name: str) -> Num[np.ndarray, "m 4"]:
    """The boxes of objects of a class, and of those of which the file does not say the class."""
    return objects.boxes[np.array([one in (NO_CLASS, name) for one in objects.classes], bool)]
